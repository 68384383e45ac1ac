"""Paces simulated time by real time, and converts between the two."""

from collections.abc import Callable
import threading
import time

from lingbot_va_ros.motion.time import to_seconds

# A simulation further behind than this (ns) drops the backlog, so that it does not run in bursts.
MAX_BACKLOG_NS = 500_000_000


class Pacing:
    """
    Maps simulated time to steady time: `factor` simulated seconds per real second.

    All times are whole nanoseconds; steady time is time.monotonic_ns.
    """

    def __init__(self, factor: float = 1.0):
        self.factor = factor
        # Steady time of simulated time 0, or None until the next `wait_for`.
        self._zero_ns: int | None = None

    def forget(self) -> None:
        """Restart the mapping at the next `wait_for`, because simulated time was set."""
        self._zero_ns = None

    def wait_for(self, simulated_ns: int, interrupted: threading.Event) -> int:
        """
        Wait until `simulated_ns` is due, or until interrupted.

        :returns: the backlog that was dropped, ns of real time; 0 if the simulation keeps up.
        """
        now_ns = time.monotonic_ns()
        zero_ns = self._zero_ns
        if zero_ns is None:
            zero_ns = self._zero_ns = now_ns - round(simulated_ns / self.factor)
        wait_ns = self.due(simulated_ns) - now_ns
        if wait_ns > 0:
            interrupted.wait(to_seconds(wait_ns))
        elif wait_ns < -MAX_BACKLOG_NS:
            self._zero_ns = zero_ns - wait_ns
            return -wait_ns
        return 0

    def due(self, simulated_ns: int) -> int:
        """Return the steady time of a simulated time. Call `wait_for` first."""
        return self._zero() + round(simulated_ns / self.factor)

    def simulated(self, steady_ns: int) -> int:
        """Return the simulated time of a steady time. Call `wait_for` first."""
        return round((steady_ns - self._zero()) * self.factor)

    def _zero(self) -> int:
        if self._zero_ns is None:
            raise RuntimeError('simulated time has no steady time before wait_for')
        return self._zero_ns


class SteadyOffset:
    """
    The offset of another real clock from the steady clock, low-pass filtered.

    The filter removes the jitter of reading both clocks. A step of the other clock is followed at
    once, drift slowly.

    :param read_ns: reads the other clock, ns.
    """

    # A change above this (ns) is a step of the other clock; below, it is drift or jitter.
    _SET_NS = 5_000_000
    # A reading is discarded if the steady clock advances by more than this (ns) around it.
    _DELAYED_NS = 500_000

    def __init__(self, read_ns: Callable[[], int]):
        self._read_ns = read_ns
        self.ns = read_ns() - time.monotonic_ns()

    def follow(self) -> None:
        """Read both clocks; call this repeatedly."""
        before_ns = time.monotonic_ns()
        other_ns = self._read_ns()
        after_ns = time.monotonic_ns()
        if after_ns - before_ns > self._DELAYED_NS:
            return
        away_ns = other_ns - after_ns - self.ns
        self.ns += away_ns if abs(away_ns) > self._SET_NS else away_ns // 100
