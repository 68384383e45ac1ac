"""Maps end-effector actions (absolute poses, relative poses, deltas) to joints and back."""

from dataclasses import dataclass

import numpy as np
import pinocchio as pin

from lingbot_va_ros.robot.kinematics import ArmKinematics
from lingbot_va_ros.robot.poses import pose_of, PoseError, quaternion_of, rotation_of
from lingbot_va_ros.specs.channels import (
    FIRST_POSE_CHANNEL,
    GRIPPER_CHANNEL,
    misfit,
    unknown_channels,
)
from lingbot_va_ros.specs.embodiment import Embodiment
from lingbot_va_ros.specs.policy_file import PolicyFile

POSE_NAMES = ('x', 'y', 'z', 'quaternion x', 'quaternion y', 'quaternion z', 'quaternion w')
DELTA_NAMES = ('x', 'y', 'z', 'rotation x', 'rotation y', 'rotation z')
IDENTITY = np.array([0.0, 0.0, 0.0, 1.0])
# First pose [4, 4] of each arm (None before `begin`), and newest quaternion [4] of each arm.
EpisodeState = tuple[list[np.ndarray] | None, tuple[np.ndarray, ...]]


@dataclass(frozen=True)
class ArmColumns:
    """The columns of one arm in an action and in a row of the embodiment's joints."""

    kinematics: ArmKinematics
    pose: np.ndarray
    joints: np.ndarray
    gripper: int | None  # column of an action
    gripper_joint: int | None
    closed: float
    stroke: float  # from closed to open, m or rad
    reference: np.ndarray  # quaternion [4] that fixes the sign of an episode's first quaternion


