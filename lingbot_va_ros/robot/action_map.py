"""Maps a policy's actions to the joints of an embodiment, and joints to actions."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from lingbot_va_ros.specs.action_names import compare_names
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
    The map between actions [n, C_used] of a checkpoint and joint positions [n, J] in rad or m.

    One map serves one episode at a time and is used by one thread.
    """

    @property
    def pose_error(self) -> tuple[float, float] | None:
        """The largest error in m and rad left of the newest chunk's poses; None without poses."""

    def begin(self, joints: np.ndarray) -> None:
        """Begin an episode with the robot at `joints` [J]."""

    def to_joints(self, actions: np.ndarray, start: np.ndarray) -> np.ndarray:
        """
        Return joint positions [n, J] of actions [n, C_used].

        :param start: joint positions [J] before the first action.
        :raises PoseError: an arm cannot take a pose.
        """

    def from_joints(self, joints: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
        """
        Return actions [n, C_used] of joint positions [n, J]: the inverse of `to_joints`.

        :param before: joint positions [J] before the first row; only deltas need them.
        :raises ValueError: `before` is needed and missing.
        """

    def state(self) -> Any:
        """Return the state of the episode, for `restore`."""

    def restore(self, state: Any) -> None:
        """Restore a state that `state()` returned."""


def make_action_map(embodiment: Embodiment, policy: PolicyFile) -> ActionMap:
    """
    Return the map for the policy's `action_frame`.

    :raises ValueError: the policy's channels do not fit the embodiment, or the names of its
        columns contradict the embodiment's joints.
    """
    mistake = compare_names(
        policy.action_names, policy.used_channels, embodiment, policy.action_frame).mistake
    if mistake:
        raise ValueError(mistake)
    if policy.action_frame == 'joints':
        return JointActionMap(embodiment, policy.used_channels)
    # The import of pinocchio takes 0.3 s, and joint actions do not need it.
    from lingbot_va_ros.robot.end_effector_map import EndEffectorMap
    return EndEffectorMap(embodiment, policy)


class JointActionMap:
    """
    Map between the used channels of a checkpoint and the joints of an embodiment.

    Channels 14–20 are the joints of the left arm in rad, 21–27 of the right arm, 28 and 29 the
    left and right gripper (0 closed … 1 open).

    :param used_channels: the channel that each column of an action holds, in column order.
    :raises ValueError: a channel has no joint or a joint no channel; the message names all.
    """

    pose_error = None

    def __init__(self, embodiment: Embodiment, used_channels: Sequence[int]):
        self.joints = embodiment.joints
        self.used_channels = tuple(int(channel) for channel in used_channels)
        joint_of: dict[int, str] = {}
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

    def _check(self, embodiment: Embodiment, joint_of: dict[int, str]) -> None:
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
        """Do nothing: joint actions are absolute."""

    def state(self) -> None:
        """Return None: there is no state."""

    def restore(self, state: None) -> None:
        """Do nothing: there is no state."""

    def to_joints(self, actions: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Return joint positions [n, J] (rad, m) of actions [n, C_used]; `start` has no effect."""
        actions = np.asarray(actions, dtype=np.float64)
        joints: np.ndarray = actions[..., self._columns] * self._gain + self._offset
        return joints

    def from_joints(self, joints: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
        """Return actions [n, C_used] of joint positions [n, J]; `before` has no effect."""
        joints = np.asarray(joints, dtype=np.float64)
        actions = np.empty_like(joints)
        actions[..., self._columns] = (joints - self._offset) / self._gain
        return actions
