"""Requests of other threads to the thread that runs the scheduler, answered through futures."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
import threading
from typing import Any, TypeVar

from lingbot_va_ros.policy.runtime.clock import Clock

T = TypeVar('T')


@dataclass(frozen=True)
class _Request:
    work: Callable[[], Any]
    future: Future
    interrupts: bool


class RequestQueue:
    """
    Work for the inference thread, done in the order of asking.

    A request makes a running prediction stop at its next forward, unless `interrupts` is false:
    then it is served between two forwards and the prediction goes on.

    :param clock: woken by each request.
    """

    def __init__(self, clock: Clock):
        self._clock = clock
        self._requests: deque[_Request] = deque()
        self._lock = threading.Lock()

    def ask(
        self, work: Callable[[], T], interrupts: bool = True,
        first: Callable[[], object] = lambda: None,
    ) -> 'Future[T]':
        """
        Have `work` done; the future carries what it returns or raises.

        :param first: called at once, by the caller, before the inference thread can look again.
        """
        future: Future[T] = Future()
        with self._lock:
            first()
            self._requests.append(_Request(work, future, interrupts))
        self._clock.wake()
        return future

    def serve(self, up_to_interrupting: bool = False) -> int:
        """
        Do the work that was asked for and return the number of requests served.

        :param up_to_interrupting: leave the first request that interrupts, and all behind it.
        """
        served = 0
        while True:
            with self._lock:
                if not self._requests or (up_to_interrupting and self._requests[0].interrupts):
                    return served
                request = self._requests.popleft()
            if not request.future.set_running_or_notify_cancel():
                continue
            served += 1
            try:
                request.future.set_result(request.work())
            except BaseException as error:  # belongs to the caller
                request.future.set_exception(error)

    @property
    def waiting(self) -> bool:
        """Whether a request is not served yet."""
        return bool(self._requests)

    def unless_waiting(self, read: Callable[[], T]) -> T | None:
        """Return what `read` returns, at a moment without requests, or None."""
        with self._lock:
            return None if self._requests else read()
