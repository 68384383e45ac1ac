"""Detects that the operator has begun to move the teleoperation source (automatic takeover)."""

import math

import numpy as np


class MotionDetector:
    """
    Tell when a source that was at rest begins to move.

    At rest it is when it has stayed within half of `threshold` for `rest` seconds; only then is
    the detector armed, and it fires once the source is further than `threshold` from there. A
    person who gives the arm back while still moving the leader does not take it again by that.

    :param threshold: rad or m for each joint [J], or one for all.
    """

    def __init__(self, threshold, rest: float = 0.5):
        self._threshold = threshold
        self._rest = rest
        self._origin: np.ndarray | None = None
        self._since = math.inf
        self.armed = False

    def reset(self) -> None:
        """Begin to look anew: the source is not known to rest."""
        self._origin, self._since, self.armed = None, math.inf, False

    def moved(self, position: np.ndarray, now_s: float) -> bool:
        """Take the source's position [J] and return whether it has begun to move."""
        if self._origin is None:
            self._origin, self._since = position.copy(), now_s
            return False
        far = np.abs(position - self._origin)
        if self.armed:
            if np.any(far > self._threshold):
                self.reset()
                return True
        elif np.any(far > self._threshold / 2):
            self._origin, self._since = position.copy(), now_s
        elif now_s - self._since >= self._rest:
            self.armed = True
        return False
