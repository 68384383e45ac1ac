"""The state from which a motion starts: the last command, or the measured state."""

import numpy as np

from lingbot_va_ros.robot.joint_state_filter import JointStateFilter
from lingbot_va_ros.specs.embodiment import JointLimits

# A joint slower than this share of its velocity limit counts as standing.
STANDING_SPEED = 0.05
# A gripper counts as where it was when it is this near, as a share of its range.
GRIPPER_TOLERANCE = 0.05
# A gripper has come to rest, at its command or at an object, so many seconds after the last
# command.
GRIPPER_REST_SECONDS = 0.5


class StartState:
    """
    Chooses the state [J] from which a motion starts while no command moves the arm.

    It also keeps where the grippers came to rest after the last command: one that holds an object
    stands far from its command, and must keep it.

    :param joints: the measured state.
    :param is_gripper: [J] bool.
    :param tolerance: rad or m; a joint this near to its last command starts there.
    :param period: seconds from tick to tick.
    """

    def __init__(
        self, joints: JointStateFilter, limits: JointLimits, is_gripper: np.ndarray,
        tolerance: float, period: float,
    ) -> None:
        self._joints = joints
        self._limits = limits
        self._is_gripper = is_gripper
        self._tolerance = tolerance
        self._period = period
        self._gripper_tolerance = GRIPPER_TOLERANCE * (limits.upper - limits.lower)
        # Where each joint was measured when it had come to rest; nan: it has not yet.
        self._rest = np.full(len(limits.lower), np.nan)

    def command_sent(self) -> None:
        """Take note that a command moves the arm: nothing rests any more."""
        self._rest[:] = np.nan

    def command_at_rest(self) -> None:
        """Take note that the arm rests since GRIPPER_REST_SECONDS, and is measured now."""
        self._rest = np.where(np.isnan(self._rest), self._joints.positions, self._rest)

    def choose(
        self, last: np.ndarray | None, now_s: float, is_away: bool = False,
        own_motion_age: float | None = None,
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """
        Return positions and velocities [J] to start from, or None while they are unknown.

        A joint that stands within the tolerance of the last command starts there, any other as it
        is measured, brought inside the limits where it is as near to them. A gripper also keeps
        its last command while it is where that command left it: it may hold an object.

        :param last: positions [J] at which the last command ends; None: there was none.
        :param is_away: the controller may have left that command: every arm joint starts as it is
            measured.
        :param own_motion_age: seconds since the measurement, where the last command still moved
            the arm then: its velocities are those of the command, which has ended since.
        """
        if not self._joints.is_fresh(now_s):
            return None if last is None else (last, np.zeros_like(last))
        q, v = self._measured_inside()
        if last is None:
            return q, v
        measured = self._joints.positions
        is_standing = np.abs(self._joints.velocities) <= STANDING_SPEED * self._limits.velocity
        is_near = np.abs(measured - last) <= np.where(
            self._is_gripper, self._gripper_tolerance, self._tolerance)
        was_moved = np.abs(measured - self._rest) > self._gripper_tolerance  # nan: False
        if own_motion_age is not None:
            gone = np.abs(self._joints.velocities) * own_motion_age
            is_near = np.abs(measured - last) <= self._tolerance + gone
            is_standing = is_standing | is_near
        if is_away:
            is_near = is_near & self._is_gripper
        keeps = is_standing & (is_near | self._is_gripper & ~was_moved)
        return np.where(keeps, last, q), np.where(keeps, 0.0, v)

    def _measured_inside(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the measured state, no faster than the limits and a stop inside them allow."""
        limits, measured = self._limits, self._joints.positions
        inside = np.clip(measured, limits.lower, limits.upper)
        q = np.where(np.abs(measured - inside) <= self._tolerance, inside, measured)
        # A stop in whole ticks takes up to a·T²/8 more than one in continuous time.
        slack = limits.acceleration * self._period ** 2 / 8
        up = np.sqrt(2 * limits.acceleration * np.maximum(limits.upper - q - slack, 0.0))
        down = np.sqrt(2 * limits.acceleration * np.maximum(q - limits.lower - slack, 0.0))
        return q, np.clip(
            self._joints.velocities, -np.minimum(down, limits.velocity),
            np.minimum(up, limits.velocity))
