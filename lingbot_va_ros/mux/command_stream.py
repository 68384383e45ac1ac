"""The stream of commands: each is a gated point and a braking tail, the next one goes on there."""

import math

import numpy as np

from lingbot_va_ros.motion.plan import Plan, resting_at
from lingbot_va_ros.mux.limit_filter import LimitFilter
from lingbot_va_ros.mux.ramp import Ramp
from lingbot_va_ros.mux.workspace import Breach, LARGEST_GAP, WorkspaceWatch
from lingbot_va_ros.specs.embodiment import JointLimits

# An arm that could not follow goes back to where it is in one motion of at most this time, s.
LONGEST_RETREAT = 3.0
AT_REST = 1e-7  # rad, m; per s
# How often the way between braking and what is asked for is halved at the workspace's wall.
HALVINGS = 6


class CommandStream:
    """
    Commands on a grid of ticks, each continuing the motion that the one before it described.

    The state at a tick is always read from the last command: when ticks were missed, the
    controller has gone on along the braking tail, and so does the stream.

    :param period_ns: from tick to tick.
    :param watch: the workspace that no command may leave; None: there is none.
    """

    def __init__(
        self, limits: JointLimits, period_ns: int, watch: WorkspaceWatch | None = None,
    ):
        self.period_ns = period_ns
        # How the last command would have left the workspace, had it been followed whole.
        self.blocked: Breach | None = None
        self._watch = watch
        self._limits = limits
        self._filter = LimitFilter(limits, period_ns * 1e-9)
        self._ramp = Ramp(limits, period_ns * 1e-9)  # for gentle stops
        self._sent: Plan | None = None
        self._reported_ns = 0

    @property
    def started(self) -> bool:
        """Whether a command was ever sent."""
        return self._sent is not None

    def last_position(self) -> np.ndarray | None:
        """Return where the last command leads in the end, [J], or None before any."""
        return None if self._sent is None else self._sent.positions[-1]

    def moving(self, time_ns: int) -> bool:
        """Return whether the last command still moves the arm at a time."""
        if self._sent is None:
            return False
        in_speed = bool(np.any(self._sent.velocities[-1]))  # Only as `begin` left it.
        return time_ns < self._sent.end_ns + in_speed

    def rested(self, time_ns: int, seconds: float) -> bool:
        """Return whether the last command ended at least so long ago."""
        return self._sent is not None and time_ns - self._sent.end_ns >= seconds * 1e9

    def state(self, time_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """Return commanded positions and velocities [J] at a time."""
        return self._sent.sample(time_ns)

    def acceleration(self, time_ns: int) -> np.ndarray:
        """Return the commanded accelerations [J] in the tick that ends at a time."""
        before_ns = time_ns - self.period_ns
        if before_ns < self._sent.times_ns[0]:
            return np.zeros_like(self._sent.positions[0])
        return (self.state(time_ns)[1] - self.state(before_ns)[1]) / (self.period_ns * 1e-9)

    def begin(self, time_ns: int, q: np.ndarray, v: np.ndarray) -> None:
        """Start anew from a state: what was sent before counts no longer."""
        self._sent = resting_at(time_ns, q, v)
        self._reported_ns = time_ns

    def follow(self, time_ns: int, q_desired: np.ndarray, v_desired: np.ndarray) -> Plan:
        """
        Return the command of this tick towards the desired state of the next tick.

        The plan's first knot is the state now (not to be sent), the second is due one period
        later, the rest is the braking tail. Where point or tail would leave the workspace
        the point lies between the desired one and braking, as near to the desired one as stays
        inside.
        """
        q, v = self.state(time_ns)
        wanted = self._filter.step(q, v, q_desired, v_desired)
        self.blocked = None
        self._sent = self._command(time_ns, q, v, *wanted)
        if self._watch is not None:
            self._keep_inside(time_ns, q, v, *wanted)
        return self._sent

    def stop(self, time_ns: int, gentle: bool = False) -> Plan:
        """
        Return the command that stops from the state now.

        :param gentle: inside the jerk limits, where that leads neither out of the position limits
            nor out of the workspace; else as hard as the acceleration limits allow.
        """
        self.blocked = None
        q, v = self.state(time_ns)
        hard = self._command(time_ns, q, v)
        self._sent = (self._gentle_stop(time_ns, q, v, hard) if gentle else None) or hard
        return self._sent

    def retreat(self, time_ns: int, q_goal: np.ndarray) -> Plan:
        """
        Return the command that stops and goes to rest at q_goal [J], inside the limits.

        For an arm that could not follow: it is no longer pressed against what held it up, and the
        command makes no jump to where it is. Where that way leaves the workspace it is a stop.
        """
        q, v = self.state(time_ns)
        hard = self.stop(time_ns)
        rest = np.zeros_like(q)
        rows, speeds = [q], [v]
        while len(rows) <= LONGEST_RETREAT / (self.period_ns * 1e-9):
            q_next, v_next = self._filter.step(rows[-1], speeds[-1], q_goal, rest)
            rows.append(q_next)
            speeds.append(v_next)
            if np.all(np.abs(q_next - q_goal) < AT_REST) and np.all(np.abs(v_next) < AT_REST):
                speeds[-1] = rest
                break
        ticks, tail, tail_speeds = self._filter.braking_tail(rows[-1], speeds[-1])
        times = np.concatenate((np.arange(len(rows)), len(rows) - 1 + ticks)) * self.period_ns
        plan = Plan(
            time_ns + times, np.concatenate((rows, tail)), np.concatenate((speeds, tail_speeds)))
        if self._watch is None or not self._watch.leaves(
                plan.positions, self._watch.worst(_dense(hard))):
            self._sent = plan
        return self._sent

    def _gentle_stop(self, time_ns, q, v, hard: Plan) -> Plan | None:
        if not np.any(v):
            return None
        try:
            positions, velocities = self._ramp.stop(q, v, self.acceleration(time_ns))
        except ValueError:
            return None
        low, high = np.minimum(q, self._limits.lower), np.maximum(q, self._limits.upper)
        if np.any(positions < low) or np.any(positions > high):
            return None
        times = time_ns + self.period_ns * np.arange(len(positions) + 1)
        plan = Plan(times, np.vstack((q, positions)), np.vstack((v, velocities)))
        if self._watch is not None and self._watch.leaves(
                positions, self._watch.worst(_dense(hard))):
            return None
        return plan

    def _keep_inside(self, time_ns, q, v, q_wanted, v_wanted) -> None:
        path = _dense(self._sent)
        inside = np.zeros_like(self._watch.excess(q))
        if not self._watch.leaves(path, inside):
            return
        # From a state outside, or too fast for a stop inside, nothing leads further than braking.
        stop = self._command(time_ns, q, v)
        allowed = self._watch.worst(_dense(stop))
        self.blocked = self._watch.breach(self._watch.worst(path), allowed)
        if not self._watch.leaves(path, allowed):
            self.blocked = None
            return
        q_stop, v_stop = stop.sample(time_ns + self.period_ns)
        # Limits of velocity and acceleration, and that of what can be stopped, are convex: what
        # lies between two steps that keep them keeps them too.
        share, step, kept = 0.0, 0.5, (q_stop, v_stop)
        for _ in range(HALVINGS):
            tried = (q_stop + (share + step) * (q_wanted - q_stop),
                     v_stop + (share + step) * (v_wanted - v_stop))
            if not self._watch.leaves(_dense(self._command(time_ns, q, v, *tried)), allowed):
                share, kept = share + step, tried
            step /= 2
        self._sent = self._command(time_ns, q, v, *kept)

    def _command(self, time_ns, q, v, q_next=None, v_next=None) -> Plan:
        times, positions, velocities = [time_ns], [q], [v]
        if q_next is not None:
            times.append(time_ns + self.period_ns)
            positions.append(q_next)
            velocities.append(v_next)
        ticks, tail, tail_velocities = self._filter.braking_tail(positions[-1], velocities[-1])
        times += [times[-1] + int(tick) * self.period_ns for tick in ticks]
        positions += list(tail)
        velocities += list(tail_velocities)
        if len(times) == 1:
            times.append(time_ns + self.period_ns)
            positions.append(q)
            velocities.append(v)
        return Plan(
            np.array(times, dtype=np.int64), np.array(positions), np.array(velocities))

    def executed(self, until_ns: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """
        Return (due time, positions, velocities) of the ticks up to `until_ns` not returned yet.

        Ends with the tick at which the last command comes to rest.
        """
        points = []
        if self._sent is None:
            return points
        end_ns = min(until_ns, self._sent.end_ns)
        while self._reported_ns + self.period_ns <= end_ns:
            self._reported_ns += self.period_ns
            points.append((self._reported_ns, *self._sent.sample(self._reported_ns)))
        return points


def _dense(plan: Plan) -> np.ndarray:
    """Return positions [n, J] of a short plan, so dense that the workspace can be watched."""
    way = np.abs(plan.positions[-1] - plan.positions[0]).max()
    # Evenly in time; a braking arm begins with twice its mean speed.
    count = math.ceil(2 * way / LARGEST_GAP) + 1
    times = np.linspace(plan.times_ns[0], plan.end_ns, count + 1).astype(np.int64)
    return np.array([plan.sample(time_ns)[0] for time_ns in times[1:]])
