"""Model channels to joints and back: which of the network's 30 channels moves which joint."""

import numpy as np

from lingbot_va_ros.robot.embodiment import Embodiment

# Channel layout of the public LingBot-VA checkpoints.
CHANNELS = 30
POSE_CHANNELS = range(0, 14)
FIRST_JOINT_CHANNEL = {'left': 14, 'right': 21}
GRIPPER_CHANNEL = {'left': 28, 'right': 29}


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
        unknown = sorted({channel for channel in used if not 0 <= channel < CHANNELS})
        if unknown:
            raise ValueError(f'channels {unknown} do not exist; there are 0 … {CHANNELS - 1}')
        poses = [channel for channel in used if channel in POSE_CHANNELS]
        if poses:
            raise ValueError(
                f'channels {poses} are end-effector poses; only joint channels (14 … 27) and '
                'grippers (28, 29) can drive this robot: inverse kinematics is not available')
        mistakes = []
        repeated = sorted({channel for channel in used if used.count(channel) > 1})
        if repeated:
            mistakes.append(f'channels used twice: {repeated}')
        without_joint = [channel for channel in used if channel not in joint_of]
        if without_joint:
            mistakes.append(f'channels without a joint: {without_joint}')
        without_channel = [
            f'{joint} (channel {channel})' for channel, joint in joint_of.items()
            if channel not in used]
        if without_channel:
            mistakes.append(f'joints without a channel: {", ".join(without_channel)}')
        if mistakes:
            raise ValueError(
                f"embodiment '{embodiment.name}' does not fit the checkpoint's channels: "
                + '; '.join(mistakes))

    def to_joints(self, actions: np.ndarray) -> np.ndarray:
        """Return joint positions [n, J] (rad, m) of actions [n, C_used] (not normalised)."""
        actions = np.asarray(actions, dtype=np.float64)
        return actions[..., self._columns] * self._gain + self._offset

    def from_joints(self, positions: np.ndarray) -> np.ndarray:
        """Return actions [n, C_used] of joint positions [n, J]: the inverse of `to_joints`."""
        positions = np.asarray(positions, dtype=np.float64)
        actions = np.empty_like(positions)
        actions[..., self._columns] = (positions - self._offset) / self._gain
        return actions
