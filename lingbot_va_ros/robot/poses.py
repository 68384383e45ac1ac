"""Poses as the checkpoints write them (xyz, quaternion x, y, z, w) and as matrices, and back."""

import numpy as np
from transforms3d import quaternions

# A network's quaternion is normalised; one that is shorter than this says nothing.
SHORTEST_QUATERNION = 0.1


class PoseError(ValueError):
    """A pose that no arm, or not this one, can take; the message says which and why."""


def rotation_of(quaternion: np.ndarray) -> np.ndarray:
    """
    Return the rotation matrix [3, 3] of a quaternion [4] (x, y, z, w) of any length.

    :raises PoseError: it is not finite, or too short to have a direction.
    """
    x, y, z, w = np.asarray(quaternion, dtype=np.float64)
    length = np.sqrt(x * x + y * y + z * z + w * w)
    if not length >= SHORTEST_QUATERNION or not np.isfinite(length):
        raise PoseError(
            f'the quaternion ({x:.4f}, {y:.4f}, {z:.4f}, {w:.4f}) has the length {length:.4f}; '
            f'expected 1, at least {SHORTEST_QUATERNION}')
    # transforms3d has the scalar first; this and `quaternion_of` are the only places of it.
    return quaternions.quat2mat((w, x, y, z))


def quaternion_of(rotation: np.ndarray, near: np.ndarray) -> np.ndarray:
    """
    Return the unit quaternion [4] (x, y, z, w) of a rotation matrix [3, 3].

    :param near: of the two that mean the same, the one on the side of this quaternion is taken.
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
    """Return a pose [4, 4] in words: xyz in m, quaternion x, y, z, w."""
    quaternion = quaternion_of(pose[:3, :3], np.array([0.0, 0.0, 0.0, 1.0]))
    return (f'xyz ({_numbers(pose[:3, 3])}) m, quaternion xyzw ({_numbers(quaternion)})')


def _numbers(values) -> str:
    return ', '.join(f'{value + 0.0:.4f}' for value in values)
