"""Hold simulated time to real time, and tell the real time of a simulated moment."""

from collections.abc import Callable
import threading
import time

from lingbot_va_ros.motion.time import to_seconds

# A simulation this far behind (ns) gives up catching up, so that it does not run in bursts.
MAX_BACKLOG_NS = 500_000_000


class Pacing:
    """
    The steady time at which simulated moments are due: `factor` simulated seconds a real second.

    All times are whole nanoseconds; steady time is time.monotonic_ns.
    """

    def __init__(self, factor: float = 1.0):
        self.factor = factor
        self._zero_ns = None

    def forget(self) -> None:
        """Take the next moment as due at once: simulated time was set."""
        self._zero_ns = None

    def wait_for(self, simulated_ns: int, interrupted: threading.Event) -> int:
        """
        Wait until `simulated_ns` is due, or until interrupted.

        Returns the real time that was dropped, 0 where the simulation keeps up.
        """
        now_ns = time.monotonic_ns()
        if self._zero_ns is None:
            self._zero_ns = now_ns - round(simulated_ns / self.factor)
        wait_ns = self.due(simulated_ns) - now_ns
        if wait_ns > 0:
            interrupted.wait(to_seconds(wait_ns))
        elif wait_ns < -MAX_BACKLOG_NS:
            self._zero_ns -= wait_ns
            return -wait_ns
        return 0

    def due(self, simulated_ns: int) -> int:
        """Return the steady time of a simulated one. Call `wait_for` first."""
        return self._zero_ns + round(simulated_ns / self.factor)

    def simulated(self, steady_ns: int) -> int:
        """Return the simulated time of a steady one. Call `wait_for` first."""
        return round((steady_ns - self._zero_ns) * self.factor)


class SteadyOffset:
    """
    How far another real clock is ahead of the steady one, without the jitter of reading both.

    Follows drift slowly, and at once where the other clock was set.
    """

    # Beyond this (ns) the other clock was set; below, it drifts or the reading was held up.
    _SET_NS = 5_000_000
    # Two readings of the steady clock this far apart (ns) say nothing about what lay between.
    _HELD_UP_NS = 500_000

    def __init__(self, read_ns: Callable[[], int]):
        self._read_ns = read_ns
        self.ns = read_ns() - time.monotonic_ns()

    def follow(self) -> None:
        """Read both clocks; call this now and then."""
        before_ns = time.monotonic_ns()
        other_ns = self._read_ns()
        after_ns = time.monotonic_ns()
        if after_ns - before_ns > self._HELD_UP_NS:
            return
        away_ns = other_ns - after_ns - self.ns
        self.ns += away_ns if abs(away_ns) > self._SET_NS else away_ns // 100
