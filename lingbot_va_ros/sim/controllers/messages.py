"""Trajectories that a simulated controller receives."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


class TrajectoryRejected(ValueError):
    """The controller rejects a trajectory; the message is one line with the reason."""


@dataclass(frozen=True)
class TrajectoryPoint:
    """
    One point of a trajectory; arrays are [J] in the order of the trajectory's joint names.

    An empty array means: not given. Radians (metres for prismatic joints) and seconds, the time
    in nanoseconds.
    """

    time_from_start_ns: int
    positions: Sequence[float] | np.ndarray
    velocities: Sequence[float] | np.ndarray = ()
    accelerations: Sequence[float] | np.ndarray = ()
    effort: Sequence[float] | np.ndarray = ()


@dataclass(frozen=True)
class Trajectory:
    """A trajectory_msgs/JointTrajectory; `stamp_ns` 0 means that it starts at the next update."""

    stamp_ns: int
    joint_names: tuple[str, ...]
    points: tuple[TrajectoryPoint, ...]
