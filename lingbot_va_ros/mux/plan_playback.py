"""Plan playback: follows plans along their own path, slower where a joint would be too fast."""

import numpy as np

from lingbot_va_ros.motion.plan import Plan
from lingbot_va_ros.motion.time import NANOSECONDS, to_nanoseconds
from lingbot_va_ros.mux.command_source import Goal

# A playback that is behind its plan makes up for it at so much more than the plan's speed, and
# in about this time, seconds.
CATCH_UP, CATCH_UP_SECONDS = 0.25, 0.5


class PlanPlayback:
    """
    The plan that is followed, and how far behind its own times the playback is.

    A plan that is faster than the speed limits allow is slowed down as a whole: its joints stay on
    their common path, and the playback falls behind. Where there is room, it catches up again.

    :param velocity, acceleration: limits [J], rad and s (prismatic: m).
    :param sets_pace: [J] bool; other joints slow nothing down. A policy closes a gripper from one
        action to the next, and no arm waits for it.
    """

    def __init__(
        self, velocity: np.ndarray, acceleration: np.ndarray, sets_pace: np.ndarray) -> None:
        self._velocity = velocity
        self._acceleration = acceleration
        self._sets_pace = sets_pace
        self._plan: Plan | None = None
        self._lag_ns = 0
        self._rate = 1.0

    def clear(self) -> None:
        """Follow nothing."""
        self._plan, self._lag_ns, self._rate = None, 0, 1.0

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
        if self._plan is None:
            self._plan = plan
            return
        if not self._lag_ns:
            self._plan = plan.led_to(tick_ns, *sample(self._plan, tick_ns))
            return
        behind_ns = tick_ns - self._lag_ns
        q, v = sample(self._plan, behind_ns)
        begin_ns = max(tick_ns, int(plan.times_ns[0]))
        begin = plan.sample(begin_ns)[0]
        from_here, from_plan = (
            largest_share(begin - each, self._velocity, self._sets_pace)
            for each in (q, sample(self._plan, begin_ns)[0]))
        if from_here < from_plan:
            self._lag_ns, self._plan = 0, plan.led_to(tick_ns, q, self._rate * v)
            return
        led = plan.led_to(tick_ns, *sample(self._plan, tick_ns))
        old, new = self._plan, led.times_ns >= tick_ns
        kept = (old.times_ns > behind_ns) & (old.times_ns < led.times_ns[new][0])
        self._plan = Plan(
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
            from_ns, self._lag_ns, self._rate = tick_ns, 0, 1.0
        v_from = sample(plan, from_ns)[1]
        rate = self._next_rate(
            v_from, sample(plan, from_ns + next_ns - tick_ns)[1], seconds, speed)
        to_ns = from_ns + (next_ns - tick_ns if rate == 1.0 else to_nanoseconds(rate * seconds))
        if to_ns >= next_ns:
            to_ns, rate = next_ns, min(rate, 1.0)
        q, v = sample(plan, to_ns)
        acceleration = (rate * v - self._rate * v_from) / seconds
        self._lag_ns, self._rate = next_ns - to_ns, rate
        return q, rate * v, acceleration

    def _next_rate(
        self, v_from: np.ndarray, v_to: np.ndarray, seconds: float, speed: float) -> float:
        """
        Return the next share of the plan's own speed.

        :param v_from, v_to: the plan's velocities [J] at the begin and the end of the tick.
        """
        fastest = np.maximum(np.abs(v_from), np.abs(v_to))
        # Of the limits, at the plan's own speed.
        share = largest_share(fastest, self._velocity, self._sets_pace)
        behind = self._lag_ns / NANOSECONDS
        most = 1.0 + min(CATCH_UP, behind / CATCH_UP_SECONDS)
        if share > 0.0:
            most = min(most, speed / share)
        # A change of the rate alone stays inside the acceleration limits.
        change = largest_share(fastest, self._acceleration * seconds, self._sets_pace)
        if change > 0.0:
            most = min(max(most, self._rate - 1.0 / change), self._rate + 1.0 / change)
        return most


def sample(plan: Plan, time_ns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (q, v) [J] of a plan; before its begin as if it came from there at that velocity."""
    before = (int(plan.times_ns[0]) - time_ns) / NANOSECONDS
    if before <= 0:
        return plan.sample(time_ns)
    return plan.positions[0] - plan.velocities[0] * before, plan.velocities[0]


def largest_share(values: np.ndarray, limits: np.ndarray, counts: np.ndarray) -> float:
    """Return the largest absolute value [J] as a share of its limit, among those that count."""
    return float(np.max(np.where(counts, np.abs(values) / limits, 0.0), initial=0.0))
