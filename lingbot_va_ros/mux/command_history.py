"""The commands of the last moments, with which a measurement is compared at its own time."""

import math

import numpy as np

from lingbot_va_ros.motion.time import NANOSECONDS


class CommandHistory:
    """
    Commanded positions of the last ticks; between them they are interpolated linearly.

    :param joint_count: J.
    :param period_ns: from tick to tick.
    :param seconds: how far back a measurement may lie.
    """

    def __init__(self, joint_count: int, period_ns: int, seconds: float) -> None:
        self._rows = math.ceil(seconds * NANOSECONDS / period_ns) + 2
        # Filled from the front; when full, the newest rows move to the front. So they are always
        # one slice.
        self._times = np.zeros(4 * self._rows, dtype=np.int64)  # ns of ROS time
        self._positions = np.zeros((4 * self._rows, joint_count))
        self._end = 0

    @property
    def has_begun(self) -> bool:
        """Whether any command was added."""
        return self._end > 0

    def restart(self, time_ns: int, positions: np.ndarray) -> None:
        """Begin anew: before this time the command counts as having rested at `positions` [J]."""
        self._end = 0
        self.add(time_ns, positions)

    def add(self, time_ns: int, positions: np.ndarray) -> None:
        """Add the commanded positions [J] of a time after all others."""
        if self._end == len(self._times):
            self._times[:self._rows] = self._times[-self._rows:]
            self._positions[:self._rows] = self._positions[-self._rows:]
            self._end = self._rows
        self._times[self._end] = time_ns
        self._positions[self._end] = positions
        self._end += 1

    def at(self, times_ns: np.ndarray) -> np.ndarray:
        """
        Return the commanded positions [J], each joint's at its own time.

        A time before the first or after the last command gives the first or the last.

        :param times_ns: [J] int64, ROS time.
        :raises RuntimeError: nothing was added yet.
        """
        times, positions = self._newest()
        columns = np.arange(positions.shape[1])
        # Not np.clip, which takes twice as long; this runs several times a tick.
        after = np.minimum(np.searchsorted(times, times_ns), len(times) - 1)
        before = np.maximum(after - 1, 0)
        span = np.maximum(times[after] - times[before], 1)
        share = np.minimum(np.maximum((times_ns - times[before]) / span, 0.0), 1.0)
        first = positions[before, columns]
        return np.asarray(first + share * (positions[after, columns] - first))

    def path(self, times_ns: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """
        Return the commanded positions [n, C] of some joints at times [n] int64.

        :param columns: [C] int, of the joints.
        :raises RuntimeError: nothing was added yet.
        """
        times, positions = self._newest()
        # Differences are exact as floats; times themselves are not.
        share = (times_ns - times[0]).astype(np.float64)
        knots = (times - times[0]).astype(np.float64)
        return np.stack([np.interp(share, knots, positions[:, each]) for each in columns], axis=1)

    def _newest(self) -> tuple[np.ndarray, np.ndarray]:
        if not self._end:
            raise RuntimeError('the command history is empty')
        begin = max(0, self._end - self._rows)
        return self._times[begin:self._end], self._positions[begin:self._end]
