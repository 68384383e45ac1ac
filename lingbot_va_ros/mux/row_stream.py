"""
The rows of controllers that take no trajectories: one position or velocity a joint and tick.

Such a controller has no braking tail. Between two rows its driver holds the last position, or goes
on at the last velocity, so the rows of a stop have to be sent one by one until the arm rests.
"""

import numpy as np

from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.mux.command_stream import CommandStream
from lingbot_va_ros.mux.report import Row
from lingbot_va_ros.specs.controllers import POSITION_ROWS, VELOCITY_ROWS
from lingbot_va_ros.specs.embodiment import Embodiment

# After the arm has come to rest its row is repeated so often: a reader may have lost the last one.
REST_ROWS = 10
# After a longer time without a row, in periods, a driver has come to rest at its last position:
# the next motion of its joints begins there. Up to it the rows go on along the motion.
LONGEST_GAP = 5


class RowStream:
    """
    Gives the row of each tick, from the begin of a motion until the arm rests.

    `has_rate` [J] says which joints are driven by velocities.

    :param stream: the commands whose motion the rows follow.
    :param period_ns: from tick to tick.
    """

    def __init__(self, embodiment: Embodiment, stream: CommandStream, period_ns: int) -> None:
        gains = {
            name: controller.gain for controller in embodiment.controllers
            if controller.kind in VELOCITY_ROWS for name in controller.joints}
        positions = [
            name for controller in embodiment.controllers if controller.kind in POSITION_ROWS
            for name in controller.joints]
        self._stream = stream
        self._limits = embodiment.limits
        self._period_ns = period_ns
        self._has_position = np.isin(embodiment.joints, positions)
        self.has_rate = np.isin(embodiment.joints, list(gains))
        self._gains = np.array([gains.get(name, 0.0) for name in embodiment.joints])
        self._is_used = bool(gains or positions)
        self._begins = -1  # `stream.begins` at the last row
        self._last: Row | None = None
        self._last_s = 0.0  # when the last row was given
        self._rates = np.zeros(len(embodiment.joints))
        self._rest_rows = 0

    def forget(self) -> None:
        """Begin anew on another clock: the times of the rows before say nothing."""
        self._last = None

    def resume(self, tick_ns: int) -> None:
        """Let joints rest that got no row for too long; called before a tick reads the stream."""
        last = self._last
        if last is None or not self._has_position.any() or self._begins != self._stream.begins:
            return
        if tick_ns - last.time_ns > LONGEST_GAP * self._period_ns:
            # Up to this time the executed points are published already.
            self._stream.hold(self._has_position, last.time_ns + self._period_ns)

    def row(
        self, tick_ns: int, now_s: float, is_commanded: bool, lag: np.ndarray, share: float,
    ) -> Row | None:
        """
        Return the row of a tick, or None: there is nothing to send.

        :param now_s: the watchdogs' clock.
        :param is_commanded: whether this tick has a command; a stop has one at its begin alone.
        :param lag: positions [J] that the measured joints are behind their commands.
        :param share: of the velocity limits that holds now, 0 … 1.
        """
        if not self._is_used or not self._stream.started:
            return None
        rests = self._stream.rests(tick_ns)
        if is_commanded or not rests:
            self._rest_rows = REST_ROWS
        elif self._rest_rows <= 0:
            return None
        period = self._period_ns / NANOSECONDS
        seconds = period if self._last is None else max(period, now_s - self._last_s)
        q, v = self._stream.state(tick_ns)
        self._rates = self._next_rates(v, rests, lag, share, seconds)
        if rests and not is_commanded and not self._rates.any():
            self._rest_rows -= 1
        row = Row(tick_ns, self._near(q, seconds), np.where(rests, 0.0, v), self._rates)
        self._last, self._last_s, self._begins = row, now_s, self._stream.begins
        return row

    def _near(self, q: np.ndarray, seconds: float) -> np.ndarray:
        """
        Return positions [J] no further from the last row than the joints may go in the time.

        A tick that comes late and the one after a skipped tick may follow each other more quickly
        than the motion that lies between them allows.
        """
        if self._last is None or self._begins != self._stream.begins:
            return q
        way = np.where(self._has_position, q - self._last.positions, 0.0)
        excess = float(np.max(np.abs(way) / (self._limits.velocity * seconds)))
        return q if excess <= 1.0 else self._last.positions + way / excess

    def _next_rates(
        self, v: np.ndarray, rests: bool, lag: np.ndarray, share: float, seconds: float,
    ) -> np.ndarray:
        """Return the velocities [J] to drive with, inside the limits; see `row`."""
        limits = self._limits
        most = np.maximum(np.abs(v), share * limits.velocity)
        wanted = np.clip(v + self._gains * lag, -most, most)
        wanted = np.where(self.has_rate & (not rests), wanted, 0.0)
        change = limits.acceleration * seconds
        return np.clip(wanted, self._rates - change, self._rates + change)
