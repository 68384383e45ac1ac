"""The approach: leads the arm onto the goal of a command source before it follows it."""

import numpy as np

from lingbot_va_ros.mux.command_source import Goal
from lingbot_va_ros.mux.limit_filter import approach_speed
from lingbot_va_ros.mux.plan_playback import largest_share
from lingbot_va_ros.mux.ramp import GOAL_SHARE, Ramp
from lingbot_va_ros.specs.embodiment import JointLimits

# An arm this near to its goal (rad, m; share of the velocity limit) has caught up with it.
TRACKING_DISTANCE, TRACKING_SPEED = 0.005, 0.1
# Shares of the ramp's acceleration with which a target brakes before its goal, and changes its
# velocity at all, so that the ramp can follow it.
BRAKING_SHARE, TARGET_SHARE = 0.7, 0.95


class Approach:
    """
    A ramp from where the arm is onto a goal that may itself be moving.

    A source that is followed exactly is followed without the ramp once the ramp has caught it. Any
    other stays behind the ramp, at full speed once the arm has caught up.

    :param period: seconds from tick to tick.
    :param sets_pace: [J] bool; the other joints, such as grippers, slow down none but themselves.
    """

    def __init__(
        self, limits: JointLimits, period: float, sets_pace: np.ndarray | None = None) -> None:
        self._limits = limits
        self._ramp = Ramp(limits, period)
        self._is_ramping = False
        self._period = period
        self._sets_pace = (
            np.ones(len(limits.lower), bool) if sets_pace is None else sets_pace)
        # What the ramp leads to where the source is not followed exactly, as its goal is.
        self._target: tuple[np.ndarray, np.ndarray] | None = None

    def limit_speed(self, share: float) -> None:
        """Keep to a further share of the velocity limits, 0 … 1."""
        self._ramp.speed = share

    def begin(self, acceleration: np.ndarray, share: float) -> None:
        """
        Begin an approach.

        :param acceleration: of the present command [J].
        :param share: of the velocity and acceleration limits, 0 … 1.
        """
        self._ramp.begin(acceleration)
        self._ramp.share = share
        self._is_ramping = True
        self._target = None

    def step(
        self, q: np.ndarray, v: np.ndarray, goal: Goal, is_followed_exactly: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Return positions and velocities [J] one tick later.

        :param q, v: the present state [J].
        :param goal: what the source asks for one tick later.
        """
        q_goal, v_goal, a_goal = goal
        if not self._is_ramping:
            return q_goal, v_goal
        if is_followed_exactly:
            q_next, v_next = self._ramp.step(q, v, q_goal, v_goal, a_goal)
            self._is_ramping = not self._ramp.caught
            return q_next, v_next
        self._target = self._toward((q, v) if self._target is None else self._target, goal)
        q_next, v_next = self._ramp.step(q, v, *self._target, a_goal)
        if np.all(np.abs(q_next - q_goal) <= TRACKING_DISTANCE) and np.all(
                np.abs(v_next - v_goal) <= TRACKING_SPEED * self._limits.velocity):
            self._ramp.share = 1.0
        return q_next, v_next

    def _toward(
        self, target: tuple[np.ndarray, np.ndarray], goal: Goal,
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Return the target's next positions and velocities [J] on its way to the goal.

        The target goes straight to a goal that is too far or too fast, so that the joints keep to
        one direction: together no faster than the ramp may be, and so that all can follow.
        """
        q, v_before = target
        q_goal, v_goal, _ = goal
        period, ramp, counts = self._period, self._ramp, self._sets_pace
        most = GOAL_SHARE * ramp.share * ramp.speed * self._limits.velocity
        acceleration = ramp.share * self._limits.acceleration
        v_frame = v_goal / max(1.0, largest_share(v_goal, most, counts))
        miss = q_goal - q - v_frame * period
        way = largest_share(miss, BRAKING_SHARE * acceleration, counts)
        v = v_frame
        if way > 0.0:
            # In the unit of `way` every joint brakes with at most 1 a second squared.
            closing = min(float(approach_speed(np.array(way), 1.0, period)), way / period)
            v = v_frame + miss * (closing / way)
        v = v / max(1.0, largest_share(v, most, counts))
        change = v - v_before
        change /= max(1.0, largest_share(change, TARGET_SHARE * acceleration * period, counts))
        v = np.where(counts, v_before + change, v_goal)
        return np.where(counts, q + v * period, q_goal), v
