"""What other threads ask the inference thread to do, answered through futures."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
import threading
from typing import Any


class Requests:
    """
    Work for the inference thread, done in the order of asking.

    Between two denoising steps a request makes the prediction stop there, unless it is a *gentle*
    one, which is done on the spot and leaves the prediction to go on.
    """

    def __init__(self):
        self._entries: deque[tuple[Callable[[], Any], Future, bool]] = deque()
        self._lock = threading.Lock()
        self._wake = threading.Event()

    def ask(
        self, work: Callable[[], Any], gentle: bool = False,
        first: Callable[[], None] = lambda: None,
    ) -> Future:
        """
        Have `work` done; the future carries what it returns or raises.

        :param first: called at once, by the caller, before the inference thread can look again.
        """
        future: Future = Future()
        with self._lock:
            first()
            self._entries.append((work, future, gentle))
        self._wake.set()
        return future

    def serve(self, only_gentle: bool = False) -> int:
        """Do what was asked for, up to the first that is not gentle where so asked; count it."""
        self._wake.clear()
        served = 0
        while True:
            with self._lock:
                if not self._entries or (only_gentle and not self._entries[0][2]):
                    return served
                work, future, _ = self._entries.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            served += 1
            try:
                future.set_result(work())
            except BaseException as error:  # belongs to the caller
                future.set_exception(error)

    @property
    def waiting(self) -> bool:
        """Whether something was asked for and is not done."""
        return bool(self._entries)

    def unless_waiting(self, look: Callable[[], Any]) -> Any | None:
        """Return what `look` returns, at a moment when nothing is asked for, or None."""
        with self._lock:
            return None if self._entries else look()

    def wake(self) -> None:
        """End a `wait`."""
        self._wake.set()

    def wait(self, seconds: float) -> None:
        """Wait until something is asked for, at most so long."""
        self._wake.wait(seconds)
