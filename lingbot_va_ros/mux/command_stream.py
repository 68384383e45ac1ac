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
from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.mux.limit_filter import LimitFilter
from lingbot_va_ros.mux.ramp import Ramp
from lingbot_va_ros.mux.workspace import Breach, LARGEST_GAP, WorkspaceWatch
from lingbot_va_ros.specs.embodiment import JointLimits

# An arm that could not follow is led back to where it is in a motion of at most this time, s.
LONGEST_RETREAT = 3.0
REST_TOLERANCE = 1e-7  # rad, m; per s
# Periods that a following command announces beyond those that never change again: a message that
# comes late still finds the controller on a motion that the next one continues.
ANNOUNCED_PERIODS = 3
# At the workspace's wall the command between braking and the desired one is found by so many
# halvings.
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
    :param watch: the workspace that no command may leave; None: there is none.
    :param delay: the longest time from a command's stamp until its controller has it, s. A stop
        begins so much later, in whole periods and at least one.
    """

    def __init__(
        self, limits: JointLimits, period_ns: int, watch: WorkspaceWatch | None = None,
        delay: float = 0.0,
    ) -> None:
        self.period_ns = period_ns
        # How the desired motion of the last command would have left the workspace, or None.
        self.blocked: Breach | None = None
        self._period = period_ns / NANOSECONDS
        self._watch = watch
        self._limits = limits
        self._filter = LimitFilter(limits, self._period)
        self._ramp = Ramp(limits, self._period)  # for gentle stops
        self._sent: Plan | None = None
        self._reported_ns = 0
        # What a command says about this time after its stamp, no later command changes.
        self._fixed_ns = max(1, math.ceil(delay / self._period - 1e-9)) * period_ns
        self._limited_ns = 0  # up to here the last command was limited; its tail follows
        # Where the stream began in motion, before any command: there is nothing to keep.
        self._begins_moving = False

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

    def state(self, time_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """Return commanded positions and velocities [J] at a time."""
        return self._last_command().sample(time_ns)

    def acceleration(self, time_ns: int) -> np.ndarray:
        """Return the commanded accelerations [J] in the tick that ends at a time."""
        sent, before_ns = self._last_command(), time_ns - self.period_ns
        if before_ns < sent.times_ns[0]:
            return np.zeros_like(sent.positions[0])
        return np.asarray(
            (self.state(time_ns)[1] - self.state(before_ns)[1]) / self._period)

    def begin(self, time_ns: int, q: np.ndarray, v: np.ndarray) -> None:
        """Begin anew from a state [J]; earlier commands count no longer."""
        self._sent = resting_at(time_ns, q, v)
        self._reported_ns = self._limited_ns = time_ns
        self._begins_moving = bool(np.any(v))

    def next_step(self, tick_ns: int) -> int:
        """Return the time of the state from which `follow` goes on, at a tick."""
        return max(self._limited_ns, self._first_change(tick_ns))

    def _first_change(self, tick_ns: int) -> int:
        """Return the time up to which a command of this tick repeats the last one."""
        return tick_ns if self._begins_moving else tick_ns + self._fixed_ns

    def follow(
        self, tick_ns: int, desired: Callable[[int], tuple[np.ndarray, np.ndarray]],
    ) -> Plan:
        """
        Return the command of this tick towards desired states.

        The plan's first knot is the state now. What the last command announced for the next
        periods follows, then what is limited now, up to ANNOUNCED_PERIODS beyond what no later
        command changes, then the braking tail. Where a limited period or its tail would leave the
        workspace, the period ends between the desired state and braking, as near to the desired
        one as stays inside.

        :param desired: gives for the time of a state the desired positions and velocities [J] one
            period later. It is called once for each period that is limited now, in their order.
        """
        self.blocked = None
        until_ns = tick_ns + self._fixed_ns + ANNOUNCED_PERIODS * self.period_ns
        command = self._last_command()
        for step_ns in range(self.next_step(tick_ns), until_ns, self.period_ns):
            q, v = self.state(step_ns)
            limited = self._filter.step(q, v, *desired(step_ns))
            step = self._command(step_ns, q, v, *limited)
            if self._watch is not None:
                step = self._kept_inside(self._watch, step, limited)
            command = self._send(tick_ns, step)
            self._limited_ns = step_ns + self.period_ns
        return command

    def stop(self, tick_ns: int, gentle: bool = False) -> Plan:
        """
        Return the command that stops as soon as a command can change the motion.

        :param gentle: inside the jerk limits, where that leads neither out of the position limits
            nor out of the workspace; else as hard as the acceleration limits allow.
        """
        self.blocked = None
        begin_ns = self._first_change(tick_ns)
        q, v = self.state(begin_ns)
        hard = self._command(begin_ns, q, v)
        command = (self._gentle_stop(begin_ns, q, v, hard) if gentle else None) or hard
        return self._send(tick_ns, command)

    def retreat(self, tick_ns: int, q_goal: np.ndarray) -> Plan:
        """
        Return the command that stops and goes to rest at q_goal [J], inside the limits.

        It is for an arm that could not follow: the command no longer presses it against an
        obstacle, and does not jump to where it is. Where that way leaves the workspace it is a
        stop.
        """
        begin_ns = self._first_change(tick_ns)
        q, v = self.state(begin_ns)
        hard = self._command(begin_ns, q, v)
        rest = np.zeros_like(q)
        rows, speeds = [q], [v]
        while len(rows) <= LONGEST_RETREAT / self._period:
            q_next, v_next = self._filter.step(rows[-1], speeds[-1], q_goal, rest)
            rows.append(q_next)
            speeds.append(v_next)
            if np.all(np.abs(q_next - q_goal) < REST_TOLERANCE) and np.all(
                    np.abs(v_next) < REST_TOLERANCE):
                speeds[-1] = rest
                break
        ticks, tail, tail_speeds = self._filter.braking_tail(rows[-1], speeds[-1])
        times = np.concatenate((np.arange(len(rows)), len(rows) - 1 + ticks)) * self.period_ns
        plan = Plan(
            begin_ns + times, np.concatenate((rows, tail)), np.concatenate((speeds, tail_speeds)))
        self.blocked = None
        if self._watch is not None and self._watch.leaves(
                plan.positions, self._watch.worst(_dense(hard))):
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
        end_ns = min(until_ns, self._sent.end_ns)
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
            kept = (sent.times_ns > tick_ns) & (sent.times_ns < begin_ns)
            q, v = sent.sample(tick_ns)
            rest = Plan(
                np.concatenate(([tick_ns], sent.times_ns[kept], rest.times_ns)),
                np.concatenate((q[None], sent.positions[kept], rest.positions)),
                np.concatenate((v[None], sent.velocities[kept], rest.velocities)))
        if not (np.isfinite(rest.positions).all() and np.isfinite(rest.velocities).all()):
            raise NotFinite('the command is no finite number')
        self._sent, self._begins_moving, self._limited_ns = rest, False, begin_ns
        return rest

    def _last_command(self) -> Plan:
        if self._sent is None:
            raise RuntimeError('the command stream has not begun')
        return self._sent

    def _gentle_stop(
        self, time_ns: int, q: np.ndarray, v: np.ndarray, hard: Plan) -> Plan | None:
        if not np.any(v):
            return None
        try:
            positions, velocities = self._ramp.stop(q, v, self.acceleration(time_ns))
        except ValueError:
            return None
        low, high = np.minimum(q, self._limits.lower), np.maximum(q, self._limits.upper)
        if np.any(positions < low) or np.any(positions > high):
            return None
        # A joint that accelerates gains speed until its acceleration has sunk to 0.
        fastest = np.maximum(np.abs(v), self._limits.velocity)
        if np.any(np.abs(velocities) > fastest):
            return None
        times = time_ns + self.period_ns * np.arange(len(positions) + 1)
        plan = Plan(times, np.vstack((q, positions)), np.vstack((v, velocities)))
        if self._watch is not None and self._watch.leaves(
                positions, self._watch.worst(_dense(hard))):
            return None
        return plan

    def _kept_inside(
        self, watch: WorkspaceWatch, command: Plan, desired: tuple[np.ndarray, np.ndarray],
    ) -> Plan:
        """
        Return a command, shortened towards braking where it would leave the workspace.

        :param desired: positions and velocities [J] of its second knot.
        """
        time_ns, q, v = int(command.times_ns[0]), command.positions[0], command.velocities[0]
        path = _dense(command)
        if not watch.leaves(path, np.zeros_like(watch.excess(q))):
            return command
        # From a state outside, or too fast for a stop inside, braking leads least far out.
        stop = self._command(time_ns, q, v)
        allowed = watch.worst(_dense(stop))
        if not watch.leaves(path, allowed):
            return command
        self.blocked = watch.breach(watch.worst(path), allowed)
        q_stop, v_stop = stop.sample(time_ns + self.period_ns)
        # The limits of velocity and acceleration, and that of states from which a stop is
        # possible, are convex: a state between two that keep them keeps them too.
        share, step, kept = 0.0, 0.5, (q_stop, v_stop)
        for _ in range(HALVINGS):
            tried = (q_stop + (share + step) * (desired[0] - q_stop),
                     v_stop + (share + step) * (desired[1] - v_stop))
            if not watch.leaves(_dense(self._command(time_ns, q, v, *tried)), allowed):
                share, kept = share + step, tried
            step /= 2
        return self._command(time_ns, q, v, *kept)

    def _command(
        self, time_ns: int, q: np.ndarray, v: np.ndarray, q_next: np.ndarray | None = None,
        v_next: np.ndarray | None = None,
    ) -> Plan:
        """Return the state now, the state of the next tick if given, and the braking tail."""
        times, positions, velocities = [time_ns], [q], [v]
        if q_next is not None and v_next is not None:
            times.append(time_ns + self.period_ns)
            positions.append(q_next)
            velocities.append(v_next)
        ticks, tail, tail_velocities = self._filter.braking_tail(positions[-1], velocities[-1])
        times += [times[-1] + int(tick) * self.period_ns for tick in ticks]
        positions += list(tail)
        velocities += list(tail_velocities)
        return Plan(
            np.array(times, dtype=np.int64), np.array(positions), np.array(velocities))


def _dense(plan: Plan) -> np.ndarray:
    """Return positions [n, J] of a short plan, dense enough for the workspace to be checked."""
    way = np.abs(plan.positions[-1] - plan.positions[0]).max()
    # Evenly in time; a braking arm begins with twice its mean speed.
    count = math.ceil(2 * way / LARGEST_GAP) + 1
    times = np.linspace(plan.times_ns[0], plan.end_ns, count + 1).astype(np.int64)
    return np.array([plan.sample(time_ns)[0] for time_ns in times[1:]])
