"""Reduces the commands of a gripper that is driven by an action to few goals."""

import math
import threading


class GripperGoals:
    """
    Turns the commanded positions of one gripper, 100 a second, into few goals.

    A goal is due when the commanded position is further than `threshold` from the last goal, and
    the last goal was sent at least `period` ago. A motion begins without a goal: the gripper goes
    on holding its object. One thread commands, another sends.

    :param threshold: m or rad.
    :param period: seconds between two goals.
    """

    def __init__(self, threshold: float, period: float) -> None:
        self.threshold = threshold
        self.period = period
        self._lock = threading.Lock()
        self._wanted: float | None = None
        self._sent: float | None = None
        self._sent_at = -math.inf

    def begin(self, position: float) -> None:
        """Begin a motion; the gripper is commanded to `position` already."""
        with self._lock:
            self._wanted = self._sent = position

    def want(self, position: float) -> None:
        """Take the position that the present command asks for."""
        with self._lock:
            self._wanted = position

    def rest(self) -> None:
        """Send nothing more: the arm holds or is stopped, and the gripper keeps its last goal."""
        with self._lock:
            self._wanted = None

    def due(self, now_s: float) -> float | None:
        """Return the goal to send now, which then counts as sent, or None."""
        with self._lock:
            if self._wanted is None or now_s - self._sent_at < self.period:
                return None
            if self._sent is not None and abs(self._wanted - self._sent) <= self.threshold:
                return None
            self._sent, self._sent_at = self._wanted, now_s
            return self._sent
