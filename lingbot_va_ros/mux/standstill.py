"""The standstill watch: notices an arm that stands while its command moves."""

import numpy as np

# Of the arm, and of its command, since the arm last moved (rad, m): more is a motion.
MEASURED_MOTION, COMMANDED_MOTION = 0.002, 0.01
# How long the command may be in motion alone, s.
LONGEST = 0.3


class StandstillWatch:
    """
    Compares where the arm and its command have moved to since the arm was last seen in motion.

    Time is that of the measurements: joint states that come late are no standstill.

    :param is_watched: [J] bool. A gripper that holds an object stands while its command moves.
    """

    def __init__(self, is_watched: np.ndarray) -> None:
        self._is_watched = is_watched
        self._measured: np.ndarray | None = None
        self._commanded: np.ndarray | None = None
        self._since: float | None = None  # when the command left, s

    def reset(self) -> None:
        """Begin anew with the next states."""
        self._measured = self._commanded = self._since = None

    def stands(self, measured: np.ndarray, commanded: np.ndarray, time_s: float) -> bool:
        """
        Return whether no joint has moved for LONGEST while the command of one did.

        :param measured, commanded: positions [J] at `time_s`.
        """
        if self._measured is None or self._commanded is None or self._distance(
                measured, self._measured) > MEASURED_MOTION:
            self._measured, self._commanded = measured.copy(), commanded.copy()
            self._since = None
            return False
        if self._distance(commanded, self._commanded) <= COMMANDED_MOTION:
            self._since = None
            return False
        if self._since is None:
            self._since = time_s
        return time_s - self._since >= LONGEST

    def _distance(self, one: np.ndarray, other: np.ndarray) -> float:
        return float(np.max(np.abs(one - other)[self._is_watched], initial=0.0))
