"""The motion of go_home: leads the arm to the embodiment's home and rests there."""

import numpy as np

from lingbot_va_ros.motion.plan import Plan
from lingbot_va_ros.mux.command_stream import CommandStream
from lingbot_va_ros.mux.ramp import Ramp
from lingbot_va_ros.specs.embodiment import JointLimits

# The motion is over when the command is this near (rad, m; per s) to its end.
HOME_TOLERANCE = 1e-7


class HomeMotion:
    """
    A ramp to rest at home.

    :param home: positions [J]; those outside the limits are brought inside.
    :param stream: takes the commands.
    :param share: of the velocity and acceleration limits, 0 … 1.
    :param period: seconds from tick to tick.
    """

    def __init__(
        self, home: np.ndarray, stream: CommandStream, limits: JointLimits, share: float,
        period: float,
    ) -> None:
        self._home = np.clip(home, limits.lower, limits.upper)
        self._stream = stream
        self._ramp = Ramp(limits, period)
        self._ramp.share = share

    def begin(self, acceleration: np.ndarray) -> None:
        """
        Begin the motion.

        :param acceleration: of the present command [J].
        """
        self._ramp.begin(acceleration)

    def step(self, tick_ns: int) -> Plan:
        """Return the command of a tick."""
        return self._stream.follow(tick_ns, self._desired)

    def _desired(self, step_ns: int) -> tuple[np.ndarray, np.ndarray]:
        goal = (self._home, np.zeros_like(self._home))
        if self._ramp.caught:
            return goal
        return self._ramp.step(*self._stream.state(step_ns), *goal)

    def is_at_home(self, time_ns: int) -> bool:
        """Return whether the command rests at home at a time."""
        q, v = self._stream.state(time_ns)
        return bool(
            np.all(np.abs(q - self._home) < HOME_TOLERANCE)
            and np.all(np.abs(v) < HOME_TOLERANCE))
