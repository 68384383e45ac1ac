"""Plan playback: follows plans along their own path, slower where a joint would be too fast."""

import math

import numpy as np

from lingbot_va_ros.motion.plan import Plan
from lingbot_va_ros.motion.time import NANOSECONDS, to_nanoseconds
from lingbot_va_ros.mux.goal import even_goal, Goal, plan_goal
from lingbot_va_ros.specs.embodiment import JointLimits

# A playback that is behind its plan makes up for it at so much more than the plan's speed, and
# in about this time, seconds.
CATCH_UP, CATCH_UP_SECONDS = 0.25, 0.5
# Of the acceleration and jerk limits, a change of the rate may need this share: the bends of the
# path need the rest.
RATE_SHARE = 0.5
# The rate sinks ahead of what is too fast by so much, seconds, looked at in so many places.
LOOK_AHEAD, PLACES = 0.4, 9
# It stays below the speed limits by this share, as what leads the arm along the path needs it.
MARGIN = 0.975
# A path at rest bounds no change of the rate; this does, per s.
FASTEST_CHANGE = 10.0
SAME_RATE = 1e-6


class PlanPlayback:
    """
    The plan that is followed, and how far behind its own times the playback is.

    A plan that is faster than the speed limits allow is slowed down as a whole: its joints stay on
    their common path, and the playback falls behind. Where there is room, it catches up again.

    :param limits: of the joints.
    :param sets_pace: [J] bool; other joints slow nothing down. A policy closes a gripper from one
        action to the next, and no arm waits for it.
    """

    def __init__(self, limits: JointLimits, sets_pace: np.ndarray) -> None:
        self._velocity = limits.velocity
        self._acceleration = limits.acceleration
        self._jerk = limits.jerk
        self._sets_pace = sets_pace
        self._plan: Plan | None = None
        self._lag_ns = 0
        self._rate = 1.0
        self._change = 0.0  # of the rate, per s
        self._fastest = 0.0  # share of the velocity limits, of the plan that is followed

    def clear(self) -> None:
        """Follow nothing."""
        self._plan, self._lag_ns, self._rate, self._change = None, 0, 1.0, 0.0

    @property
    def lag_ns(self) -> int:
        """How far the playback is behind the plan's own times, ns."""
        return self._lag_ns

    def take(self, plan: Plan, tick_ns: int) -> None:
        """
        Go on to a newer plan.

        It is led to from what the plan before asked for, not from where the limit filter let the
        arm come: a lead from there, renewed with every message, would ask for more speed than can
        be braked. A playback that is behind first completes the way to where the newer plan
        begins, unless the newer plan begins nearer to where the playback is.
        """
        self._plan = self._joined(plan, tick_ns)
        self._fastest = largest_share(
            self._plan.fastest(int(self._plan.times_ns[0]), self._plan.end_ns), self._velocity,
            self._sets_pace)

    def _joined(self, plan: Plan, tick_ns: int) -> Plan:
        if self._plan is None:
            return plan
        if not self._lag_ns:
            return plan.led_to(tick_ns, *sample(self._plan, tick_ns))
        behind_ns = tick_ns - self._lag_ns
        q, v = sample(self._plan, behind_ns)
        begin_ns = max(tick_ns, int(plan.times_ns[0]))
        begin = plan.sample(begin_ns)[0]
        from_here, from_plan = (
            largest_share(begin - each, self._velocity, self._sets_pace)
            for each in (q, sample(self._plan, begin_ns)[0]))
        if from_here < from_plan:
            self._lag_ns = 0
            return plan.led_to(tick_ns, q, self._rate * v)
        led = plan.led_to(tick_ns, *sample(self._plan, tick_ns))
        old, new = self._plan, led.times_ns >= tick_ns
        kept = (old.times_ns > behind_ns) & (old.times_ns < led.times_ns[new][0])
        return Plan(
            np.concatenate(([behind_ns], old.times_ns[kept], led.times_ns[new])).astype(np.int64),
            np.concatenate((q[None], old.positions[kept], led.positions[new])),
            np.concatenate((v[None], old.velocities[kept], led.velocities[new])))

    def step(self, tick_ns: int, next_ns: int, speed: float) -> Goal:
        """
        Return what to have at `next_ns`, the tick after `tick_ns`.

        :param speed: share of the velocity limits that no joint exceeds, 0 … 1.
        :raises RuntimeError: there is no plan.
        """
        plan = self._plan
        if plan is None:
            raise RuntimeError('playback without a plan')
        seconds = (next_ns - tick_ns) / NANOSECONDS
        from_ns = tick_ns - self._lag_ns
        if from_ns >= plan.end_ns:  # at rest: nothing is left to catch up with
            from_ns, self._lag_ns, self._rate, self._change = tick_ns, 0, 1.0, 0.0
        before, swing = self._rate, self._change_rate(plan, from_ns, seconds, speed)
        is_even = self._rate == before == 1.0
        to_ns = from_ns + (
            next_ns - tick_ns if is_even else
            to_nanoseconds(((before + self._rate) / 2.0 - swing * seconds ** 2 / 12.0) * seconds))
        if to_ns >= next_ns:
            to_ns = next_ns
            self._rate, self._change = min(self._rate, 1.0), min(self._change, 0.0)
        rate, change = self._rate, self._change
        self._lag_ns = next_ns - to_ns
        if to_ns < plan.times_ns[0] or to_ns <= from_ns:
            q, v = sample(plan, to_ns)
            return even_goal(q, rate * v)
        q, v, a, j = plan_goal(plan, to_ns, self._acceleration, self._jerk)
        if is_even:
            return Goal(q, v, a, j)
        return Goal(
            q, rate * v, rate ** 2 * a + change * v,
            rate ** 3 * j + 3.0 * rate * change * a + swing * v)

    def _change_rate(self, plan: Plan, from_ns: int, seconds: float, speed: float) -> float:
        """
        Move on to the next share of the plan's own speed, and return how its change changed, 1/s².

        The joints stay inside shares of the acceleration and jerk limits by the change alone.
        """
        behind = self._lag_ns / NANOSECONDS
        goal = 1.0 + min(CATCH_UP, behind / CATCH_UP_SECONDS)
        if goal == self._rate and self._change == 0.0 and self._fastest <= MARGIN * speed:
            return 0.0
        ahead = np.linspace(0.0, LOOK_AHEAD, PLACES)
        speeds = np.abs([
            sample(plan, from_ns + to_nanoseconds(float(later)))[1] for later in ahead])
        most, swing = self._bounds(speeds[:2].max(axis=0), seconds)
        # Of the limits, at the plan's own speed; the rate can sink until a place is reached, as
        # fast as the fastest of the way there lets it.
        shares = [largest_share(each, self._velocity, self._sets_pace) for each in speeds]
        slowest, slowest_swing = self._bounds(speeds.max(axis=0), seconds)
        sinks = slowest * np.maximum(ahead - slowest / slowest_swing, 0.0)
        goal = min(goal, *(
            MARGIN * speed / share + float(sink)
            for share, sink in zip(shares, sinks, strict=True) if share > 0.0), goal)
        way = goal - self._rate
        # The change from which it still sinks to 0 before the goal.
        change = float(np.sign(way)) * min(most, stopping_speed(abs(way) / swing, seconds) * swing)
        change = min(max(change, self._change - swing * seconds), self._change + swing * seconds)
        rate = self._rate + (self._change + change) / 2.0 * seconds
        if abs(goal - rate) < SAME_RATE and abs(change) <= swing * seconds:
            rate, change = goal, 0.0
        swing = (change - self._change) / seconds
        self._rate, self._change = max(rate, 0.0), change
        return swing

    def _bounds(self, speeds: np.ndarray, seconds: float) -> tuple[float, float]:
        """Return the largest change of the rate, 1/s, and of that change, 1/s², at speeds [J]."""
        most = largest_share(speeds, RATE_SHARE * self._acceleration, self._sets_pace)
        swing = largest_share(speeds, RATE_SHARE * self._jerk, self._sets_pace)
        return (
            min(1.0 / most if most > 0.0 else np.inf, FASTEST_CHANGE),
            min(1.0 / swing if swing > 0.0 else np.inf, FASTEST_CHANGE / seconds))


