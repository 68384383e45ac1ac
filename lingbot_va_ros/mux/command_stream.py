"""
The command stream: each command is the state now, some limited periods, and a braking tail.

A joint trajectory controller replaces its trajectory with every message, at a moment of its own
update cycle, and after the time that the message took. It changes nothing for the controller when
that is, as long as the new message agrees with the one before it at that moment. So a message
begins with the state at its stamp, the periods that the messages before it announced stay as they
were announced, and one more limited period and the braking tail follow.
"""

from collections.abc import Callable
import math

import numpy as np

from lingbot_va_ros.motion.plan import Plan, resting_at
from lingbot_va_ros.motion.time import NANOSECONDS, to_nanoseconds
from lingbot_va_ros.mux.curve import Blend, Curve, end_state, knot_times, NEAREST_KNOTS, State
from lingbot_va_ros.mux.goal import Goal
from lingbot_va_ros.mux.limit_filter import LimitFilter
from lingbot_va_ros.mux.state_watch import AnyBreach, StateWatch
from lingbot_va_ros.mux.stop_profile import StopProfile
from lingbot_va_ros.mux.workspace import LARGEST_GAP
from lingbot_va_ros.specs.embodiment import JointLimits

# An arm that could not follow is led back to where it is in a motion of at most this time, s.
LONGEST_RETREAT = 3.0
# Periods that a following command announces beyond those that never change again: a message that
# comes late still finds the controller on a motion that the next one continues.
ANNOUNCED_PERIODS = 3
# A joint slower (rad/s, m/s) and nearer to its end (rad, m) than this is at rest.
STILL = 1e-6
# Where the desired command leads outside, one between it and braking is found by so many halvings.
HALVINGS = 6

# Due time in ns of ROS time, positions [J], velocities [J].
ExecutedPoint = tuple[int, np.ndarray, np.ndarray]


class NotFinite(ArithmeticError):
    """A command would hold a number that is not finite; it was not sent."""


