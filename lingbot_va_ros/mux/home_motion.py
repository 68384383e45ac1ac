"""The motion of go_home: leads the arm to the embodiment's home and rests there."""

import numpy as np

from lingbot_va_ros.motion.plan import Plan
from lingbot_va_ros.mux.chase import ACCELERATION_SHARE, Chase
from lingbot_va_ros.mux.command_stream import CommandStream
from lingbot_va_ros.mux.curve import end_state
from lingbot_va_ros.mux.goal import even_goal, Goal, JERK_SHARE
from lingbot_va_ros.specs.embodiment import JointLimits

# The motion is over when the command is this near (rad, m; per s) to its end.
HOME_TOLERANCE = 1e-7
# A joint slower than this, per s and s², is at rest; a way shorter than this (rad, m) is none.
STILL, SHORTEST = 1e-6, 1e-6


class HomeMotion:
    """
    The way to rest at home: on a straight line where it begins at rest.

    :param home: positions [J]; those outside the limits are brought inside.
    :param stream: takes the commands.
    :param share: of the velocity and acceleration limits, 0 … 1.
    :param period: seconds from tick to tick.
    """

    def __init__(
        self, home: np.ndarray, stream: CommandStream, limits: JointLimits, share: float,
        period: float,
    ) -> None:
        # Positions [J] where the motion ends.
        self.end = np.clip(home, limits.lower, limits.upper)
        self._stream = stream
        self._limits = limits
        self._share = share
        self._period = period
        self._speed = 1.0
        self._line: _Line | None = None
        self._begins = False

    def limit_speed(self, share: float) -> None:
        """Keep to a further share of the velocity limits, 0 … 1."""
        self._speed = share

    def begin(self) -> None:
        """Begin the motion."""
        self._line, self._begins = None, True

    def step(self, tick_ns: int) -> Plan:
        """Return the command of a tick."""
        return self._stream.follow(tick_ns, self._desired)

    def _desired(self, step_ns: int) -> tuple[Goal, float]:
        if self._begins:
            self._begins = False
            q, v = self._stream.state(step_ns)
            if np.all(np.abs((v, self._stream.acceleration(step_ns))) <= STILL):
                self._line = _Line(q, self.end, self._limits, self._period)
        if self._line is None:
            return even_goal(self.end), self._share
        return self._line.next_goal(self._share, self._speed), 1.0

    def is_at_home(self, time_ns: int) -> bool:
        """Return whether the command rests at home at a time."""
        q, v = self._stream.state(time_ns)
        return bool(
            np.all(np.abs(q - self.end) < HOME_TOLERANCE)
            and np.all(np.abs(v) < HOME_TOLERANCE))


class _Line:
    """
    The straight way between two positions [J]: place 0 is its begin, place 1 its end.

    The limits of the place are those of the joint that they hold back most, and shares of them
    with which the limit filter follows exactly.
    """

    def __init__(
        self, begin: np.ndarray, end: np.ndarray, limits: JointLimits, period: float) -> None:
        self._begin = begin
        self._way = end - begin
        self._period = period
        length = np.maximum(np.abs(self._way), SHORTEST)
        velocity, acceleration, jerk = (
            np.array([float(np.min(each / length))])
            for each in (limits.velocity, limits.acceleration, JERK_SHARE * limits.jerk))
        self._chase = Chase(JointLimits(
            np.array([-1.0]), np.array([2.0]), velocity, acceleration, jerk), period)
        self._state = (np.zeros(1), np.zeros(1), np.zeros(1))

    def next_goal(self, share: float, speed: float) -> Goal:
        """
        Move on by one tick.

        :param share: of the velocity and acceleration limits, 0 … 1.
        :param speed: further share of the velocity limits alone.
        """
        a_before = self._state[2]
        self._state = end_state(self._chase.segment(
            *self._state, even_goal(np.ones(1)), min(share, ACCELERATION_SHARE), speed),
            self._period)
        place, speed_now, a = self._state
        return Goal(
            self._begin + place * self._way, speed_now * self._way, a * self._way,
            (a - a_before) / self._period * self._way)
