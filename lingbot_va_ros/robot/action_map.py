"""Actions to joints and back: the map that a policy needs on an embodiment."""

from typing import Any, Protocol

import numpy as np

from lingbot_va_ros.specs.channels import (
    FIRST_JOINT_CHANNEL,
    GRIPPER_CHANNEL,
    misfit,
    POSE_CHANNELS,
    unknown_channels,
)
from lingbot_va_ros.specs.embodiment import Embodiment
from lingbot_va_ros.specs.policy_file import PolicyFile


class ActionMap(Protocol):
    """
    What every kind of action has: a way to joints and the same way back.

    `begin(joints [J])` is told where the arm is when an episode begins. `to_joints(actions
    [n, C_used], start [J])` gives joint positions [n, J] and may raise a PoseError;
    `from_joints(joints [n, J], before [J])` gives actions. `start` and `before` are the joint
    positions right before the first row. `state()` is what the map keeps of the episode, and
    `restore` puts it back.
    """

    def begin(self, joints: np.ndarray) -> None: ...

    def to_joints(self, actions: np.ndarray, start: np.ndarray) -> np.ndarray: ...

    def from_joints(self, joints: np.ndarray, before: np.ndarray) -> np.ndarray: ...

    def state(self) -> Any: ...

    def restore(self, state: Any) -> None: ...


def make_action_map(embodiment: Embodiment, policy: PolicyFile) -> ActionMap:
    """
    Return the map for the policy's `action_frame`.

    :raises ValueError: the policy's channels and the embodiment do not go together.
    """
    if policy.action_frame == 'joints':
        return JointActionMap(embodiment, policy.used_channels)
    # pinocchio takes a third of a second to import, and joints need none of it.
    from lingbot_va_ros.robot.end_effector_map import EndEffectorMap
    return EndEffectorMap(embodiment, policy)


class JointActionMap:
    """
    Map between the used channels of a checkpoint and the joints of an embodiment.

    Channels 14–20 are the joints of the left arm in rad, 21–27 of the right arm, 28 and 29 the
    left and right gripper (0 closed … 1 open).

    :param used_channels: the channel that each column of an action holds, in column order.
    :raises ValueError: names every channel without a joint and every joint without a channel.
    """

    def __init__(self, embodiment: Embodiment, used_channels):
        self.joints = embodiment.joints
        self.used_channels = tuple(int(channel) for channel in used_channels)
        joint_of = {}
        scale = {}
        for arm in embodiment.arms:
            first = FIRST_JOINT_CHANNEL[arm.side]
            for offset, joint in enumerate(arm.joints):
                joint_of[first + offset] = joint
                scale[joint] = (0.0, 1.0)
            if arm.gripper is not None:
                joint_of[GRIPPER_CHANNEL[arm.side]] = arm.gripper.joint
                scale[arm.gripper.joint] = (
                    arm.gripper.closed, arm.gripper.open - arm.gripper.closed)
        self._check(embodiment, joint_of)

        column_of = {joint_of[channel]: i for i, channel in enumerate(self.used_channels)}
        self._columns = np.array([column_of[joint] for joint in self.joints])
        self._offset = np.array([scale[joint][0] for joint in self.joints])
        self._gain = np.array([scale[joint][1] for joint in self.joints])

    def _check(self, embodiment: Embodiment, joint_of: dict) -> None:
        used = self.used_channels
        unknown = unknown_channels(used)
        if unknown:
            raise ValueError(unknown)
        poses = [channel for channel in used if channel in POSE_CHANNELS]
        if poses:
            raise ValueError(
                f'channels {poses} are end-effector poses, and the action_frame is joints; '
                'expected joint channels (14 … 27) and grippers (28, 29), or action_frame eef_…')
        mistakes = misfit(used, joint_of)
        if mistakes:
            raise ValueError(
                f"embodiment '{embodiment.name}' does not fit the checkpoint's channels: "
                + mistakes)

    def begin(self, joints: np.ndarray) -> None:
        """Joints are absolute: nothing depends on where an episode begins."""

    def state(self) -> None:
        """Nothing is kept."""

    def restore(self, state: None) -> None:
        """Nothing is kept."""

    def to_joints(
        self, actions: np.ndarray, start: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return joint positions [n, J] (rad, m) of actions [n, C_used] (not normalised)."""
        actions = np.asarray(actions, dtype=np.float64)
        return actions[..., self._columns] * self._gain + self._offset

    def from_joints(
        self, positions: np.ndarray, before: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return actions [n, C_used] of joint positions [n, J]: the inverse of `to_joints`."""
        positions = np.asarray(positions, dtype=np.float64)
        actions = np.empty_like(positions)
        actions[..., self._columns] = (positions - self._offset) / self._gain
        return actions
