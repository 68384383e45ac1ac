"""Converts poses between a checkpoint's numbers (xyz, quaternion x, y, z, w) and matrices."""

from collections.abc import Iterable

import numpy as np
from transforms3d import quaternions

# Networks are trained on unit quaternions; a shorter one than this has no reliable direction.
SHORTEST_QUATERNION = 0.1


class PoseError(ValueError):
    """A pose is invalid or cannot be reached; the message names the pose and the reason."""


def rotation_of(quaternion: np.ndarray) -> np.ndarray:
    """
    Return the rotation matrix [3, 3] of a quaternion [4] (x, y, z, w) of any length.

    :raises PoseError: the quaternion is not finite, or shorter than `SHORTEST_QUATERNION`.
    """
    x, y, z, w = np.asarray(quaternion, dtype=np.float64)
    length = np.sqrt(x * x + y * y + z * z + w * w)
    if not length >= SHORTEST_QUATERNION or not np.isfinite(length):
        raise PoseError(
            f'the quaternion ({x:.4f}, {y:.4f}, {z:.4f}, {w:.4f}) has the length {length:.4f}; '
            f'expected 1, at least {SHORTEST_QUATERNION}')
    # transforms3d puts the scalar first; only this function and `quaternion_of` do so.
    rotation: np.ndarray = quaternions.quat2mat((w, x, y, z))
    return rotation


def quaternion_of(rotation: np.ndarray, near: np.ndarray) -> np.ndarray:
    """
    Return the unit quaternion [4] (x, y, z, w) of a rotation matrix [3, 3].

    :param near: quaternion [4] that selects between q and -q, which are the same rotation: the
        result has a non-negative dot product with it.
    """
    w, x, y, z = quaternions.mat2quat(rotation)
    quaternion = np.array([x, y, z, w])
    return -quaternion if quaternion @ near < 0 else quaternion


def pose_of(xyz: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Return the homogeneous matrix [4, 4] of a translation [3] and a rotation [3, 3]."""
    pose = np.eye(4)
    pose[:3, 3] = xyz
    pose[:3, :3] = rotation
    return pose


def described(pose: np.ndarray) -> str:
    """Return a pose [4, 4] as text: xyz in m, quaternion x, y, z, w."""
    quaternion = quaternion_of(pose[:3, :3], np.array([0.0, 0.0, 0.0, 1.0]))
    return (f'xyz ({_numbers(pose[:3, 3])}) m, quaternion xyzw ({_numbers(quaternion)})')


def _numbers(values: Iterable[float]) -> str:
    return ', '.join(f'{value + 0.0:.4f}' for value in values)
