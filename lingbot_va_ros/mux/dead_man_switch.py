"""The dead-man switch: a joystick button that TELEOP needs pressed."""

from collections.abc import Sequence
import math


class DeadManSwitch:
    """
    The state of one button of `joy`, and when it was last received.

    :param button: index in the buttons of a message; negative: there is no dead-man switch, and
        nothing is ever missing.
    :param timeout: seconds of silence of `joy` after which the switch counts as lost.
    """

    def __init__(self, button: int, timeout: float) -> None:
        self.is_used = button >= 0
        self.pressed = False
        self._button = button
        self._timeout = timeout
        self._received = -math.inf
        self._stamp_ns = -1
        self._fault = ''

    def update(self, buttons: Sequence[int], stamp_ns: int, now_s: float) -> bool:
        """
        Take the buttons of a message, and return whether the button is released.

        A message whose stamp stands still says nothing new, and changes nothing.
        """
        if not self.is_used or stamp_ns and stamp_ns == self._stamp_ns:
            return False
        self._stamp_ns, self._received = stamp_ns, now_s
        exists = self._button < len(buttons)
        self._fault = '' if exists else (
            f'joy has {len(buttons)} buttons, none with the index {self._button}')
        self.pressed = exists and bool(buttons[self._button])
        return not self.pressed

    def forget(self) -> None:
        """Count the button as released and never received, after a clock jump."""
        self.pressed, self._received, self._stamp_ns = False, -math.inf, -1

    def missing(self, now_s: float) -> list[str]:
        """Return what a request for TELEOP lacks: at most one line."""
        if not self.is_used:
            return []
        if self._fault:
            return [self._fault]
        if now_s - self._received > self._timeout:
            return ['the dead-man button (joy is silent)']
        return [] if self.pressed else ['the dead-man button to be pressed']

    def lost(self, now_s: float, margin: float = 0.0) -> str:
        """
        Return in one line that `joy` fell silent, or an empty text.

        :param margin: seconds before the timeout at which it counts as silent already.
        """
        if self.is_used and now_s - self._received > self._timeout - margin:
            return f'joy silent for {self._timeout:g} s, and with it the dead-man button'
        return ''
