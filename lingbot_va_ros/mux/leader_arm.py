"""A leader arm: a joint map turns its joint states into a goal for the robot's joints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import math

import numpy as np

from lingbot_va_ros.motion.time import NANOSECONDS, to_nanoseconds
from lingbot_va_ros.mux.command_source import CommandSource
from lingbot_va_ros.mux.goal import even_goal, Goal
from lingbot_va_ros.mux.validation import check_stamp, NOT_NEWER, Rejected
from lingbot_va_ros.specs.embodiment import Embodiment

# A leader's motion is smoothed over this time, s: encoders are coarse, and hands tremble.
SMOOTHING = 0.06
# Motions smaller than this share of a joint's range are noise: they change no goal.
PLAY = 0.0005
# Between two messages the goal goes on at the smoothed velocity for no longer than this, s.
LONGEST_LEAD = 0.05


@dataclass(frozen=True)
class LeaderJoint:
    """
    Maps one joint of the leader to one joint of the robot.

    The robot's position is sign * scale * (the leader's) + offset; rad, or m for prismatic joints.
    With an empty `joint` nothing moves the robot's joint: it keeps its last command.
    """

    joint: str
    scale: float = 1.0
    offset: float = 0.0
    sign: int = 1


class LeaderArm(CommandSource):
    """
    A command source that merges a leader's joint states, each joint with an age of its own.

    :param joint_map: by joint of the robot; a joint that it lacks is moved by its own name.
    :param timeout: seconds after which a joint's last position counts no longer.
    :param max_jump: seconds; between two messages a leader moves no further than the robot's joint
        at its velocity limit in the time between them plus this.
    """

    # It stays behind the ramp, which takes the noise out of it.
    is_followed_exactly = False

    def __init__(
        self, embodiment: Embodiment, joint_map: Mapping[str, LeaderJoint], timeout: float,
        max_jump: float,
    ) -> None:
        super().__init__('teleop/joint_states', timeout)
        self._limits = embodiment.limits
        self._max_jump = max_jump
        joints = [joint_map.get(name, LeaderJoint(name)) for name in embodiment.joints]
        self._columns: dict[str, list[int]] = {}
        for column, joint in enumerate(joints):
            if joint.joint:
                self._columns.setdefault(joint.joint, []).append(column)
        self._names = tuple(
            joint.joint or name for joint, name in zip(joints, embodiment.joints, strict=True))
        self._is_led = np.array([bool(joint.joint) for joint in joints])
        self._gain = np.array([joint.sign * joint.scale for joint in joints])
        self._offset = np.array([joint.offset for joint in joints])
        count = len(joints)
        self._start = np.zeros(count)
        self._raw_goal = np.zeros(count)  # of the newest message
        self._q, self._v = np.zeros(count), np.zeros(count)  # smoothed
        # Smoothed and behind the play; and whether a joint moves, not only within its play.
        self._goal, self._is_moving = np.zeros(count), np.zeros(count, dtype=bool)
        self._received = np.full(count, -math.inf)
        self._stamps = np.full(count, -1, dtype=np.int64)
        self._unknown_names = ''

    def forget(self) -> None:
        self._received[:] = -math.inf
        self._stamps[:] = -1

    def update(
        self, names: Sequence[str], positions: Sequence[float], stamp_ns: int, now_ns: int,
        now_s: float,
    ) -> bool:
        """
        Take a joint state of the leader, whole or not at all.

        :returns: whether it has a joint that leads one of the robot's.
        :raises Rejected: kinds lengths, not_finite, future, stale, not_newer, jump.
        """
        known = [index for index, name in enumerate(names) if name in self._columns]
        if not known:  # another publisher's joints, or a joint map that does not fit
            self._unknown_names = ', '.join(names)
            return False
        if len(positions) != len(names):
            raise Rejected('lengths', f'{len(names)} names and {len(positions)} positions')
        if not np.all(np.isfinite([positions[index] for index in known])):
            wrong = next(i for i in known if not math.isfinite(positions[i]))
            raise Rejected('not_finite', f"position of '{names[wrong]}' is not a finite number")
        check_stamp(stamp_ns, now_ns, to_nanoseconds(self.timeout))
        columns = np.array([c for i in known for c in self._columns[names[i]]])
        values = np.array([positions[i] for i in known for _ in self._columns[names[i]]])
        goal = self._gain[columns] * values + self._offset[columns]
        if np.any(stamp_ns <= self._stamps[columns]):
            raise Rejected('not_newer', NOT_NEWER)
        is_fresh = now_s - self._received[columns] <= self.timeout
        seconds = (stamp_ns - self._stamps[columns]) / NANOSECONDS
        self._check_jump(columns, goal, seconds, is_fresh)
        self._smooth(columns, goal, seconds, is_fresh)
        self._raw_goal[columns] = goal
        self._stamps[columns] = stamp_ns
        self._received[columns] = now_s
        self.counts.count_accepted()
        return True

    def _check_jump(
        self, columns: np.ndarray, goal: np.ndarray, seconds: np.ndarray, is_fresh: np.ndarray,
    ) -> None:
        allowed = self._limits.velocity[columns] * (seconds + self._max_jump)
        excess = np.where(is_fresh, np.abs(goal - self._raw_goal[columns]) - allowed, 0.0)
        if np.any(excess > 0):
            worst = int(np.argmax(excess / self._limits.velocity[columns]))
            before = self._raw_goal[columns[worst]]
            raise Rejected(
                'jump', f"'{self._names[columns[worst]]}' would lead from "
                f'{before:.4g} to {goal[worst]:.4g}; {allowed[worst]:.3g} is '
                'possible in that time')

    def _smooth(
        self, columns: np.ndarray, goal: np.ndarray, seconds: np.ndarray, is_fresh: np.ndarray,
    ) -> None:
        # A g-h filter, critically damped (fading memory): no lag behind an even motion.
        fading = np.where(is_fresh, np.exp(-seconds / SMOOTHING), 0.0)
        expected = np.where(is_fresh, self._q[columns] + self._v[columns] * seconds, goal)
        miss = goal - expected
        self._q[columns] = expected + (1.0 - fading ** 2) * miss
        self._v[columns] = np.where(
            is_fresh, self._v[columns] + (1.0 - fading) ** 2 * miss / seconds, 0.0)
        # As a gear with play: at rest nothing moves, in motion it is that much behind.
        play = PLAY * (self._limits.upper - self._limits.lower)[columns]
        smooth = self._q[columns]
        self._goal[columns] = np.where(
            is_fresh, np.clip(self._goal[columns], smooth - play, smooth + play), goal)
        self._is_moving[columns] = np.abs(smooth - self._goal[columns]) >= 0.99 * play

    def age(self, now_s: float) -> float:
        """Return the age of the oldest joint that leads, s; inf where one never came."""
        if not np.any(self._is_led):
            return math.inf
        return now_s - float(np.min(self._received[self._is_led]))

    def missing(self, now_ns: int, now_s: float, arm: np.ndarray | None) -> list[str]:
        """Return which of the leader's joints are too old; a leader may be anywhere."""
        if self.is_fresh(now_s):
            return []
        why = f' ({self.counts.explanation})' if self.counts.explanation else ''
        if not np.any(np.isfinite(self._received)):
            seen = f'; seen were {self._unknown_names}' if self._unknown_names else ''
            return [f'{self.name} (no acceptable message received{seen}){why}']
        old = self._is_led & (now_s - self._received > self.timeout)
        names = ', '.join(name for name, is_old in zip(self._names, old, strict=True) if is_old)
        return [f'fresh {self.name} of {names}{why}']

    def begin(self, start: np.ndarray) -> None:
        self._start = start

    def goal(self, tick_ns: int, next_ns: int, speed: float) -> Goal:
        """
        Return the goal of the next tick, inside the position limits.

        Between two messages it goes on at the smoothed velocity, for LONGEST_LEAD at most. It is
        as fast as the leader: the approach keeps the arm to the speed.
        """
        lead = np.clip((next_ns - self._stamps) / NANOSECONDS, 0.0, LONGEST_LEAD)
        v = np.where(self._is_led & self._is_moving, self._v, 0.0)
        q = np.where(self._is_led, self._goal + v * lead, self._start)
        inside = np.clip(q, self._limits.lower, self._limits.upper)
        return even_goal(inside, np.where(q == inside, v, 0.0))

    def position(self, time_ns: int) -> np.ndarray:
        """Return the goal's positions [J] as last received; 0 where nothing leads."""
        return np.where(self._is_led, self._raw_goal, 0.0)
