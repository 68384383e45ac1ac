"""The dead-man switch: a joystick button that some modes need pressed."""

from collections.abc import Sequence
import math

from lingbot_va_ros.specs.control_mode import ControlMode


class DeadManSwitch:
    """
    The state of one button of `joy`, and when it was last received.

    :param button: index in the buttons of a message; negative: there is no dead-man switch, and
        nothing is ever missing.
    :param timeout: seconds of silence of `joy` after which the switch counts as lost.
    :param modes: names of the modes that need the button pressed, such as 'teleop'.
    """

    def __init__(
        self, button: int, timeout: float, modes: Sequence[str] = ('teleop',)) -> None:
        self.is_used = button >= 0
        self._modes = tuple(ControlMode[name.upper()] for name in modes)
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

    def needed_in(self, mode: ControlMode) -> bool:
        """Return whether a mode needs the button pressed."""
        return self.is_used and mode in self._modes

    def forget(self) -> None:
        """Count the button as released and never received, after a clock jump."""
        self.pressed, self._received, self._stamp_ns = False, -math.inf, -1

    def missing(self, now_s: float) -> list[str]:
        """Return what a request for a mode that needs it lacks: at most one line."""
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
