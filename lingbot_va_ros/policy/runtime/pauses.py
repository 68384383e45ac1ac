"""Lengthening pauses after chunks that were cut, so that an arm does not start and stop."""

from lingbot_va_ros.policy.runtime.clock import Clock

LEAST_PAUSE, MOST_PAUSE = 0.5, 4.0  # s; each is twice the one before, until a chunk is completed


class PauseAfterCut:
    """The time until which no chunk begins after a fault has cut one; steady time."""

    def __init__(self, clock: Clock):
        self._clock = clock
        self._seconds = 0.0
        self._until = 0.0
        self._reason = ''

    def cut(self, reason: str) -> None:
        """Note that a chunk was cut; `reason` is one line."""
        self._seconds = min(MOST_PAUSE, max(LEAST_PAUSE, 2 * self._seconds))
        self._until, self._reason = self._clock.steady() + self._seconds, reason

    def forget(self) -> None:
        """Note that a chunk was completed, or that a request begins anew."""
        self._seconds = self._until = 0.0

    def reason(self) -> str | None:
        """Return why no chunk begins now, or None."""
        if self._clock.steady() >= self._until:
            return None
        return f'{self._reason}; the arm rests for {self._seconds:g} s after it'
