"""The clock of the policy's run time: ROS time, steady time, and waiting that can be ended."""

from collections.abc import Callable
import threading
import time
from typing import Protocol


class Clock(Protocol):
    """
    All that the scheduler knows of time.

    `now_ns` is ROS time: stamps, ages and due times. `steady` measures durations and never jumps.
    In a simulation `wait` advances the simulated world, so that a single thread can run
    `while not done: scheduler.advance()`.
    """

    def now_ns(self) -> int:
        """Return ROS time in nanoseconds."""
        ...

    def steady(self) -> float:
        """Return the steady clock in seconds, from any origin."""
        ...

    def wait(self, seconds: float) -> None:
        """Wait at most so long; return at once if `wake` was called since the last wait."""
        ...

    def wake(self) -> None:
        """End the present wait, or the next one; may be called from any thread."""
        ...


class SystemClock:
    """
    The clock of a real robot: waits in real time.

    One thread waits, any thread wakes it.

    :param now_ns: returns ROS time in nanoseconds.
    """

    def __init__(self, now_ns: Callable[[], int] = time.time_ns):
        self._now_ns = now_ns
        self._woken = threading.Event()

    def now_ns(self) -> int:
        """Return ROS time in nanoseconds."""
        return self._now_ns()

    def steady(self) -> float:
        """Return the steady clock in seconds."""
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        """Wait at most so long, or until `wake`; after it the caller looks at all of its input."""
        if self._woken.wait(seconds):
            self._woken.clear()

    def wake(self) -> None:
        """End the present wait, or the next one."""
        self._woken.set()
