"""Joint trajectory messages as plain data."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TrajectoryPoint:
    """One point of a received message, unchecked: nanoseconds, rad or m, and seconds."""

    time_from_start_ns: int
    positions: tuple[float, ...]
    velocities: tuple[float, ...] = ()
    accelerations: tuple[float, ...] = ()


@dataclass(frozen=True)
class TrajectoryMessage:
    """A trajectory_msgs/JointTrajectory as plain data, unchecked."""

    stamp_ns: int
    joints: tuple[str, ...]
    points: tuple[TrajectoryPoint, ...]


def finite_differences(times_s: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """
    Return velocities [n, J] for a message that has none: central differences, 0 at both ends.

    :param times_s: [n], seconds, strictly increasing.
    :param positions: [n, J], rad or m.
    """
    velocities = np.zeros_like(positions)
    if len(times_s) > 2:
        velocities[1:-1] = (
            (positions[2:] - positions[:-2]) / (times_s[2:] - times_s[:-2])[:, None])
    return velocities
