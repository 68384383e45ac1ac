"""The approach: leads the arm gently onto the goal of a command source before it follows it."""

import numpy as np

from lingbot_va_ros.mux.goal import Goal
from lingbot_va_ros.mux.plan_playback import largest_share, stopping_speed
from lingbot_va_ros.specs.embodiment import JointLimits

# An arm this near to its goal (rad, m; share of the velocity limit) has caught up with it.
TRACKING_DISTANCE, TRACKING_SPEED = 0.005, 0.1
# Shares of the acceleration limits with which a target brakes before its goal, and changes its
# velocity at all, so that the arm can follow it; and of the velocity limits that it has.
BRAKING_SHARE, TARGET_SHARE, TARGET_SPEED = 0.7, 0.95, 0.95


class Approach:
    """
    Chooses what the limit filter leads the arm to, and at which share of the limits.

    Once the arm has caught up these are the full limits. A source that is not followed exactly is
    followed behind a target that moves inside the limits.

    :param period: seconds from tick to tick.
    :param sets_pace: [J] bool; the other joints, such as grippers, slow down none but themselves.
    """

    def __init__(
        self, limits: JointLimits, period: float, sets_pace: np.ndarray | None = None) -> None:
        self._limits = limits
        self._period = period
        self._share = 1.0
        self._speed = 1.0
        self._sets_pace = (
            np.ones(len(limits.lower), bool) if sets_pace is None else sets_pace)
        self._last_goal: Goal | None = None
        # What is led to where the source is not followed exactly, as its goal is: q, v [J].
        self._target: tuple[np.ndarray, np.ndarray] | None = None

    def limit_speed(self, share: float) -> None:
        """Keep to a further share of the velocity limits, 0 … 1."""
        self._speed = share

    def begin(self, share: float) -> None:
        """Begin an approach at a share of the velocity and acceleration limits, 0 … 1."""
        self._share = share
        self._last_goal = self._target = None

    def step(
        self, q: np.ndarray, v: np.ndarray, goal: Goal, is_followed_exactly: bool,
    ) -> tuple[Goal, float]:
        """
        Return the goal that the arm is led to, and the share of its limits, 0 … 1.

        :param q, v: the present state [J].
        :param goal: what the source asks for one tick later.
        """
        last, self._last_goal = self._last_goal, goal
        if last is not None and np.all(np.abs(q - last.q) <= TRACKING_DISTANCE) and np.all(
                np.abs(v - last.v) <= TRACKING_SPEED * self._limits.velocity):
            self._share = 1.0
        if not is_followed_exactly:
            self._target = self._toward((q, v) if self._target is None else self._target, goal)
            goal = goal._replace(q=self._target[0], v=self._target[1])
        return goal, self._share

    def _toward(
        self, target: tuple[np.ndarray, np.ndarray], goal: Goal,
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Return the target's next positions and velocities [J] on its way to the goal.

        The target goes straight to a goal that is too far or too fast, so that the joints keep to
        one direction: together no faster than the limits allow, and so that all can follow.
        """
        q, v_before = target
        period, counts = self._period, self._sets_pace
        most = TARGET_SPEED * self._share * self._speed * self._limits.velocity
        acceleration = self._share * self._limits.acceleration
        v_frame = goal.v / max(1.0, largest_share(goal.v, most, counts))
        miss = goal.q - q - v_frame * period
        way = largest_share(miss, BRAKING_SHARE * acceleration, counts)
        v = v_frame
        if way > 0.0:
            # In the unit of `way` every joint brakes with at most 1 a second squared.
            v = v_frame + miss * (min(stopping_speed(way, period), way / period) / way)
        v = v / max(1.0, largest_share(v, most, counts))
        change = v - v_before
        change /= max(1.0, largest_share(change, TARGET_SHARE * acceleration * period, counts))
        v = np.where(counts, v_before + change, goal.v)
        return np.where(counts, q + v * period, goal.q), v
