"""Filters measured joint states: the state of each joint on which several messages agree."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
import math

import numpy as np

from lingbot_va_ros.robot.joint_track import JointTrack, REFUSALS
from lingbot_va_ros.specs.embodiment import JointLimits
from lingbot_va_ros.specs.joint_state_topics import DEFAULT_TOPICS, JointStateTopic, topic_of_joint

# A position further outside the limits than this share of the joint's range is implausible: wrong
# units, or a corrupt message.
IMPLAUSIBLE_SHARE = 0.25
# So many names of other joints are shown where none of ours came.
STRANGERS_SHOWN = 4


@dataclass(frozen=True)
class JointStateReport:
    """
    Figures of a filter for diagnostics.

    :param age: of the oldest joint, s; inf where one was never received.
    :param refused: positions by kind of refusal, one of REFUSALS.
    :param last_refusal: one line; empty: none yet.
    :param contradictions: a line for each joint that two publishers seem to move.
    """

    age: float
    refused: dict[str, int]
    last_refusal: str
    contradictions: tuple[str, ...]


class JointStateFilter:
    """
    Position and velocity of each joint, each joint with an age of its own.

    Joint states may come in parts, in any order, from several publishers. A position is refused
    whose stamp is ahead of our clock, goes back or stands still, that is not finite, far outside
    the limits, or an outlier; the joint then stays as old as it was. A joint is known from its
    third message on, and no single message changes its state: see joint_track.py. The age is the
    larger of that by arrival and that by stamp. Not thread-safe.

    :param joints: names, in the order of the arrays [J].
    :param limits: of these joints.
    :param timeout: seconds after which a joint counts as lost.
    :param topics: some of which have a timeout of their own for their joints.
    """

    def __init__(
        self, joints: Sequence[str], limits: JointLimits, timeout: float,
        topics: Sequence[JointStateTopic] = DEFAULT_TOPICS,
    ) -> None:
        self.joints = tuple(joints)
        self.timeout = timeout
        # Seconds for each joint; None: `timeout`.
        self._own_timeouts = [topic_of_joint(topics, name).timeout for name in joints]
        timeouts = [timeout if own is None else own for own in self._own_timeouts]
        self.longest_timeout = max(timeouts, default=timeout)
        self.positions = np.zeros(len(self.joints))  # rad, m
        self.velocities = np.zeros(len(self.joints))  # rad/s, m/s
        # ROS time at which each position was measured, ns: its stamp, or else its arrival.
        self.times_ns = np.zeros(len(self.joints), dtype=np.int64)
        margin = IMPLAUSIBLE_SHARE * (limits.upper - limits.lower)
        self._limits = limits
        self._columns = {name: column for column, name in enumerate(self.joints)}
        self._tracks = [
            JointTrack(lowest, highest, velocity, acceleration, each)
            for lowest, highest, velocity, acceleration, each in zip(
                (limits.lower - margin).tolist(), (limits.upper + margin).tolist(),
                limits.velocity.tolist(), limits.acceleration.tolist(), timeouts, strict=True)]
        self._implausible: set[int] = set()  # columns whose newest position was implausible
        self._refused: Counter[str] = Counter()
        self._last_refusal = ''
        self._strangers = ''  # names in the first message that has no joint of ours

    def update(
        self, names: Sequence[str], positions: Sequence[float], velocities: Sequence[float],
        stamp_ns: int, now_ns: int, now_s: float,
    ) -> None:
        """
        Take one joint state; joints of other robots are ignored.

        :param velocities: as many as there are, rad/s or m/s; 0 stands for what is missing.
        :param stamp_ns: ROS time; 0: the message has none, and only its arrival counts.
        :param now_ns: ROS time now.
        :param now_s: the watchdogs' clock.
        """
        if not self._strangers and not any(name in self._columns for name in names):
            self._strangers = ', '.join(names[:STRANGERS_SHOWN])
        for index, name in enumerate(names):
            column = self._columns.get(name)
            if column is None or index >= len(positions):
                continue
            track = self._tracks[column]
            velocity = float(velocities[index]) if index < len(velocities) else 0.0
            kind = track.update(float(positions[index]), velocity, stamp_ns, now_ns, now_s)
            if kind:
                self._refused[kind] += 1
                self._last_refusal = f"'{name}' {track.refusal}"
            if kind == 'implausible':
                self._implausible.add(column)
            elif not kind:
                self._implausible.discard(column)
                self.positions[column] = track.position
                self.velocities[column] = track.velocity
                self.times_ns[column] = track.position_ns

    @property
    def is_known(self) -> bool:
        """Whether every joint has a state, of whatever age."""
        return all(track.is_agreed for track in self._tracks)

    def forget(self) -> None:
        """Count every joint as never received, after a clock jump."""
        for track in self._tracks:
            track.forget()

    def age(self, now_s: float) -> float:
        """Return the age of the oldest joint in seconds; inf where one was never received."""
        return now_s - min(track.measured_s for track in self._tracks)

    def is_fresh(self, now_s: float) -> bool:
        """Return whether every joint is known and younger than the timeout."""
        return not self._old(now_s)

    def is_disputed(self, now_s: float) -> bool:
        """Return whether messages told otherwise lately: no reason to lead the arm there."""
        return any(track.is_disputed(now_s) for track in self._tracks)

    def missing(self, now_s: float) -> list[str]:
        """Return what a request for a motion lacks: at most one line, naming the old joints."""
        old = self._old(now_s)
        if not old:
            return []
        if self._implausible & set(old):
            return [f'sound joint_states: {self._first_implausible(old)}']
        if len(old) == len(self.joints) and self._never_came(old):
            return [f'joint_states (none received{self._seen()})']
        return [f'fresh joint_states of {self._names(old)} ({self._why_old(old, now_s)})']

    def lost(self, now_s: float, margin: float = 0.0, timeout: float | None = None) -> str:
        """
        Return in one line which joints are lost, or an empty text.

        :param margin: seconds before the timeout at which a joint counts as lost already.
        :param timeout: of joints without one of their own; None: the filter's.
        """
        old = self._old(now_s, margin, timeout)
        if not old:
            return ''
        if self._implausible & set(old):
            return f'joint_states make no sense: {self._first_implausible(old)}'
        if self._never_came(old):
            return f'no joint_states of {self._names(old)} yet{self._seen()}'
        why = self._why_old(old, now_s, margin)
        return f'joint_states of {self._names(old)} are too old ({why})'

    def report(self, now_s: float) -> JointStateReport:
        """Return the figures of the filter."""
        return JointStateReport(
            self.age(now_s), {kind: self._refused[kind] for kind in REFUSALS},
            self._last_refusal,
            tuple(f"'{name}' is {track.contradiction}"
                  for name, track in zip(self.joints, self._tracks, strict=True)
                  if track.contradicts(now_s)))

    def _old(
        self, now_s: float, margin: float = 0.0, timeout: float | None = None) -> list[int]:
        """Return the columns of the joints that are not known or too old."""
        oldest = now_s + margin
        default = self.timeout if timeout is None else timeout
        return [
            column
            for column, (track, own) in enumerate(
                zip(self._tracks, self._own_timeouts, strict=True))
            if track.measured_s < oldest - (default if own is None else own)
            or not track.is_agreed]

    def _names(self, columns: list[int]) -> str:
        return ', '.join(self.joints[column] for column in columns)

    def _never_came(self, columns: list[int]) -> bool:
        tracks = [self._tracks[column] for column in columns]
        return all(math.isinf(track.measured_s) and not track.refusal for track in tracks)

    def _seen(self) -> str:
        return f'; seen were {self._strangers}' if self._strangers else ''

    def _first_implausible(self, columns: list[int]) -> str:
        column = next(column for column in columns if column in self._implausible)
        return (f"'{self.joints[column]}' {self._tracks[column].refusal} "
                f'{self._limits.lower[column]:.4g} … {self._limits.upper[column]:.4g}')

    def _why_old(self, columns: list[int], now_s: float, margin: float = 0.0) -> str:
        """Return why these joints are old: what is wrong with the oldest of them, and its age."""
        column = min(columns, key=lambda each: self._tracks[each].measured_s)
        track = self._tracks[column]
        age = now_s - track.measured_s
        if track.refusal:
            return f"'{self.joints[column]}' {track.refusal}"
        if math.isinf(age):
            return 'never received'
        if not track.is_agreed:
            return 'just come back'
        own = self._own_timeouts[column]
        if track.arrival_age(now_s) <= (self.timeout if own is None else own) - margin:
            return f'stamped {age:.2f} s ago: late, or the clocks are not synchronized'
        return f'{age:.2f} s old'