class EndEffectorMap:
    """
    Map between end-effector actions and the joints of an embodiment.

    Poses are those of each arm's tool frame in its base frame, in m, with quaternions x, y, z, w;
    docs/reference/action_frames.md defines the frames. One map serves one episode at a time and
    is used by one thread.

    :raises ValueError: channels are missing or unused, or the embodiment lacks a frame; the
        message names all of them.
    """

    def __init__(self, embodiment: Embodiment, policy: PolicyFile):
        self.joints = embodiment.joints
        self.used_channels = tuple(policy.used_channels)
        self._frame = policy.action_frame
        self._scale = np.repeat(
            [policy.delta_scale.translation, policy.delta_scale.rotation], 3)
        deltas = self._frame == 'eef_delta'
        names = DELTA_NAMES if deltas else POSE_NAMES
        wanted: dict[int, str] = {}
        gripper_channel: dict[str, int] = {}
        for arm in embodiment.arms:
            first = FIRST_POSE_CHANNEL[arm.side]
            wanted.update({first + i: f'{arm.side} {name}' for i, name in enumerate(names)})
            if arm.gripper is not None:
                gripper_channel[arm.side] = (
                    first + len(names) if deltas else GRIPPER_CHANNEL[arm.side])
                wanted[gripper_channel[arm.side]] = arm.gripper.joint
        mistakes = unknown_channels(self.used_channels) or misfit(self.used_channels, wanted)
        if mistakes:
            raise ValueError(
                f"embodiment '{embodiment.name}' does not fit the checkpoint's channels for "
                f'{self._frame}: {mistakes}')

        def column(channel: int) -> int:
            return self.used_channels.index(channel)

        self._arms = []
        for arm in embodiment.arms:
            channels = range(first := FIRST_POSE_CHANNEL[arm.side], first + len(names))
            grip = arm.gripper
            self._arms.append(ArmColumns(
                kinematics=ArmKinematics(embodiment, arm),
                pose=np.array([column(channel) for channel in channels]),
                joints=np.array([embodiment.joints.index(joint) for joint in arm.joints]),
                gripper=None if grip is None else column(gripper_channel[arm.side]),
                gripper_joint=None if grip is None else embodiment.joints.index(grip.joint),
                closed=0.0 if grip is None else grip.closed,
                stroke=0.0 if grip is None else grip.open - grip.closed,
                reference=IDENTITY if deltas else _mean_quaternion(
                    policy.q01[list(channels)[3:]], policy.q99[list(channels)[3:]])))
        self._pose_error: tuple[float, float] | None = None
        self._initial: list[np.ndarray] | None = None
        self._newest = [arm.reference for arm in self._arms]

    @property
    def pose_error(self) -> tuple[float, float] | None:
        """The largest error in m and rad, over all arms, left of the newest chunk's poses."""
        return self._pose_error

    def begin(self, joints: np.ndarray) -> None:
        """Begin an episode with the arms at `joints` [J], the reference of relative poses."""
        joints = np.asarray(joints, dtype=np.float64)
        self._initial = [arm.kinematics.forward(joints[arm.joints]) for arm in self._arms]
        self._newest = [arm.reference for arm in self._arms]

    def state(self) -> EpisodeState:
        """Return the state of the episode: first poses and newest quaternions of the arms."""
        return self._initial, tuple(self._newest)

    def restore(self, state: EpisodeState) -> None:
        """Restore a state that `state()` returned."""
        self._initial, newest = state
        self._newest = list(newest)

    def to_joints(self, actions: np.ndarray, start: np.ndarray) -> np.ndarray:
        """
        Return joint positions [n, J] (rad, m) of a chunk of actions [n, C_used].

        :param start: joint positions [J] before the chunk: the seed of the inverse kinematics, and
            the pose to which the first delta is added.
        :raises PoseError: an arm cannot take a pose; the message names arm, action and pose.
        """
        actions = np.asarray(actions, dtype=np.float64)
        start = np.asarray(start, dtype=np.float64)
        joints = np.empty((len(actions), len(self.joints)))
        errors = []
        for index, arm in enumerate(self._arms):
            poses = self._poses(index, actions[:, arm.pose], start[arm.joints])
            taken = arm.kinematics.solve(poses, start[arm.joints])
            joints[:, arm.joints] = taken.joints
            errors.append((taken.translation_left, taken.rotation_left))
            if arm.gripper is not None:
                opening = self._opening(actions[:, arm.gripper])
                joints[:, arm.gripper_joint] = arm.closed + opening * arm.stroke
        self._pose_error = max(each[0] for each in errors), max(each[1] for each in errors)
        return joints

    def from_joints(self, joints: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
        """
        Return actions [n, C_used] of joint positions [n, J]: the inverse of `to_joints`.

        :param before: joint positions [J] before the first row; only deltas need them.
        :raises ValueError: deltas without `before`.
        """
        joints = np.asarray(joints, dtype=np.float64)
        actions = np.empty((len(joints), len(self.used_channels)))
        for index, arm in enumerate(self._arms):
            poses = [arm.kinematics.forward(row) for row in joints[:, arm.joints]]
            if self._frame == 'eef_delta':
                if before is None:
                    raise ValueError('deltas need the joint positions before the first action')
                first = arm.kinematics.forward(np.asarray(before, np.float64)[arm.joints])
                rows = self._deltas([first, *poses])
            else:
                rows = self._written(index, poses)
            actions[:, arm.pose] = rows
            if arm.gripper is not None:
                opening = (joints[:, arm.gripper_joint] - arm.closed) / arm.stroke
                actions[:, arm.gripper] = self._gripper_action(opening)
        return actions

    # Conversions between poses [4, 4] of one arm and rows of its channels

    def _poses(self, index: int, rows: np.ndarray, start: np.ndarray) -> list[np.ndarray]:
        kinematics = self._arms[index].kinematics
        if self._frame == 'eef_delta':
            return self._after_deltas(rows, kinematics.forward(start))
        poses = []
        for number, row in enumerate(rows):
            try:
                pose = pose_of(row[:3], rotation_of(row[3:]))
            except PoseError as error:
                raise PoseError(
                    f'{kinematics.side} arm, action {number + 1} of {len(rows)}: {error}'
                ) from None
            poses.append(pose if self._frame == 'eef_absolute' else _from_initial(
                self._first_pose(index), pose))
        return poses

    def _written(self, index: int, poses: list[np.ndarray]) -> np.ndarray:
        rows = np.empty((len(poses), 7))
        near = self._newest[index]
        for number, pose in enumerate(poses):
            if self._frame == 'eef_relative':
                pose = _to_initial(self._first_pose(index), pose)
            near = quaternion_of(pose[:3, :3], near)
            rows[number] = [*pose[:3, 3], *near]
        self._newest[index] = near
        return rows

    def _first_pose(self, index: int) -> np.ndarray:
        if self._initial is None:
            raise RuntimeError('relative poses need begin() first')
        return self._initial[index]

    def _after_deltas(self, rows: np.ndarray, pose: np.ndarray) -> list[np.ndarray]:
        """Return the poses after each delta; deltas are clipped to [-1, 1], as robosuite does."""
        poses = []
        for delta in np.clip(rows, -1.0, 1.0) * self._scale:
            pose = pose_of(pose[:3, 3] + delta[:3], pin.exp3(delta[3:]) @ pose[:3, :3])
            poses.append(pose)
        return poses

    def _deltas(self, poses: list[np.ndarray]) -> np.ndarray:
        steps = np.stack([
            np.concatenate([
                after[:3, 3] - before[:3, 3], pin.log3(after[:3, :3] @ before[:3, :3].T)])
            for before, after in zip(poses, poses[1:])])
        scaled: np.ndarray = steps / self._scale
        return scaled

    # Grippers: 0 closed … 1 open; in robosuite -1 open … 1 closed

    def _opening(self, action: np.ndarray) -> np.ndarray:
        return (1.0 - action) / 2.0 if self._frame == 'eef_delta' else action

    def _gripper_action(self, opening: np.ndarray) -> np.ndarray:
        return 1.0 - 2.0 * opening if self._frame == 'eef_delta' else opening


def _from_initial(initial: np.ndarray, relative: np.ndarray) -> np.ndarray:
    """Return the pose for a pose relative to the initial one, as RoboTwin's client computes it."""
    return pose_of(
        initial[:3, 3] + relative[:3, 3], initial[:3, :3] @ relative[:3, :3])


def _to_initial(initial: np.ndarray, pose: np.ndarray) -> np.ndarray:
    return pose_of(pose[:3, 3] - initial[:3, 3], initial[:3, :3].T @ pose[:3, :3])


def _mean_quaternion(q01: np.ndarray, q99: np.ndarray) -> np.ndarray:
    """Return the mean [4] of the quantiles of the training quaternions, or identity if near 0."""
    middle = (np.asarray(q01, np.float64) + np.asarray(q99, np.float64)) / 2
    return middle if np.linalg.norm(middle) > 0.3 else IDENTITY
