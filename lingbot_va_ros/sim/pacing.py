"""Paces simulated time by real time, and converts between the two."""

from collections.abc import Callable
import threading
import time

from lingbot_va_ros.motion.time import to_seconds

# A simulation this far behind (ns) gives up catching up, so that it does not run in bursts.
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
        """Restart the mapping at the next moment, because simulated time was set."""
        self._zero_ns = None

    def wait_for(self, simulated_ns: int, interrupted: threading.Event) -> int:
        """
        Wait until `simulated_ns` is due, or until interrupted.

        :returns: the real time that was dropped, ns; 0 if the simulation keeps up.
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
    The offset of another real clock from the steady clock, without the jitter of reading both.

    It follows drift slowly, and a clock that was set at once.
    """

    # Beyond this (ns) the other clock was set; below, it drifts or the reading was delayed.
    _SET_NS = 5_000_000
    # A reading between two of the steady clock that are further apart (ns) is discarded.
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
