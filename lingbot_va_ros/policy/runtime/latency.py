"""Durations of predictions, and the time at which one must begin to be in time."""

from collections import deque
import statistics

ENOUGH = 8  # predictions ahead before their latency counts as known
MARGIN = 0.02  # seconds
RECENT = 40  # predictions ahead that the estimate looks back on
# A prediction that took more than so many times the median is an outlier: it counts for the next
# few predictions only. Where slow ones come again within that many, one of them always counts.
OUTLIER, OUTLIER_COUNTS = 2.0, 5


class Latency:
    """
    Durations of the recent predictions in seconds of the steady clock.

    Predictions ahead of a running chunk are kept apart as well: they imagine besides predicting.
    A prediction that recorded a CUDA graph is slower than those that replay it. It stands for the
    next prediction, which may record too, and for no other.
    """

    def __init__(self) -> None:
        self._all: deque[float] = deque(maxlen=200)
        self._p95 = 0.0  # asked for much more often than it changes
        self._ahead: deque[float] = deque(maxlen=RECENT)
        self._recorded: deque[float] = deque(maxlen=RECENT)
        self._recorded_last = False
        self._encoding: deque[float] = deque(maxlen=20)

    def clear(self) -> None:
        """Forget everything (another engine)."""
        self._all.clear()
        self._encoding.clear()
        self.forget_ahead()
        self._p95 = 0.0

    def forget_ahead(self) -> None:
        """Forget the durations of predictions ahead (other numbers of steps)."""
        self._ahead.clear()
        self._recorded.clear()
        self._recorded_last = False

    def add(self, seconds: float, ahead: bool = False, recorded: bool = False) -> None:
        """
        Add the duration of a prediction, seconds.

        :param recorded: whether a CUDA graph was recorded meanwhile.
        """
        self._all.append(seconds)
        self._p95 = seconds if len(self._all) < 2 else (
            statistics.quantiles(self._all, n=20, method='inclusive')[-1])
        if ahead:
            (self._recorded if recorded else self._ahead).append(seconds)
            self._recorded_last = recorded

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

        The longest of the recent ones without outliers, and a margin that a frame which is being
        encoded cannot use up.
        """
        known = list(self._ahead)
        if len(known) < ENOUGH:
            known = [*self._recorded, *known]
        if len(known) < ENOUGH:
            return None
        most = OUTLIER * statistics.median(known)
        slow = max([*(each for each in known if each <= most), *known[-OUTLIER_COUNTS:]])
        if self._recorded_last:
            slow = max(slow, self._recorded[-1])
        return slow + max(self._encoding, default=0.0) + MARGIN
