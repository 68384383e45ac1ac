"""The clutch: hand and arm move together while its button is pressed."""

from collections import deque
import math

# A button that was pressed counts as closed when it has stayed so for this time, s.
SETTLING = 0.05
# A button that changes so often within so many seconds bounces.
MOST_CHANGES, CHANGES_SECONDS = 6, 1.0


class Clutch:
    """
    A clutch opens at once, and closes when its button has settled.

    :param is_used: without a button the clutch is always closed.
    :param timeout: seconds of silence of `joy` after which a closed clutch counts as lost: nobody
        knows whether its button is still pressed.
    """

    def __init__(self, is_used: bool, timeout: float) -> None:
        self.is_engaged = not is_used
        self.bounces = ''  # in one line, that the button bounces
        self._is_used = is_used
        self._timeout = timeout
        self._received = -math.inf
        self._is_pressed = False
        self._pressed_at = 0.0
        self._changes: deque[float] = deque(maxlen=MOST_CHANGES)

    def update(self, is_pressed: bool, now_s: float) -> bool:
        """
        Take the state of the button, and return whether the clutch has opened or closed.

        :param now_s: seconds of any steady clock.
        """
        if not self._is_used:
            return False
        self._received = now_s
        if is_pressed != self._is_pressed:
            self._is_pressed, self._pressed_at = is_pressed, now_s
            self._changes.append(now_s)
        self.bounces = ''
        if len(self._changes) == MOST_CHANGES and now_s - self._changes[0] <= CHANGES_SECONDS:
            self.bounces = (
                f'the clutch bounces: its button changed {MOST_CHANGES} times within '
                f'{CHANGES_SECONDS:g} s')
        was_engaged = self.is_engaged
        self.is_engaged = is_pressed and not self.bounces and (
            was_engaged or now_s - self._pressed_at >= SETTLING)
        return self.is_engaged != was_engaged

    def lost(self, now_s: float, margin: float = 0.0) -> str:
        """
        Return in one line that `joy` fell silent with the clutch closed, or an empty text.

        :param margin: seconds before the timeout at which it counts as silent already.
        """
        if (self._is_used and self.is_engaged
                and now_s - self._received > self._timeout - margin):
            return f'joy silent for {self._timeout:g} s, and with it the clutch'
        return ''

    def forget(self) -> None:
        """Count the button as released."""
        if self._is_used:
            self.is_engaged = self._is_pressed = False
            self._changes.clear()
