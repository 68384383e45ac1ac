"""The motion of go_home: leads the arm to the embodiment's home and rests there."""

import numpy as np

from lingbot_va_ros.motion.plan import Plan
from lingbot_va_ros.mux.command_stream import CommandStream
from lingbot_va_ros.mux.ramp import Ramp
from lingbot_va_ros.specs.embodiment import JointLimits

# The motion is over when the command is this near (rad, m; per s) to its end.
HOME_TOLERANCE = 1e-7
# A joint slower than this, per s and s², is at rest; a way shorter than this (rad, m) is none.
STILL, SHORTEST = 1e-6, 1e-6


class HomeMotion:
    """
    A ramp to rest at home: on a straight line where it begins at rest.

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
        self._limits = limits
        self._share = share
        self._period = period
        self._speed = 1.0
        self._ramp = Ramp(limits, period)
        self._line: _Line | None = None
        self._begins = False

    def limit_speed(self, share: float) -> None:
        """Keep to a further share of the velocity limits, 0 … 1."""
        self._speed = share

    def begin(self, acceleration: np.ndarray) -> None:
        """
        Begin the motion.

        :param acceleration: of the present command [J].
        """
        self._ramp = Ramp(self._limits, self._period)
        self._ramp.begin(acceleration)
        self._line, self._begins = None, not np.any(np.abs(acceleration) > STILL)

    def step(self, tick_ns: int) -> Plan:
        """Return the command of a tick."""
        return self._stream.follow(tick_ns, self._desired)

    def _desired(self, step_ns: int) -> tuple[np.ndarray, np.ndarray]:
        q, v = self._stream.state(step_ns)
        if self._begins and not np.any(np.abs(v) > STILL):
            self._line = _Line(q, self._home, self._limits)
            self._ramp = Ramp(self._line.limits, self._period)
            self._ramp.begin(np.zeros(1))
        self._begins = False
        rest = np.zeros_like(self._home)
        if self._ramp.caught:
            return self._home, rest
        self._ramp.share, self._ramp.speed = self._share, self._speed
        line = self._line
        if line is None:
            return self._ramp.step(q, v, self._home, rest)
        return line.joints(*self._ramp.step(*line.place(q, v), np.ones(1), np.zeros(1)))

    def is_at_home(self, time_ns: int) -> bool:
        """Return whether the command rests at home at a time."""
        q, v = self._stream.state(time_ns)
        return bool(
            np.all(np.abs(q - self._home) < HOME_TOLERANCE)
            and np.all(np.abs(v) < HOME_TOLERANCE))


class _Line:
    """The straight way between two positions [J]: place 0 is its begin, place 1 its end."""

    def __init__(self, begin: np.ndarray, end: np.ndarray, limits: JointLimits) -> None:
        self._begin = begin
        self._way = end - begin
        length = np.maximum(np.abs(self._way), SHORTEST)
        velocity, acceleration, jerk = (
            np.array([float(np.min(each / length))])
            for each in (limits.velocity, limits.acceleration, limits.jerk))
        # The limits [1] of the place: those of the joint that they hold back most.
        self.limits = JointLimits(
            np.array([-1.0]), np.array([2.0]), velocity, acceleration, jerk)

    def place(self, q: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the place of positions and the speed of velocities [J] along the line, [1]."""
        along = self._way / max(float(self._way @ self._way), SHORTEST ** 2)
        return np.array([(q - self._begin) @ along]), np.array([v @ along])

    def joints(self, place: np.ndarray, speed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return positions and velocities [J] of a place and a speed, [1] each."""
        return self._begin + place[0] * self._way, speed[0] * self._way
