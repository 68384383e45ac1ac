"""Differential inverse kinematics of one arm: joint velocities for a velocity of its tool."""

import numpy as np
import pinocchio as pin

from lingbot_va_ros.robot.kinematics import ArmKinematics, Solution, without_endless_joints
from lingbot_va_ros.specs.embodiment import Arm, Embodiment

# Below this singular value of the Jacobian the inverse is damped, up to the damping at 0.
DAMPED_BELOW = 0.05
MOST_DAMPING = 0.05
# Where the damping leaves less than the first share of the joints' speed, an arm that comes nearer
# to the singularity is slowed down further, and stands still at the second share. An arm that goes
# away from it does not.
SLOWED_BELOW, STOPPED_BELOW = 0.6, 0.3
# Seconds ahead for which a motion is asked whether it comes nearer to a singularity.
LOOK_AHEAD = 0.02


class ToolKinematics(ArmKinematics):
    """
    The kinematics of an arm that is led by its tool.

    Links that no joint lies between and the base or the tool are frames, too: `beside_base` and
    `beside_tool` have their poses [4, 4] in the base and in the tool frame, by name, with these
    two themselves. For one thread at a time.

    :raises ValueError: see ArmKinematics.
    """

    def __init__(self, embodiment: Embodiment, arm: Arm) -> None:
        super().__init__(embodiment, arm)
        self.base_frame = str(arm.base_frame or embodiment.base_frame)
        self.tool_frame = str(arm.tool_frame)
        self.beside_base, self.beside_tool = (
            _links_beside(embodiment, frame) for frame in (self.base_frame, self.tool_frame))
        task = arm.pose_weights
        self._weights = np.ones(6) if task is None else np.array(task.weights)

    def velocities(
        self, joints: np.ndarray, twist: np.ndarray, in_tool: bool = False,
        rest: np.ndarray | None = None,
    ) -> tuple[np.ndarray, float]:
        """
        Return joint velocities [n] for a twist, and the share of its speed that they give.

        The tool keeps its direction. Near a singularity it is as slow as the damped inverse makes
        the joints there (Nakamura and Hanafusa 1986, "Inverse kinematic solutions with singularity
        robustness"). An arm that comes nearer to one stops before it.

        :param twist: linear velocity of the tool frame's origin and angular velocity [6], m/s and
            rad/s, along the axes of the base frame.
        :param in_tool: the axes are those of the tool frame.
        :param rest: joint positions [n] at which the arm would come to rest if it braked now.
        """
        exact, share, least = self._inverse(joints, twist, in_tool)
        velocities = share * exact
        ends = [] if rest is None else [(joints + rest) / 2.0, rest]
        slowest = min(
            [share, *(self._inverse(each, twist, in_tool)[1] for each in ends)])
        if slowest < SLOWED_BELOW:
            ahead = joints + LOOK_AHEAD * velocities
            if self._inverse(ahead, twist, in_tool)[2] <= least:
                slowed = max(0.0, (slowest - STOPPED_BELOW) / (SLOWED_BELOW - STOPPED_BELOW))
                return velocities * slowed, share * slowed
        return velocities, share

    def _inverse(
        self, joints: np.ndarray, twist: np.ndarray, in_tool: bool,
    ) -> tuple[np.ndarray, float, float]:
        """Return exact velocities [n], the share of the damped ones, and the singular value."""
        wanted, jacobian = self._task(joints, twist, in_tool)
        left, values, right = np.linalg.svd(jacobian, full_matrices=False)
        parts = left.T @ wanted
        exact = parts / np.maximum(values, 1e-9)
        least = float(values[-1])
        speed = float(np.linalg.norm(exact))
        share = 1.0
        if least < DAMPED_BELOW and speed > 0.0:
            damping = MOST_DAMPING ** 2 * (1.0 - (least / DAMPED_BELOW) ** 2)
            share = float(np.linalg.norm(parts * values / (values ** 2 + damping))) / speed
        return np.asarray(right.T @ exact), share, least

    def _task(
        self, joints: np.ndarray, twist: np.ndarray, in_tool: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a twist [6] and the Jacobian [6, n] along the axes of the tool, weighted."""
        q = np.empty_like(joints)
        q[self._place] = joints
        pin.computeJointJacobians(self._model, self._data, q)
        tool = pin.updateFramePlacement(self._model, self._data, self._tool)
        if not in_tool:
            rotation = (self._from_base * tool).rotation
            twist = np.concatenate((rotation.T @ twist[:3], rotation.T @ twist[3:]))
        jacobian = pin.getFrameJacobian(
            self._model, self._data, self._tool, pin.ReferenceFrame.LOCAL)[:, self._place]
        return self._weights * twist, self._weights[:, None] * jacobian

    def nearest(self, pose: np.ndarray, start: np.ndarray) -> Solution:
        """
        Return the joint positions [n] nearest to a pose [4, 4], by steps from `start` [n].

        The iteration stays on the branch of `start`; see ArmKinematics.
        """
        return self._seek(
            self._to_base * pin.SE3(pose), np.clip(start, self.lower, self.upper))


def _links_beside(embodiment: Embodiment, name: str) -> dict[str, np.ndarray]:
    """Return the poses [4, 4] in a link's frame of all links that are fixed to it, and its own."""
    model = pin.buildModelFromXML(without_endless_joints(embodiment.urdf))
    here = model.frames[model.getFrameId(name, pin.FrameType.BODY)]
    return {
        frame.name: (here.placement.inverse() * frame.placement).homogeneous
        for frame in model.frames
        if frame.type == pin.FrameType.BODY and frame.parentJoint == here.parentJoint}
