"""Notices steps of the clock that gives stamps, by comparison with the steady clock."""

from collections.abc import Callable
import threading
import time

from lingbot_va_ros.motion.time import NANOSECONDS

# ROS time that gains or loses so much on the steady clock between two looks was set. A clock that
# is slewed (NTP: 500 ppm) gains as much in minutes.
LEAST_STEP_NS = 100_000_000
# Two readings further apart than this are taken again, up to so many times: a thread that is
# preempted between them would see a step.
MAX_READING_NS, READINGS = 1_000_000, 10
# Seconds after a step for which messages of the time before may still arrive.
SETTLING_SECONDS = 1.0


class ClockSteps:
    """
    Compares ROS time with the steady clock at every look.

    rclpy's jump handlers tell of simulated time only. Any thread may look; the one that finds a
    step handles it.

    :param now_ns: returns ROS time in nanoseconds.
    :param on_step: called without a lock, with the length of the step in nanoseconds, negative
        where the clock was set back.
    :param is_simulated: whether ROS time is a simulated one, which keeps its own pace.
    :param steady_ns: returns the steady clock in nanoseconds.
    """

    def __init__(
        self, now_ns: Callable[[], int], on_step: Callable[[int], None],
        is_simulated: Callable[[], bool] = lambda: False,
        steady_ns: Callable[[], int] = time.monotonic_ns,
    ):
        self._now_ns = now_ns
        self._on_step = on_step
        self._is_simulated = is_simulated
        self._steady_ns = steady_ns
        self._lock = threading.Lock()
        self._offset_ns: int | None = None  # of ROS time to the steady clock, at the last look
        self._stepped_ns: int | None = None  # steady time of the last step

    def look(self) -> bool:
        """Look whether the clock has stepped since the last look; a step is handled first."""
        with self._lock:
            step_ns = self._measure()
        if abs(step_ns) <= LEAST_STEP_NS:
            return False
        self._on_step(step_ns)
        return True

    def is_settling(self) -> bool:
        """Return whether the last step was so recent that messages of the time before may come."""
        stepped_ns = self._stepped_ns
        return stepped_ns is not None and (
            self._steady_ns() - stepped_ns < SETTLING_SECONDS * NANOSECONDS)

    def _measure(self) -> int:
        """Return by how much ROS time gained on the steady clock since the last look."""
        if self._is_simulated():
            self._offset_ns = None
            return 0
        for _ in range(READINGS):
            before_ns = self._steady_ns()
            offset_ns = self._now_ns() - before_ns
            if self._steady_ns() - before_ns <= MAX_READING_NS:
                break
        else:
            return 0
        last_ns, self._offset_ns = self._offset_ns, offset_ns
        if last_ns is None:
            return 0
        if abs(offset_ns - last_ns) > LEAST_STEP_NS:
            self._stepped_ns = self._steady_ns()
        return offset_ns - last_ns
