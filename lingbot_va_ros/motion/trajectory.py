"""Joint trajectories as plain data."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TrajectoryPoint:
    """One point of a message as it came: seconds, rad or m; nothing is checked yet."""

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
    """Return velocities [n, J] for a message without them: central, and 0 at both ends."""
    velocities = np.zeros_like(positions)
    if len(times_s) > 2:
        velocities[1:-1] = (
            (positions[2:] - positions[:-2]) / (times_s[2:] - times_s[:-2])[:, None])
    return velocities
