"""The approach: leads the arm onto the goal of a command source before it follows it."""

import numpy as np

from lingbot_va_ros.mux.command_source import Goal
from lingbot_va_ros.mux.ramp import Ramp
from lingbot_va_ros.specs.embodiment import JointLimits

# An arm this near to its goal (rad, m; share of the velocity limit) has caught up with it.
TRACKING_DISTANCE, TRACKING_SPEED = 0.005, 0.1


class Approach:
    """
    A ramp from where the arm is onto a goal that may itself be moving.

    A source that is followed exactly is followed without the ramp once the ramp has caught it. Any
    other stays behind the ramp, at full speed once the arm has caught up.

    :param period: seconds from tick to tick.
    """

    def __init__(self, limits: JointLimits, period: float) -> None:
        self._limits = limits
        self._ramp = Ramp(limits, period)
        self._is_ramping = False

    def begin(self, acceleration: np.ndarray, share: float) -> None:
        """
        Begin an approach.

        :param acceleration: of the present command [J].
        :param share: of the velocity and acceleration limits, 0 … 1.
        """
        self._ramp.begin(acceleration)
        self._ramp.share = share
        self._is_ramping = True

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
        q_next, v_next = self._ramp.step(q, v, q_goal, v_goal, a_goal)
        if is_followed_exactly:
            self._is_ramping = not self._ramp.caught
        elif np.all(np.abs(q_next - q_goal) <= TRACKING_DISTANCE) and np.all(
                np.abs(v_next - v_goal) <= TRACKING_SPEED * self._limits.velocity):
            self._ramp.share = 1.0
        return q_next, v_next
