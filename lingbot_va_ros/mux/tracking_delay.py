"""The tracking delay: the time by which the measured motion trails the commanded one."""

import math

import numpy as np

from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.mux.command_history import CommandHistory

# The estimate forgets with this time constant, s of measurements.
MEMORY = 0.6
# A measurement counts for the time since the one before it, at most this, s.
LONGEST_GAP = 0.1
# Measurements nearer to each other than this, ns, are taken as one.
SHORTEST_INTERVAL_NS = 8_000_000
# What an estimate needs: so many seconds of measurements, in which the speed of a joint varied by
# this share of its velocity limit.
LEAST_SECONDS, LEAST_SPEED = 0.3, 0.02
# A joint whose speed varied by less than this share of the one that varied most says nothing.
LEAST_SHARE = 0.5
# An estimate must be above its limit for so long, s, before the arm holds.
LASTING_NS = 300_000_000


class TrackingDelay:
    """
    Estimates the tracking delay of a moving arm from its joint states.

    A joint that trails its command by a time is behind by that time multiplied by its speed.
    So the delay is the slope of the position error over the commanded speed, a least-squares fit
    over the last moments. A constant error, as of a joint that sags, does not count. The delay of
    the arm is that of the joint that trails least: commands that are late make all joints trail,
    an obstacle one or some.

    :param velocities: limits of the joints, [J], rad/s or m/s.
    :param is_watched: [J] bool. A gripper that holds an object does not follow its command.
    :param period_ns: of the commands.
    :param limit: s; see `is_beyond_limit`.
    """

    def __init__(
        self, velocities: np.ndarray, is_watched: np.ndarray, period_ns: int, limit: float,
    ) -> None:
        self.seconds = math.nan  # the estimate; nan: the arm has not moved enough for one
        self._velocities = velocities
        self._is_watched = is_watched
        self._period_ns = period_ns
        self._limit = limit
        self.restart()

    def restart(self) -> None:
        """Begin anew with an arm at rest; the last estimate stays until there is another."""
        count = len(self._velocities)
        self._times_ns = np.zeros(count, dtype=np.int64)  # of the last measurements
        self._since_ns: int | None = None  # when the estimate rose above the limit
        self._newest_ns = 0
        # Of each joint, weighted: seconds, mean error and speed, and their sums of products.
        self._weight, self._error, self._speed = np.zeros((3, count))
        self._products, self._squares = np.zeros((2, count))

    def update(
        self, measured: np.ndarray, times_ns: np.ndarray, commands: CommandHistory) -> None:
        """
        Take measured positions; those that were taken before do not count again.

        :param measured: [J], rad or m.
        :param times_ns: [J] int64, ROS time at which each was measured.
        """
        is_new = self._is_watched & (times_ns - self._times_ns >= SHORTEST_INTERVAL_NS)
        if not is_new.any():
            return
        commanded = commands.at(times_ns)
        speed = (commanded - commands.at(times_ns - self._period_ns)) * (
            NANOSECONDS / self._period_ns)
        gap = np.minimum((times_ns - self._times_ns) / NANOSECONDS, LONGEST_GAP)
        self._add(commanded - measured, speed, np.where(is_new, gap, 0.0))
        self._times_ns = np.where(is_new, times_ns, self._times_ns)
        self._newest_ns = max(self._newest_ns, int(self._times_ns.max()))
        seconds = self._estimate()
        if seconds is None:
            return
        self.seconds = seconds
        if not seconds > self._limit:
            self._since_ns = None
        elif self._since_ns is None:
            self._since_ns = self._newest_ns

    @property
    def is_beyond_limit(self) -> bool:
        """Whether the arm has trailed by more than the limit for a while."""
        return self._since_ns is not None and self._newest_ns - self._since_ns >= LASTING_NS

    def _add(self, error: np.ndarray, speed: np.ndarray, seconds: np.ndarray) -> None:
        """Add weighted samples [J] to the means and to the sums of products around them."""
        kept = np.exp(-seconds / MEMORY)
        before = kept * self._weight
        self._weight = before + seconds
        share = seconds / np.maximum(self._weight, 1e-9)
        error_off, speed_off = error - self._error, speed - self._speed
        self._error = self._error + share * error_off
        self._speed = self._speed + share * speed_off
        self._products = kept * self._products + before * share * error_off * speed_off
        self._squares = kept * self._squares + before * share * speed_off ** 2

    def _estimate(self) -> float | None:
        weight = np.maximum(self._weight, 1e-9)
        varied = np.sqrt(self._squares / weight) / self._velocities
        varied[self._weight < LEAST_SECONDS] = 0.0
        least = max(LEAST_SPEED, LEAST_SHARE * varied.max())
        is_moving = varied >= least
        if not is_moving.any():
            return None
        return float((self._products[is_moving] / self._squares[is_moving]).min())
