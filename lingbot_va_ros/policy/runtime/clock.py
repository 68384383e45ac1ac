"""The clock of the policy's run time: ROS time, steady time, and waiting that can be ended."""

from collections.abc import Callable
import threading
import time
from typing import Protocol

from lingbot_va_ros.motion.timeline import Timeline


class Clock(Protocol):
    """
    All that the scheduler knows of time.

    `now_ns` is ROS time, or the plan time of a `PlanClock`: due times. `steady` measures
    durations and never jumps.
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


class PlanClock:
    """
    A clock whose `now_ns` is plan time.

    :param clock: ROS time, and all else.
    """

    def __init__(self, clock: Clock, timeline: Timeline):
        self._clock = clock
        self._timeline = timeline

    def now_ns(self) -> int:
        """Return plan time in nanoseconds."""
        return self._timeline.to_plan(self._clock.now_ns())

    def rate(self) -> float:
        """Return the seconds of plan time in a second of ROS time."""
        return self._timeline.rate(self.now_ns())

    def steady(self) -> float:
        """Return the steady clock in seconds."""
        return self._clock.steady()

    def wait(self, seconds: float) -> None:
        """Wait at most so many seconds of ROS time, or until `wake`."""
        self._clock.wait(seconds)

    def wake(self) -> None:
        """End the present wait, or the next one."""
        self._clock.wake()
