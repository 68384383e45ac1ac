"""Twists and poses of an operator's hand as plain data, and the frames that they are given in."""

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


def checked_twist(twist: ToolTwist, base: str, tool: str) -> tuple[np.ndarray, bool]:
    """
    Return a twist [6], and whether it is along the axes of the tool frame, not of the base frame.

    :raises Rejected: kinds not_finite, frame.
    """
    values = np.array(twist.values, np.float64)
    if not np.all(np.isfinite(values)):
        raise Rejected('not_finite', 'the twist has a number that is not finite')
    if twist.frame in ('', base):
        return values, False
    if twist.frame == tool:
        return values, True
    if twist.frame_pose is None:
        raise unknown_frame(twist.frame, base, tool)
    rotation = twist.frame_pose[:3, :3]
    return np.concatenate((rotation @ values[:3], rotation @ values[3:])), False


def checked_pose(pose: ToolPose, base: str, tool: str) -> np.ndarray:
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
    if pose.frame in ('', base):
        return given
    if pose.frame == tool:
        raise Rejected(
            'frame', f"a pose in the tool's own frame '{tool}' moves with the tool; give it in "
            f"'{base}' or a frame that stands still")
    if pose.frame_pose is None:
        raise unknown_frame(pose.frame, base, tool)
    return np.asarray(pose.frame_pose @ given)


def unknown_frame(frame: str, base: str, tool: str, why: str = '') -> Rejected:
    """Return the rejection of a message in an unknown frame."""
    return Rejected(
        'frame', f"frame '{frame}' is neither the arm's base '{base}' nor its tool '{tool}'"
        + (f': {why}' if why else ''))
