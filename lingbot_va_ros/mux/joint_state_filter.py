"""Filters measured joint states: keeps the newest plausible measurement of each joint."""

from collections.abc import Sequence
import math

import numpy as np

from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.specs.embodiment import JointLimits

# A position further outside the limits than this share of the joint's range is implausible: wrong
# units, or a corrupt message.
IMPLAUSIBLE_SHARE = 0.25
# A position is an outlier when it is further from the last one than OUTLIER_DISTANCE (rad, m) plus
# OUTLIER_SPEED times the way at the velocity limit. So many messages in a row that agree on a
# place are believed.
OUTLIER_DISTANCE, OUTLIER_SPEED, OUTLIER_MESSAGES = 0.05, 4.0, 3
# Two stamps nearer than this, s, say nothing about a speed.
SHORTEST_INTERVAL = 1e-3


class JointStateFilter:
    """
    The newest plausible position and velocity of each joint, each joint with an age of its own.

    Joint states may come in parts, in any order, from several publishers. The filter drops a
    position whose stamp stands still, that is not finite, far outside the limits, or an outlier;
    the joint then stays as old as it was. Not thread-safe.

    :param joints: names, in the order of the arrays [J].
    :param limits: of these joints.
    :param timeout: seconds after which a joint counts as lost.
    """

    def __init__(self, joints: Sequence[str], limits: JointLimits, timeout: float) -> None:
        self.joints = tuple(joints)
        self.timeout = timeout
        self.positions = np.zeros(len(self.joints))  # rad, m
        self.velocities = np.zeros(len(self.joints))  # rad/s, m/s
        self._limits = limits
        self._columns = {name: column for column, name in enumerate(self.joints)}
        margin = IMPLAUSIBLE_SHARE * (limits.upper - limits.lower)
        self._lowest, self._highest = limits.lower - margin, limits.upper + margin
        self._received = np.full(len(self.joints), -math.inf)  # s, on the watchdogs' clock
        self._stamps = np.zeros(len(self.joints), dtype=np.int64)
        self._outlier = np.full(len(self.joints), np.inf)  # the position that was last rejected
        self._outlier_count = np.zeros(len(self.joints), dtype=int)
        self._implausible: dict[str, float] = {}  # the newest rejected position by joint

    def update(
        self, names: Sequence[str], positions: Sequence[float], velocities: Sequence[float],
        stamp_ns: int, now_s: float,
    ) -> None:
        """
        Take one joint state; joints of other robots are ignored.

        :param velocities: as many as there are, rad/s or m/s; 0 stands for what is missing.
        :param stamp_ns: ROS time; 0: the message has none.
        :param now_s: the watchdogs' clock.
        """
        for index, name in enumerate(names):
            column = self._columns.get(name)
            if column is None or index >= len(positions):
                continue
            position = positions[index]
            if not self._lowest[column] <= position <= self._highest[column]:
                self._implausible[name] = float(position)  # also not a number
                continue
            if stamp_ns and stamp_ns == self._stamps[column]:
                continue
            if self._is_outlier(column, position, stamp_ns, now_s):
                continue
            velocity = velocities[index] if index < len(velocities) else 0.0
            fastest = self._highest_speed(column, position, stamp_ns, now_s)
            self.positions[column] = position
            self.velocities[column] = (
                min(max(velocity, -fastest), fastest) if math.isfinite(velocity) else 0.0)
            self._stamps[column] = stamp_ns
            self._received[column] = now_s
            self._implausible.pop(name, None)

    def forget(self) -> None:
        """Count every joint as never received, after a clock jump."""
        self._received[:] = -math.inf
        self._stamps[:] = 0

    def age(self, now_s: float) -> float:
        """Return the age of the oldest joint in seconds; inf where one was never received."""
        return now_s - float(self._received.min())

    def is_fresh(self, now_s: float) -> bool:
        """Return whether every joint is younger than the timeout."""
        return not np.any(self._is_old(now_s))

    def missing(self, now_s: float) -> list[str]:
        """Return what a request for a motion lacks: at most one line, naming the old joints."""
        old = self._is_old(now_s)
        if not np.any(old):
            return []
        names = self._names(old)
        implausible = self._first_implausible(names)
        if implausible:
            return [f'sound joint_states: {implausible}']
        if len(names) == len(self.joints) and not np.any(np.isfinite(self._received)):
            return ['joint_states (none received)']
        age = now_s - self._received[old].min()
        text = f'{age:.2f} s old' if math.isfinite(age) else 'never received'
        return [f'fresh joint_states of {", ".join(names)} ({text})']

    def lost(self, now_s: float, margin: float = 0.0) -> str:
        """
        Return in one line which joints are lost, or an empty text.

        :param margin: seconds before the timeout at which a joint counts as lost already.
        """
        old = self._is_old(now_s, margin)
        if not np.any(old):
            return ''
        names = self._names(old)
        implausible = self._first_implausible(names)
        if implausible:
            return f'joint_states make no sense: {implausible}'
        return f'joint_states of {", ".join(names)} are too old'

    def _is_old(self, now_s: float, margin: float = 0.0) -> np.ndarray:
        return now_s - self._received > self.timeout - margin

    def _names(self, is_chosen: np.ndarray) -> list[str]:
        return [name for name, chosen in zip(self.joints, is_chosen, strict=True) if chosen]

    def _first_implausible(self, names: list[str]) -> str:
        for name in names:
            if name in self._implausible:
                column = self._columns[name]
                return (f"'{name}' is at {self._implausible[name]:.4g}, far outside its limits "
                        f'{self._limits.lower[column]:.4g} … {self._limits.upper[column]:.4g}')
        return ''

    def _seconds_since(self, column: int, stamp_ns: int, now_s: float) -> float:
        """Return the time since a joint's last measurement, by arrival or by stamp."""
        by_stamp = (stamp_ns - int(self._stamps[column])) / NANOSECONDS if stamp_ns else 0.0
        return max(now_s - float(self._received[column]), by_stamp)

    def _highest_speed(
        self, column: int, position: float, stamp_ns: int, now_s: float,
    ) -> float:
        """
        Return the highest speed that a joint's last two positions allow.

        It is twice the mean speed, which a joint has that started from rest between the two, plus
        what the joint can gain meanwhile. A stop from a higher, false velocity would move the arm.
        """
        seconds = self._seconds_since(column, stamp_ns, now_s)
        if not math.isfinite(seconds):  # the first measurement
            return math.inf
        mean = abs(position - float(self.positions[column])) / max(seconds, SHORTEST_INTERVAL)
        return 2 * mean + float(self._limits.acceleration[column]) * seconds

    def _is_outlier(self, column: int, position: float, stamp_ns: int, now_s: float) -> bool:
        """
        Tell whether a position is an outlier, as far as this message and the last ones show.

        It is none where the joint can have come to it, or where so many messages in a row agree
        (the arm was moved while no message came, or its encoders were set anew).
        """
        seconds = self._seconds_since(column, stamp_ns, now_s)
        reach = OUTLIER_DISTANCE + OUTLIER_SPEED * self._limits.velocity[column] * seconds
        if not abs(position - self.positions[column]) > reach:  # inf for the first measurement
            self._outlier_count[column] = 0
            return False
        if abs(position - self._outlier[column]) > OUTLIER_DISTANCE:
            self._outlier_count[column] = 0
        self._outlier[column] = position
        self._outlier_count[column] += 1
        return bool(self._outlier_count[column] < OUTLIER_MESSAGES)
