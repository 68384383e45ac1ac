"""The limit filter: motions that keep every limit, whatever is asked."""

import numpy as np

from lingbot_va_ros.mux.chase import Chase
from lingbot_va_ros.mux.curve import Blend, Curve
from lingbot_va_ros.mux.goal import Goal
from lingbot_va_ros.mux.stop_profile import fastest_stop, StopProfile, straight_stop
from lingbot_va_ros.specs.embodiment import JointLimits

# Rounding of sums of positions (rad, m) and velocities: so far beyond a limit is no fault.
ROUNDING = 1e-9
# Between stopping and what is asked, a motion that keeps the limits is found by so many halvings.
HALVINGS = 8


class LimitFilter:
    """
    Leads all joints [J] tick by tick towards goals, inside the limits.

    From a state whose stop keeps the limits no goal leads to one whose stop does not: position,
    velocity, acceleration and jerk limits hold at all times, and a stop inside them stays
    possible. A motion is as jerky as a stop only where that keeps it inside the position or
    velocity limits. A start outside the position limits (a measured one) may come back, and goes
    no further out than its stop does.

    :param period: seconds from tick to tick.
    """

    def __init__(self, limits: JointLimits, period: float) -> None:
        self.limits = limits
        self.period = float(period)
        # Share of the velocity limits, 0 … 1, that holds now; may change at any tick.
        self.speed = 1.0
        self._chase = Chase(limits, self.period)
        # A joint that turns round within a tick is furthest out in the middle of it.
        self._checked_times = self.period * np.array([0.25, 0.5, 0.75, 1.0])

    def stop(
        self, q: np.ndarray, v: np.ndarray, a: np.ndarray, gentle: bool = False) -> StopProfile:
        """
        Return the fastest stop from a state [J].

        :param gentle: inside the jerk limits of motions, not only inside those of stops.
        """
        jerk = self.limits.jerk if gentle else self.limits.stopping_jerk
        return fastest_stop(q, v, a, self.limits.acceleration, jerk)

    def tail(self, q: np.ndarray, v: np.ndarray, a: np.ndarray) -> StopProfile:
        """
        Return the stop from a state [J] with which a command ends.

        All joints stop together where that keeps the limits and turns none round: few knots
        describe it, and the arm stays near its path. Else each stops as fast as it may.
        """
        limits = self.limits
        stop = straight_stop(q, v, a, limits.acceleration, limits.stopping_jerk)
        is_inside = (
            (stop.lower >= limits.lower) & (stop.upper <= limits.upper)
            & (stop.fastest <= limits.velocity))
        if is_inside.all() and not stop.turns.any():
            return stop
        return self.stop(q, v, a)

    def step(
        self, q: np.ndarray, v: np.ndarray, a: np.ndarray, goal: Goal, share: float = 1.0,
    ) -> Curve:
        """
        Return the motion of the next tick.

        A goal that is no finite number counts as a stop of its joint.

        :param q, v, a: the present state [J].
        :param goal: one tick later.
        :param share: of the velocity and acceleration limits, above 0 and at most 1.
        :raises ArithmeticError: there is no way towards the goal inside the limits.
        """
        limits = self.limits
        finite = np.logical_and.reduce([np.isfinite(part) for part in goal])
        inside = np.clip(np.where(finite, goal.q, q), limits.lower, limits.upper)
        moves = finite & (inside == goal.q)
        goal = Goal(inside, *(np.where(moves, part, 0.0) for part in goal[1:]))
        if not finite.any():
            return self.stop(q, v, a)
        asked = self._chase.segment(q, v, a, goal, share, self.speed)
        if finite.all() and self._keeps(
                asked, limits.lower, limits.upper, limits.velocity).all():
            return asked
        return self._kept(asked, self.stop(q, v, a), finite)

    def way_to_rest(
        self, q: np.ndarray, v: np.ndarray, a: np.ndarray, goal: np.ndarray,
    ) -> tuple[Curve, float]:
        """
        Return the fastest way to rest at positions [J] inside the limits, and its seconds.

        :raises ArithmeticError: there is none.
        """
        limits = self.limits
        way = self._chase.way_to_rest(q, v, a, goal, self.speed)
        lowest, highest = way.extremes()
        if np.any(lowest < np.minimum(q, limits.lower) - ROUNDING) or np.any(
                highest > np.maximum(q, limits.upper) + ROUNDING):
            raise ArithmeticError('it leaves the position limits')
        return way, way.seconds

    def _kept(self, asked: Curve, stop: StopProfile, may_follow: np.ndarray) -> Curve:
        """
        Return the motion that is as near to the asked one as keeps the limits.

        :param stop: from the present state; it keeps them, or leaves them least.
        :param may_follow: [J] bool; the other joints stop.
        """
        limits = self.limits
        # What is beyond a limit by rounding must not go beyond by as much again, tick by tick.
        lower = np.minimum(limits.lower, stop.lower + ROUNDING)
        upper = np.maximum(limits.upper, stop.upper - ROUNDING)
        fastest = np.maximum(limits.velocity, stop.fastest - ROUNDING)
        low, high = np.zeros(len(lower)), may_follow.astype(float)
        tried = high
        for _ in range(HALVINGS + 1):
            keeps = self._keeps(Blend(stop, asked, tried), lower, upper, fastest)
            low, high = np.where(keeps, tried, low), np.where(keeps, high, tried)
            if np.all(low == high):
                break
            tried = (low + high) / 2.0
        return Blend(stop, asked, low)

    def _keeps(
        self, motion: Curve, lower: np.ndarray, upper: np.ndarray, velocity: np.ndarray,
    ) -> np.ndarray:
        """Return whether [J] a motion of one tick and a stop from its end keep limits [J]."""
        positions, v, a = motion.at(self._checked_times)
        stop = self.stop(positions[-1], v[-1], a[-1])
        lowest = np.minimum(stop.lower, positions.min(axis=0))
        highest = np.maximum(stop.upper, positions.max(axis=0))
        return np.asarray(
            (lowest >= lower - ROUNDING) & (highest <= upper + ROUNDING)
            & (stop.fastest <= velocity + ROUNDING))
