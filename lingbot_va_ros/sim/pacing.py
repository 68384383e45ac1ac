"""Hold simulated time to real time."""

import threading
import time

# A simulation this far behind (s) gives up catching up, so that it does not run in bursts.
MAX_BACKLOG = 0.1


class Pacing:
    """Waits until a simulated moment is due at `factor` simulated seconds per real second."""

    def __init__(self, factor: float = 1.0):
        self.factor = factor
        self._zero = None

    def forget(self) -> None:
        """Take the next moment as due at once: simulated time was set."""
        self._zero = None

    def wait_for(self, simulated_ns: int, interrupted: threading.Event) -> float:
        """
        Wait on the steady clock until `simulated_ns` is due, or until interrupted.

        Returns the seconds that were dropped, 0.0 where the simulation keeps up.
        """
        offset = simulated_ns * 1e-9 / self.factor
        now = time.monotonic()
        if self._zero is None:
            self._zero = now - offset
        wait = self._zero + offset - now
        if wait > 0:
            interrupted.wait(wait)
            return 0.0
        if wait < -MAX_BACKLOG:
            self._zero = now - offset
            return -wait
        return 0.0
