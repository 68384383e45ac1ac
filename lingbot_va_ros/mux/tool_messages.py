"""Twists and poses of an operator's hand as plain data, and the frames that they are given in."""

from collections.abc import Mapping
from dataclasses import dataclass
import math

import numpy as np

from lingbot_va_ros.mux.validation import Rejected
from lingbot_va_ros.robot.poses import pose_of, PoseError, rotation_of


@dataclass(frozen=True)
class ToolTwist:
    """
    A velocity of the tool, unchecked.

    :param side: of the arm.
    :param stamp_ns: 0: it has none, and counts from its arrival.
    :param frame: along whose axes it is; empty: those of the arm's base frame.
    :param values: linear and angular velocity [6], m/s and rad/s before the scaling.
    :param frame_pose: pose [4, 4] of the frame in the arm's base frame, by tf; needed where the
        frame is neither the arm's base nor its tool frame.
    """

    side: str
    stamp_ns: int
    frame: str
    values: tuple[float, ...]
    frame_pose: np.ndarray | None = None


@dataclass(frozen=True)
class ToolPose:
    """
    A pose of a hand, unchecked; as `ToolTwist`.

    :param place: xyz in m.
    :param quaternion: x, y, z, w.
    """

    side: str
    stamp_ns: int
    frame: str
    place: tuple[float, ...]
    quaternion: tuple[float, ...]
    frame_pose: np.ndarray | None = None


@dataclass(frozen=True)
class ArmFrames:
    """
    The frames that an arm knows without tf: its base and tool frame, and links fixed to them.

    :param beside_base, beside_tool: poses [4, 4] in the base and the tool frame, by name.
    """

    base: str
    tool: str
    beside_base: Mapping[str, np.ndarray]
    beside_tool: Mapping[str, np.ndarray]

    def knows(self, frame: str) -> bool:
        """Return whether a frame is one of them; an empty name is the base frame."""
        return frame == '' or frame in self.beside_base or frame in self.beside_tool

    def refuse(self, frame: str, why: str = '') -> Rejected:
        """Return the rejection of a message in an unknown frame."""
        return Rejected(
            'frame', f"frame '{frame}' is neither the arm's base '{self.base}' nor its tool "
            f"'{self.tool}'" + (f': {why}' if why else ''))


def checked_twist(twist: ToolTwist, frames: ArmFrames) -> tuple[np.ndarray, bool]:
    """
    Return a twist [6], and whether it is along the axes of the tool frame, not of the base frame.

    :raises Rejected: kinds not_finite, frame.
    """
    values = np.array(twist.values, np.float64)
    if not np.all(np.isfinite(values)):
        raise Rejected('not_finite', 'the twist has a number that is not finite')
    in_tool = twist.frame in frames.beside_tool
    pose = frames.beside_tool.get(
        twist.frame, frames.beside_base.get(twist.frame or frames.base, twist.frame_pose))
    if pose is None:
        raise frames.refuse(twist.frame)
    rotation = pose[:3, :3]
    return np.concatenate((rotation @ values[:3], rotation @ values[3:])), in_tool


def checked_pose(pose: ToolPose, frames: ArmFrames) -> np.ndarray:
    """
    Return a pose [4, 4] in the arm's base frame.

    :raises Rejected: kinds not_finite, pose, frame.
    """
    if not all(math.isfinite(value) for value in (*pose.place, *pose.quaternion)):
        raise Rejected('not_finite', 'the pose has a number that is not finite')
    try:
        given = pose_of(np.array(pose.place), rotation_of(np.array(pose.quaternion)))
    except PoseError as error:
        raise Rejected('pose', str(error)) from None
    if pose.frame in frames.beside_tool:
        raise Rejected(
            'frame', f"a pose in '{pose.frame}' moves with the tool; give it in '{frames.base}' "
            'or a frame that stands still')
    frame = frames.beside_base.get(pose.frame or frames.base, pose.frame_pose)
    if frame is None:
        raise frames.refuse(pose.frame)
    return np.asarray(frame @ given)
