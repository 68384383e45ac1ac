"""A leader arm: a joint map turns its joint states into a goal for the robot's joints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import math

import numpy as np

from lingbot_va_ros.motion.time import to_nanoseconds
from lingbot_va_ros.mux.command_source import CommandSource
from lingbot_va_ros.mux.goal import even_goal, Goal
from lingbot_va_ros.mux.smoothed_goal import furthest, SmoothedGoal
from lingbot_va_ros.mux.validation import check_stamp, NOT_NEWER, Rejected
from lingbot_va_ros.specs.embodiment import Embodiment


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
    :param max_jump: seconds; see `SmoothedGoal`.
    :param max_distance: rad or m; a leader that is further from where the arm is does not move it.
    :param may_be_far: [J] bool: joints for which that does not count, such as grippers.
    :param is_relative: the arm moves as far as the leader does from where both were, in place of
        going to where the leader is.
    """

    # It stays behind the ramp, which takes the noise out of it.
    is_followed_exactly = False

    def __init__(
        self, embodiment: Embodiment, joint_map: Mapping[str, LeaderJoint], timeout: float,
        max_jump: float, max_distance: float = math.inf, may_be_far: np.ndarray | None = None,
        is_relative: bool = False,
    ) -> None:
        super().__init__('teleop/joint_states', timeout)
        self._limits = embodiment.limits
        self._max_distance = max_distance
        self.is_relative = is_relative
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
        self._counts = self._is_led.copy()
        if may_be_far is not None:
            self._counts &= ~may_be_far
        self._start = np.zeros(count)
        self._arm: np.ndarray | None = None  # the last command while it follows
        self._goal = SmoothedGoal(embodiment.limits, self._names, max_jump)
        # What is added to the leader's goal; where the arm stays while the clutch is released.
        self._shift = np.zeros(count)
        self._held: np.ndarray | None = None
        self._received = np.full(count, -math.inf)
        self._unknown_names = ''

    def forget(self) -> None:
        self._received[:] = -math.inf
        self._goal.forget()
        self._arm = None

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
        if np.any(stamp_ns <= self._goal.stamps[columns]):
            raise Rejected('not_newer', NOT_NEWER)
        self._goal.take(
            columns, goal, stamp_ns, now_s - self._received[columns] <= self.timeout)
        self._received[columns] = now_s
        self.counts.count_accepted()
        return True

    def age(self, now_s: float) -> float:
        """Return the age of the oldest joint that leads, s; inf where one never came."""
        if not np.any(self._is_led):
            return math.inf
        return now_s - float(np.min(self._received[self._is_led]))

    def missing(self, now_ns: int, now_s: float, arm: np.ndarray | None) -> list[str]:
        """Return which of the leader's joints are too old, or that it is too far from the arm."""
        why = f' ({self.counts.explanation})' if self.counts.explanation else ''
        if self.is_fresh(now_s):
            if arm is None or self.is_relative:
                return []
            far = self._too_far(arm)
            return [f'{self.name} near the arm: {far}'] if far else []
        if not np.any(np.isfinite(self._received)):
            seen = f'; seen were {self._unknown_names}' if self._unknown_names else ''
            return [f'{self.name} (no acceptable message received{seen}){why}']
        old = self._is_led & (now_s - self._received > self.timeout)
        names = ', '.join(name for name, is_old in zip(self._names, old, strict=True) if is_old)
        return [f'fresh {self.name} of {names}{why}']

    def lost(self, now_s: float, margin: float = 0.0) -> str:
        """Return in one line that the leader is silent or too far ahead, or an empty text."""
        lost = super().lost(now_s, margin)
        if lost or self._arm is None or self._held is not None:
            return lost
        far = self._too_far(self._arm)
        return f'{self.name}: {far}' if far else ''

    def _too_far(self, arm: np.ndarray) -> str:
        goal = np.clip(
            self._goal.newest + self._shift, self._limits.lower, self._limits.upper)
        return furthest(goal, arm, self._counts, self._names, self._max_distance)

    def begin(self, start: np.ndarray) -> None:
        self._start = self._arm = np.array(start)
        if self.is_relative:
            if self._held is not None:
                self._held = self._start
            self._shift = np.where(self._counts, self._start - self._goal.newest, 0.0)

    def observe(self, q: np.ndarray, v: np.ndarray) -> None:
        self._arm = q

    def engage(self, is_engaged: bool) -> None:
        """
        Close or release the clutch of a leader that is followed relatively.

        While it is released the leader moves nothing; when it is closed the arm goes on from
        where it is.
        """
        if not self.is_relative:
            return
        if not is_engaged and self._held is None:
            self._held = self._start if self._arm is None else self._arm
        elif is_engaged and self._held is not None:
            self._shift = np.where(self._counts, self._held - self._goal.newest, 0.0)
            self._goal.rest_at(self._goal.newest.copy(), int(self._goal.stamps.max()))
            self._held = None

    def goal(self, tick_ns: int, next_ns: int, speed: float) -> Goal:
        """
        Return the goal of the next tick, inside the position limits.

        Between two messages it goes on at the smoothed velocity. It is as fast as the leader: the
        approach keeps the arm to the speed.
        """
        if self._held is not None:
            return even_goal(self._held)
        led, led_v = self._goal.at(next_ns)
        q = np.where(self._is_led, led + self._shift, self._start)
        inside = np.clip(q, self._limits.lower, self._limits.upper)
        return even_goal(inside, np.where((q == inside) & self._is_led, led_v, 0.0))

    def position(self, time_ns: int) -> np.ndarray:
        """Return the leader's positions [J] as last received; 0 where nothing leads."""
        return np.where(self._is_led, self._goal.newest, 0.0)