class CommandStream:
    """
    Commands on a grid of ticks, each of which continues the motion of the one before it.

    The state at a tick is always read from the last command: when ticks were missed, the
    controller has gone on along the braking tail, and so does the stream. Every method that reads
    a state needs a `begin` or a command before.

    :param period_ns: from tick to tick.
    :param watch: tells which states no command may lead to; None: there are none.
    :param delay: the longest time from a command's stamp until its controller has it, s. A stop
        begins so much later, in whole periods and at least one.
    :param goal_seconds: between two commands of a controller that does not get each of them; a
        command announces so much more.
    """

    def __init__(
        self, limits: JointLimits, period_ns: int, watch: StateWatch | None = None,
        delay: float = 0.0, goal_seconds: float = 0.0,
    ) -> None:
        self.period_ns = period_ns
        self.begins = 0  # how often the stream has begun anew
        # How the desired motion of the last command would have led outside, or None.
        self.blocked: AnyBreach | None = None
        self._rests_at_wall = False  # whether the last command could not go on at all
        self._period = period_ns / NANOSECONDS
        self._watch = watch
        self._limits = limits
        self._filter = LimitFilter(limits, self._period)
        self._sent: Plan | None = None
        self._reported_ns = 0
        # What a command says about this time after its stamp, no later command changes.
        self._fixed_ns = max(1, math.ceil(delay / self._period - 1e-9)) * period_ns
        self._announced_ns = period_ns * (
            ANNOUNCED_PERIODS + math.ceil(goal_seconds / self._period - 1e-9))
        self._limited_ns = 0  # up to here the last command was limited; its tail follows
        # Where the stream began in motion, before any command: there is nothing to keep.
        self._begins_moving = False
        self._begin_acceleration = np.zeros_like(limits.lower)

    def limit_speed(self, share: float) -> None:
        """Keep following commands and retreats to a share of the velocity limits, 0 … 1."""
        self._filter.speed = share

    @property
    def started(self) -> bool:
        """Whether there is a state: the stream has begun."""
        return self._sent is not None

    def last_position(self) -> np.ndarray | None:
        """Return the positions [J] at which the last command ends, or None before any."""
        return None if self._sent is None else self._sent.positions[-1]

    def moving(self, time_ns: int) -> bool:
        """Return whether the last command still moves the arm at a time."""
        if self._sent is None:
            return False
        ends_moving = bool(np.any(self._sent.velocities[-1]))  # only as `begin` left it
        return time_ns < self._sent.end_ns + ends_moving

    def rested(self, time_ns: int, seconds: float) -> bool:
        """Return whether the last command ended at least so many seconds ago."""
        return self._sent is not None and (
            time_ns - self._sent.end_ns >= seconds * NANOSECONDS)

    def rests(self, time_ns: int) -> bool:
        """Return whether the last command has the arm at rest from a time on."""
        left = self._last_command().from_time(time_ns)
        return bool(
            np.all(np.abs(left.velocities) < STILL)
            and np.all(np.abs(left.positions - left.positions[-1]) < STILL))

    def hold(self, columns: np.ndarray, since_ns: int) -> None:
        """
        Let some joints rest from a time on where they are then, because no row of them was sent.

        :param columns: [J] bool.
        """
        sent = self._last_command()
        positions, velocities = sent.positions.copy(), sent.velocities.copy()
        positions[:, columns] = sent.sample(since_ns)[0][columns]
        velocities[:, columns] = 0.0
        self._sent = Plan(sent.times_ns, positions, velocities)

    def state(self, time_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """Return commanded positions and velocities [J] at a time."""
        return self._last_command().sample(time_ns)

    def front(self) -> np.ndarray:
        """Return the positions [J] up to which the last command is limited; its tail follows."""
        return self.state(self._limited_ns)[0]

    def begin(
        self, time_ns: int, q: np.ndarray, v: np.ndarray, a: np.ndarray | None = None) -> None:
        """Begin anew from a state [J], by default at no acceleration; commands before end."""
        self.begins += 1
        self._sent = resting_at(time_ns, q, v)
        self._reported_ns = self._limited_ns = time_ns
        self._begin_acceleration = np.zeros_like(q) if a is None else a
        self._begins_moving = bool(np.any(v))

    def acceleration(self, time_ns: int) -> np.ndarray:
        """Return the commanded accelerations [J] up to a time."""
        sent = self._last_command()
        if len(sent.times_ns) == 1 and time_ns == sent.end_ns:
            return self._begin_acceleration
        return sent.bend(time_ns)[0]

    def _moving_state(self, time_ns: int) -> State:
        return (*self.state(time_ns), self.acceleration(time_ns))

    def _first_change(self, tick_ns: int) -> int:
        """Return the time up to which a command of this tick repeats the last one."""
        return tick_ns if self._begins_moving else tick_ns + self._fixed_ns

    def follow(self, tick_ns: int, desired: Callable[[int], tuple[Goal, float]]) -> Plan:
        """
        Return the command of this tick towards goals.

        The plan's first knot is the state now. What the last command announced for the next
        periods follows, then what is limited now, up to what is announced beyond what no later
        command changes, then the braking tail. Where a limited period or its tail would lead
        outside of what the watch allows, the period ends between the asked state and braking, as
        near to the asked one as stays inside.

        :param desired: gives for the time of a state the goal one period later, and the share of
            the velocity and acceleration limits with which it is led to, 0 … 1. It is called once
            for each period that is limited now, in their order.
        :raises ArithmeticError: there is no way towards a goal inside the limits; the last command
            stays.
        """
        self.blocked = None
        until_ns = tick_ns + self._fixed_ns + self._announced_ns
        command = self._last_command()
        begin_ns = max(self._limited_ns, self._first_change(tick_ns))
        for step_ns in range(begin_ns, until_ns, self.period_ns):
            state = self._moving_state(step_ns)
            motion = self._filter.step(*state, *desired(step_ns))
            step = self._moving_command(step_ns, state, motion)
            if self._watch is not None:
                step = self._kept_inside(self._watch, step_ns, state, step, motion)
            command = self._send(tick_ns, step)
            self._limited_ns = step_ns + self.period_ns
        return command

    def stop(self, tick_ns: int, gentle: bool = False) -> Plan:
        """
        Return the command that stops as soon as a command can change the motion.

        :param gentle: inside the jerk limits of motions, where that leads neither out of the
            position limits nor outside; else inside those of stops.
        """
        self.blocked = None
        # An arm at rest needs no time for the command to come: it is told to stay, once.
        begin_ns = (
            self._first_change(tick_ns) if self.moving(tick_ns) else tick_ns + self.period_ns)
        state = self._moving_state(begin_ns)
        hard = self._hard_stop(begin_ns, state)
        command = (self._gentle_stop(begin_ns, state, hard) if gentle else None) or hard
        return self._send(tick_ns, command)

    def retreat(self, tick_ns: int, q_goal: np.ndarray) -> Plan:
        """
        Return the command that stops and goes to rest at q_goal [J], inside the limits.

        It is for an arm that could not follow: the command no longer presses it against an
        obstacle, and does not jump to where it is. Where that way leaves the position limits or
        leads outside it is a stop.
        """
        begin_ns = self._first_change(tick_ns)
        state = self._moving_state(begin_ns)
        hard = self._hard_stop(begin_ns, state)
        self.blocked = None
        try:
            way, seconds = self._filter.way_to_rest(*state, q_goal)
        except ArithmeticError:
            return self._send(tick_ns, hard)
        seconds = min(seconds, LONGEST_RETREAT)
        plan = self._moving_command(begin_ns, state, way, seconds)
        if self._watch is not None and self._watch.leaves(
                _dense(plan), self._watch.worst(_dense(hard))):
            return self._send(tick_ns, hard)
        return self._send(tick_ns, plan)

    def executed(self, until_ns: int) -> list[ExecutedPoint]:
        """
        Return the points of the ticks up to `until_ns` that were not returned yet.

        The points end with the tick at which the last command comes to rest.
        """
        points: list[ExecutedPoint] = []
        if self._sent is None:
            return points
        # A command may come to rest between two ticks.
        left = math.ceil((self._sent.end_ns - self._reported_ns) / self.period_ns)
        end_ns = min(until_ns, self._reported_ns + left * self.period_ns)
        while self._reported_ns + self.period_ns <= end_ns:
            self._reported_ns += self.period_ns
            points.append((self._reported_ns, *self._sent.sample(self._reported_ns)))
        return points

    def _send(self, tick_ns: int, rest: Plan) -> Plan:
        """
        Return the command of a tick: the last one until `rest` begins, and then `rest`.

        :raises NotFinite: the last command stays.
        """
        sent, begin_ns = self._last_command(), int(rest.times_ns[0])
        if begin_ns > tick_ns:
            rest = sent.from_time(tick_ns).followed_by(rest)
        if not (np.isfinite(rest.positions).all() and np.isfinite(rest.velocities).all()):
            raise NotFinite('the command is no finite number')
        self._sent, self._begins_moving, self._limited_ns = rest, False, begin_ns
        self._begin_acceleration = np.zeros_like(self._limits.lower)
        return rest

    def _last_command(self) -> Plan:
        if self._sent is None:
            raise RuntimeError('the command stream has not begun')
        return self._sent

    def _hard_stop(self, time_ns: int, state: State) -> Plan:
        """
        Return the fastest stop.

        Where that leads outside, it is the braking tail with which the motion was announced: all
        joints stop together, on a way that was checked.
        """
        hard = self._command(time_ns, state, self._filter.stop(*state))
        if self._watch is None or not self._watch.leaves(_dense(hard), self._watch.nothing):
            return hard
        tail = self._command(time_ns, state, self._filter.tail(*state))
        leaves = self._watch.leaves(_dense(tail), self._watch.worst(_dense(hard)))
        return hard if leaves else tail

    def _gentle_stop(self, time_ns: int, state: State, hard: Plan) -> Plan | None:
        q, v, _ = state
        stop, limits = self._filter.stop(*state, gentle=True), self._limits
        # A joint that accelerates gains speed until its acceleration has sunk to 0.
        if (np.any(stop.lower < np.minimum(q, limits.lower))
                or np.any(stop.upper > np.maximum(q, limits.upper))
                or np.any(stop.fastest > np.maximum(np.abs(v), limits.velocity))):
            return None
        plan = self._command(time_ns, state, stop)
        if self._watch is not None and self._watch.leaves(
                _dense(plan), self._watch.worst(_dense(hard))):
            return None
        return plan

    def _kept_inside(
        self, watch: StateWatch, time_ns: int, state: State, command: Plan, motion: Curve,
    ) -> Plan:
        """
        Return a command, shortened towards braking where it would lead outside.

        :param state: at which it begins.
        :param motion: of its first period.
        """
        path = _dense(command)
        if not watch.leaves(path, watch.nothing):
            self._rests_at_wall = False
            return command
        # What was announced last was inside. From a state outside, or too fast for a stop inside,
        # it is what leads no further out.
        announced: Curve = _Remainder(self._last_command(), time_ns)
        kept = self._last_command().from_time(time_ns)
        if self._begins_moving:
            announced = stop = self._filter.stop(*state)
            kept = self._command(time_ns, state, stop)
        allowed = watch.worst(_dense(kept))
        if not watch.leaves(path, allowed):
            return command
        self.blocked = watch.breach(watch.worst(path), allowed)
        is_free = watch.free_joints(self.blocked) & self._differ(announced, motion)

        def inside(share: float) -> Plan | None:
            # The limits are convex: a motion between two that keep them keeps them too.
            tried = self._moving_command(time_ns, state, Blend(
                announced, motion, np.where(is_free, 1.0, share)))
            return None if watch.leaves(_dense(tried), allowed) else tried
        if np.any(is_free):
            kept = inside(0.0) or kept
        if self._rests_at_wall and inside(0.5 ** HALVINGS) is None:
            return kept
        share, step = 0.0, 0.5
        for _ in range(HALVINGS):
            tried = inside(share + step)
            if tried is not None:
                share, kept = share + step, tried
            step /= 2
        self._rests_at_wall = share == 0.0
        return kept

    def _differ(self, one: Curve, other: Curve) -> np.ndarray:
        """Return which joints [J] two curves leave elsewhere, or moving otherwise."""
        return np.asarray(np.any([
            np.abs(part - another) > STILL for part, another in zip(
                end_state(one, self._period), end_state(other, self._period), strict=True)], 0))

    def _moving_command(
        self, time_ns: int, state: State, motion: Curve, seconds: float | None = None) -> Plan:
        """Return a motion of some seconds, by default one period, and the braking tail."""
        seconds = self._period if seconds is None else seconds
        tail = self._filter.tail(*end_state(motion, seconds))
        return self._command(time_ns, state, tail, (motion, seconds))

    def _command(
        self, time_ns: int, state: State, stop: StopProfile, *motions: tuple[Curve, float],
    ) -> Plan:
        """Return motions from the state [J] at a time, each for so many seconds, and a stop."""
        times, positions, velocities = [np.zeros(1)], [state[0][None]], [state[1][None]]
        begin = 0.0
        for curve, length in (*motions, (stop, stop.end)):
            if length >= NEAREST_KNOTS:
                knots = knot_times(curve.switches, length)
                q, v, _ = curve.at(knots)
                times.append(begin + knots)
                positions.append(q)
                velocities.append(v)
                begin += float(knots[-1])
        # A stop that is too short for a knot is none.
        velocities[-1][-1] = 0.0
        return Plan(
            time_ns + np.rint(np.concatenate(times) * NANOSECONDS).astype(np.int64),
            np.concatenate(positions), np.concatenate(velocities))


class _Remainder:
    """What is left of a plan from a time on, as a `Curve`."""

    def __init__(self, plan: Plan, time_ns: int) -> None:
        self._plan = plan
        self._time_ns = time_ns

    @property
    def switches(self) -> np.ndarray:
        """The times [n] of its knots, s."""
        return np.asarray((self._plan.times_ns - self._time_ns) / NANOSECONDS)

    def at(self, times: np.ndarray) -> State:
        """Return positions, velocities and accelerations [n, J] at times [n], s."""
        states = []
        for time in times:
            time_ns = self._time_ns + to_nanoseconds(float(time))
            states.append((*self._plan.sample(time_ns), self._plan.bend(time_ns)[0]))
        q, v, a = (np.array(part) for part in zip(*states, strict=True))
        return q, v, a


def _dense(plan: Plan) -> np.ndarray:
    """Return positions [n, J] of a short plan, dense enough for a watch."""
    way = np.abs(np.diff(plan.positions, axis=0)).sum(axis=0).max()
    # Evenly in time; a braking arm begins with twice its mean speed.
    count = math.ceil(2 * way / LARGEST_GAP) + 1
    times = np.linspace(plan.times_ns[0], plan.end_ns, count + 1).astype(np.int64)
    return plan.positions_at(times)
