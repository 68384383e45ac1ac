"""Who moves the arm: the modes of the command mux and what leads from one to another."""

from enum import IntEnum
import math


class Mode(IntEnum):
    """The numbers of ControlMode."""

    HOLD = 0
    TELEOP = 1
    POLICY = 2
    STOPPED = 3

    @property
    def has_source(self) -> bool:
        """Whether a command source moves the arm in this mode."""
        return self in (Mode.TELEOP, Mode.POLICY)


class ModeMachine:
    """
    The mode, its reason, and the latches; no clock and no motion of its own.

    `entries` counts the entries into a mode that ask for a stop to be sent (HOLD and STOPPED);
    it stays 0 until somebody has chosen a mode, so that a mux which was just started, or
    respawned, is silent. Times are seconds of any steady clock.

    :param emergency_timeout: seconds of silence of the emergency-stop input that latch; 0: none.
    """

    def __init__(self, emergency_timeout: float = 0.0):
        self.emergency_timeout = emergency_timeout
        self._state = (Mode.HOLD, 'started')
        self.chosen = False
        # Whether the present mode came about by a fault, not by anybody's wish.
        self.fell = False
        self.entries = 0
        # Whether the last entry was asked for: then the stop may be a gentle one.
        self.gentle = False
        self._pressed = False
        self._heard = -math.inf
        if emergency_timeout > 0:
            self._state = (Mode.STOPPED, 'started; the emergency stop was not heard yet')

    def begin_stopped(self, reason: str) -> None:
        """Begin STOPPED, because the mux before this one was; nothing is to be sent."""
        self._state = (Mode.STOPPED, reason)

    @property
    def state(self) -> tuple[Mode, str]:
        """Mode and reason, of one moment."""
        return self._state

    @property
    def mode(self) -> Mode:
        """Who moves the arm."""
        return self._state[0]

    @property
    def reason(self) -> str:
        """What brought the mode about."""
        return self._state[1]

    def choose(
        self, mode: Mode, missing: list[str], reason: str = 'asked for over set_mode',
    ) -> tuple[bool, str]:
        """
        Answer a request for a mode: (success, message).

        :param missing: what the mode needs and is not there; nothing for a stop.
        """
        if mode == Mode.STOPPED:
            self.chosen = True
            self.stop('asked for over set_mode')
            return True, 'STOPPED until clear_stop'
        if self.mode == Mode.STOPPED:
            return False, f'STOPPED ({self.reason}); call clear_stop first'
        if missing:
            return False, f'{mode.name} needs ' + '; '.join(missing)
        self.chosen = True
        self._enter(mode, reason)
        self.gentle = True
        return True, f'{mode.name}'

    def fall_to_hold(self, reason: str) -> bool:
        """Go from a moving mode to HOLD; returns whether the mode changed."""
        if self.mode in (Mode.HOLD, Mode.STOPPED):
            return False
        self._enter(Mode.HOLD, reason)
        self.fell = True
        return True

    def hold_again(self, reason: str) -> None:
        """Enter HOLD from HOLD: a motion of the mux's own is broken off."""
        if self.mode == Mode.HOLD:
            self._enter(Mode.HOLD, reason)
            self.fell = True

    def remark(self, reason: str) -> None:
        """Say what the mux does in the present mode."""
        self._state = (self.mode, reason)

    def forget_times(self, now: float) -> None:
        """Begin to wait anew after a clock jump."""
        self._heard = now

    def stop(self, reason: str) -> None:
        """Latch STOPPED; the first reason stays."""
        if self.mode != Mode.STOPPED:
            self._enter(Mode.STOPPED, reason)

    def emergency_input(self, pressed: bool, now: float) -> None:
        """Take a message of the emergency-stop input."""
        self._pressed, self._heard = pressed, now
        if pressed:
            self.stop('emergency stop pressed')

    def watch(self, now: float) -> None:
        """Latch when the emergency-stop input has fallen silent."""
        if self._silent(now):
            self.stop(f'emergency stop not heard for {self.emergency_timeout:g} s')

    def clear_stop(self, now: float) -> tuple[bool, str]:
        """Answer a request to leave STOPPED, for HOLD: (success, message)."""
        if self.mode != Mode.STOPPED:
            return False, f'not STOPPED but {self.mode.name}'
        if self._pressed:
            return False, 'the emergency stop is still pressed'
        if self._silent(now):
            return False, 'the emergency stop input is silent'
        self._enter(Mode.HOLD, 'stop cleared')
        return True, 'HOLD'

    def _silent(self, now: float) -> bool:
        return self.emergency_timeout > 0 and now - self._heard > self.emergency_timeout

    def _enter(self, mode: Mode, reason: str) -> None:
        self.fell = self.gentle = False
        self._state = (mode, reason)  # One assignment: other threads read both together.
        if self.chosen and mode in (Mode.HOLD, Mode.STOPPED):
            self.entries += 1
