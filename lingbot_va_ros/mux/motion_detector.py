"""Detects that a teleoperation source at rest begins to move, for the automatic takeover."""

import math

import numpy as np


class MotionDetector:
    """
    Tells when a source that was at rest begins to move.

    A source rests when it has stayed within half of `threshold` for `rest` seconds. Only then is
    the detector armed, and it fires once the source is further than `threshold` from its place of
    rest. An operator who gives the arm back with the leader in motion does not take it again.

    :param threshold: rad or m for each joint [J], or one for all.
    :param rest: seconds.
    """

    def __init__(self, threshold: np.ndarray | float, rest: float = 0.5) -> None:
        self._threshold = threshold
        self._rest = rest
        self._origin: np.ndarray | None = None
        self._since = math.inf
        self.armed = False

    def reset(self) -> None:
        """Begin anew: the source is not known to rest."""
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
