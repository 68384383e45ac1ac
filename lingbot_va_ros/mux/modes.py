"""The modes of the command mux, and the rules for changing from one to another."""

import math

from lingbot_va_ros.specs.control_mode import ControlMode

MuxMode = ControlMode


class ModeStateMachine:
    """
    The mode, its reason, and the latches; it has no clock and causes no motion.

    `stop_requests` counts the entries into HOLD and STOPPED, each of which asks for a stop to be
    sent. It stays 0 until a mode was requested: a mux that was just started, or respawned, is
    silent. Times are seconds of any steady clock.

    :param emergency_timeout: seconds of silence of the emergency-stop input that latch; 0: none.
    """

    def __init__(self, emergency_timeout: float = 0.0) -> None:
        self.emergency_timeout = emergency_timeout
        self._state = (MuxMode.HOLD, 'started')
        self.chosen = False
        # Whether a fault led to the present mode, not a request.
        self.is_fault = False
        self.stop_requests = 0
        # Whether the present mode was requested: then its stop may be a gentle one.
        self.gentle = False
        self._pressed = False
        self._heard = -math.inf
        if emergency_timeout > 0:
            self._state = (MuxMode.STOPPED, 'started; the emergency stop was not heard yet')

    def begin_stopped(self, reason: str) -> None:
        """Begin STOPPED, as the mux before this one was; asks for no stop to be sent."""
        self._state = (MuxMode.STOPPED, reason)

    @property
    def state(self) -> tuple[MuxMode, str]:
        """Mode and reason of one moment."""
        return self._state

    @property
    def mode(self) -> MuxMode:
        """The present mode."""
        return self._state[0]

    @property
    def reason(self) -> str:
        """The reason of the present mode, in one line."""
        return self._state[1]

    def choose(
        self, mode: MuxMode, missing: list[str], reason: str = 'asked for over set_mode',
    ) -> tuple[bool, str]:
        """
        Answer a request for a mode: (success, message).

        :param missing: what the mode lacks, a line each; ignored for STOPPED.
        """
        if mode == MuxMode.STOPPED:
            self.chosen = True
            self.stop('asked for over set_mode')
            return True, 'STOPPED until clear_stop'
        if self.mode == MuxMode.STOPPED:
            return False, f'STOPPED ({self.reason}); call clear_stop first'
        if missing:
            return False, f'{mode.name} needs ' + '; '.join(missing)
        self.chosen = True
        self._enter(mode, reason)
        self.gentle = True
        return True, f'{mode.name}'

    def fall_to_hold(self, reason: str) -> bool:
        """Go from a moving mode to HOLD; returns whether the mode changed."""
        if self.mode in (MuxMode.HOLD, MuxMode.STOPPED):
            return False
        self._enter(MuxMode.HOLD, reason)
        self.is_fault = True
        return True

    def abort_motion(self, reason: str) -> None:
        """Enter HOLD from HOLD, because a go_home motion is broken off."""
        if self.mode == MuxMode.HOLD:
            self._enter(MuxMode.HOLD, reason)
            self.is_fault = True

    def set_reason(self, reason: str) -> None:
        """Change the reason of the present mode, as a remark on what the mux does."""
        self._state = (self.mode, reason)

    def forget_times(self, now: float) -> None:
        """Count the silence of the emergency-stop input from now, after a clock jump."""
        self._heard = now

    def stop(self, reason: str) -> None:
        """Latch STOPPED; the first reason stays."""
        if self.mode != MuxMode.STOPPED:
            self._enter(MuxMode.STOPPED, reason)

    def emergency_input(self, pressed: bool, now: float) -> None:
        """Take a message of the emergency-stop input."""
        self._pressed, self._heard = pressed, now
        if pressed:
            self.stop('emergency stop pressed')

    def watch(self, now: float) -> None:
        """Latch STOPPED when the emergency-stop input has fallen silent."""
        if self._silent(now):
            self.stop(f'emergency stop not heard for {self.emergency_timeout:g} s')

    def clear_stop(self, now: float) -> tuple[bool, str]:
        """Answer a request to leave STOPPED, for HOLD: (success, message)."""
        if self.mode != MuxMode.STOPPED:
            return False, f'not STOPPED but {self.mode.name}'
        if self._pressed:
            return False, 'the emergency stop is still pressed'
        if self._silent(now):
            return False, 'the emergency stop input is silent'
        self._enter(MuxMode.HOLD, 'stop cleared')
        return True, 'HOLD'

    def _silent(self, now: float) -> bool:
        return self.emergency_timeout > 0 and now - self._heard > self.emergency_timeout

    def _enter(self, mode: MuxMode, reason: str) -> None:
        self.is_fault = self.gentle = False
        self._state = (mode, reason)  # One assignment: other threads read both together.
        if self.chosen and mode in (MuxMode.HOLD, MuxMode.STOPPED):
            self.stop_requests += 1