def sample(plan: Plan, time_ns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (q, v) [J] of a plan; before its begin as if it came from there at that velocity."""
    before = (int(plan.times_ns[0]) - time_ns) / NANOSECONDS
    if before <= 0:
        return plan.sample(time_ns)
    return plan.positions[0] - plan.velocities[0] * before, plan.velocities[0]


def largest_share(values: np.ndarray, limits: np.ndarray, counts: np.ndarray) -> float:
    """Return the largest absolute value [J] as a share of its limit, among those that count."""
    return float(np.max(np.where(counts, np.abs(values) / limits, 0.0), initial=0.0))


def stopping_speed(distance: float, period: float) -> float:
    """
    Return the largest speed to have one tick from now that still stops within a distance.

    Speed changes by 1 a second: the unit of the distance is that of what changes it. The speed
    w = k·T + r (0 ≤ r < T) sinks by T a tick and by r in the last one. With the tick in which it
    is reached that takes T²·k(k+1)/2 + (k+1)·r·T, which is solved for w here.
    """
    step = period * period
    ticks = math.floor((math.sqrt(1.0 + 8.0 * distance / step) - 1.0) / 2.0)
    rest = (distance - step * ticks * (ticks + 1.0) / 2.0) / ((ticks + 1.0) * period)
    return ticks * period + rest
