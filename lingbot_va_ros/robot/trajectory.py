"""Joint trajectories as plain data, and a plan that can be sampled at any time."""

from dataclasses import dataclass
from typing import Optional

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


@dataclass(frozen=True)
class Plan:
    """
    Knots of a motion: times [n] (int64, absolute ns, increasing), positions, velocities [n, J].

    Between knots it is a cubic Hermite spline, before the first and after the last it rests.
    """

    times_ns: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray

    @property
    def end_ns(self) -> int:
        """The time of the last knot."""
        return int(self.times_ns[-1])

    def sample(self, time_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """Return positions and velocities [J] at a time."""
        after = int(np.searchsorted(self.times_ns, time_ns, side='right'))
        if after == 0:
            return self.positions[0], np.zeros_like(self.positions[0])
        if after == len(self.times_ns):
            at_end = time_ns == self.times_ns[-1]
            rest = np.zeros_like(self.positions[-1])
            return self.positions[-1], self.velocities[-1] if at_end else rest
        span = float(self.times_ns[after] - self.times_ns[after - 1]) * 1e-9
        u = float(time_ns - self.times_ns[after - 1]) * 1e-9 / span
        q0, q1 = self.positions[after - 1], self.positions[after]
        m0, m1 = self.velocities[after - 1] * span, self.velocities[after] * span
        way = q1 - q0
        position = q0 + u * (m0 + u * (3 * way - 2 * m0 - m1 + u * (m0 + m1 - 2 * way)))
        velocity = (m0 + u * (6 * way - 4 * m0 - 2 * m1 + 3 * u * (m0 + m1 - 2 * way))) / span
        return position, velocity

    def led_to(self, time_ns: int, q: np.ndarray, v: np.ndarray) -> 'Plan':
        """
        Return the plan with a lead from (q, v) at `time_ns` to its first knot.

        A plan that has begun by then needs no lead and is returned as it is.
        """
        if time_ns >= self.times_ns[0]:
            return self
        return Plan(
            np.concatenate([[time_ns], self.times_ns]).astype(np.int64),
            np.concatenate([q[None], self.positions]),
            np.concatenate([v[None], self.velocities]))


def finite_differences(times_s: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return velocities [n, J] for a message without them: central, and 0 at both ends."""
    velocities = np.zeros_like(positions)
    if len(times_s) > 2:
        velocities[1:-1] = (
            (positions[2:] - positions[:-2]) / (times_s[2:] - times_s[:-2])[:, None])
    return velocities


def resting_at(time_ns: int, q: np.ndarray, v: Optional[np.ndarray] = None) -> Plan:
    """Return a plan with one knot."""
    q = np.array(q, dtype=np.float64)
    v = np.zeros_like(q) if v is None else np.array(v, dtype=np.float64)
    return Plan(np.array([time_ns], dtype=np.int64), q[None], v[None])
