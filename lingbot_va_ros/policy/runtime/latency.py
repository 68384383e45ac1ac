"""Durations of predictions, and the time at which one must begin to be in time."""

from collections import deque
import statistics

import numpy as np

ENOUGH = 8  # predictions ahead before their latency counts as known
MARGIN = 0.02  # seconds


class Latency:
    """
    Durations of the recent predictions in seconds of the steady clock.

    Predictions ahead of a running chunk are kept apart as well: they imagine besides predicting.
    """

    def __init__(self) -> None:
        self._all: deque[float] = deque(maxlen=200)
        self._p95 = 0.0  # asked for much more often than it changes
        self._ahead: deque[float] = deque(maxlen=200)
        self._encoding: deque[float] = deque(maxlen=20)

    def clear(self) -> None:
        """Forget everything (another engine)."""
        for durations in (self._all, self._ahead, self._encoding):
            durations.clear()
        self._p95 = 0.0

    def forget_ahead(self) -> None:
        """Forget the durations of predictions ahead (other numbers of steps)."""
        self._ahead.clear()

    def add(self, seconds: float, ahead: bool = False) -> None:
        """Add the duration of a prediction, seconds."""
        self._all.append(seconds)
        self._p95 = seconds if len(self._all) < 2 else (
            statistics.quantiles(self._all, n=20, method='inclusive')[-1])
        if ahead:
            self._ahead.append(seconds)

    def add_encoding(self, seconds: float) -> None:
        """Add the duration of encoding a latent frame, seconds."""
        self._encoding.append(seconds)

    @property
    def newest(self) -> float:
        """The newest prediction; 0 before the first."""
        return self._all[-1] if self._all else 0.0

    @property
    def p95(self) -> float:
        """95th percentile of all; 0 before the first."""
        return self._p95

    @property
    def time_needed(self) -> float | None:
        """
        Seconds before its plan is needed that a prediction ahead must begin; None: at once.

        The 99th percentile, and a margin that a frame which is being encoded cannot use up.
        """
        if len(self._ahead) < ENOUGH:
            return None
        slow = float(np.percentile(self._ahead, 99, method='higher'))
        return slow + max(self._encoding, default=0.0) + MARGIN
