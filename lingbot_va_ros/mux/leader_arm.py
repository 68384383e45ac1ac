"""A leader arm: its joint states become a goal for the robot's joints, by a joint map."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import math

import numpy as np

from lingbot_va_ros.mux.validation import MAX_FUTURE_NS, Rejected
from lingbot_va_ros.specs.embodiment import Embodiment

# A leader's motion is smoothed over this time, s: encoders are coarse, and hands tremble.
SMOOTHING = 0.06
# Motions smaller than this share of a joint's range are noise: they lead nowhere.
PLAY = 0.0005
# Between its messages the goal goes on at that velocity for so long, s.
LONGEST_LEAD = 0.05


@dataclass(frozen=True)
class LeaderJoint:
    """
    Which joint of the leader moves a joint of the robot, and how.

    The robot's position is sign * scale * (the leader's) + offset; rad, or m for prismatic joints.
    `joint` empty: nothing moves it, it keeps its last command.
    """

    joint: str
    scale: float = 1.0
    offset: float = 0.0
    sign: int = 1


class LeaderArm:
    """
    Merge the leader's joint states by name, each joint with an age of its own.

    :param joint_map: {joint of the robot: LeaderJoint}; what it lacks is moved by its own name.
    :param timeout: s after which a joint's last position counts no longer.
    :param max_jump: s; between two messages a leader moves no further than the robot's joint at
        its velocity limit in the time between and this.
    """

    def __init__(
        self, embodiment: Embodiment, joint_map: Mapping[str, LeaderJoint], timeout: float,
        max_jump: float,
    ):
        self._limits = embodiment.limits
        self._timeout = timeout
        self._max_jump = max_jump
        joints = [joint_map.get(name, LeaderJoint(name)) for name in embodiment.joints]
        self._columns: dict[str, list[int]] = {}
        for column, joint in enumerate(joints):
            if joint.joint:
                self._columns.setdefault(joint.joint, []).append(column)
        self._names = tuple(joint.joint or name for joint, name in zip(joints, embodiment.joints))
        self.led = np.array([bool(joint.joint) for joint in joints])
        self._gain = np.array([joint.sign * joint.scale for joint in joints])
        self._offset = np.array([joint.offset for joint in joints])
        count = len(joints)
        # As heard, and smoothed with a velocity.
        self._heard_goal = np.zeros(count)
        self._q, self._v = np.zeros(count), np.zeros(count)
        self._led_to, self._moving = np.zeros(count), np.zeros(count, dtype=bool)
        self._heard = np.full(count, -math.inf)
        self._stamps = np.full(count, -1, dtype=np.int64)
        self._foreign = ''

    def forget(self) -> None:
        """Forget all that was heard, after a clock jump."""
        self._heard[:] = -math.inf
        self._stamps[:] = -1

    def take(
        self, names: Sequence[str], positions: Sequence[float], stamp_ns: int, now_ns: int,
        now_s: float,
    ) -> bool:
        """
        Take a joint state of the leader, whole or not at all; returns whether it is news.

        :raises Rejected: kinds lengths, not_finite, future, stale, not_newer, jump.
        """
        known = [index for index, name in enumerate(names) if name in self._columns]
        if not known:  # another publisher's joints, or a joint map that does not fit
            self._foreign = ', '.join(names)
            return False
        if len(positions) != len(names):
            raise Rejected('lengths', f'{len(names)} names and {len(positions)} positions')
        if not np.all(np.isfinite([positions[index] for index in known])):
            wrong = next(i for i in known if not math.isfinite(positions[i]))
            raise Rejected('not_finite', f"position of '{names[wrong]}' is not a finite number")
        age = (now_ns - stamp_ns) * 1e-9
        if stamp_ns - now_ns > MAX_FUTURE_NS:
            raise Rejected(
                'future', f'stamped {-age:.3f} s in the future: the clocks are not synchronised')
        if age > self._timeout:
            raise Rejected('stale', f'stamped {age:.3f} s ago, more than {self._timeout:g} s')
        columns = np.array([c for i in known for c in self._columns[names[i]]])
        values = np.array([positions[i] for i in known for _ in self._columns[names[i]]])
        goal = self._gain[columns] * values + self._offset[columns]
        if np.any(stamp_ns <= self._stamps[columns]):
            raise Rejected('not_newer', 'its stamp is not newer than the last one')
        heard_before = now_s - self._heard[columns] <= self._timeout
        seconds = (stamp_ns - self._stamps[columns]) * 1e-9
        self._check_jump(columns, goal, seconds, heard_before)
        # A g-h filter, critically damped (fading memory): no lag behind an even motion.
        fading = np.where(heard_before, np.exp(-seconds / SMOOTHING), 0.0)
        expected = np.where(
            heard_before, self._q[columns] + self._v[columns] * seconds, goal)
        miss = goal - expected
        self._q[columns] = expected + (1.0 - fading ** 2) * miss
        self._v[columns] = np.where(
            heard_before, self._v[columns] + (1.0 - fading) ** 2 * miss / seconds, 0.0)
        # As a gear with play: at rest nothing moves, in motion it is that much behind.
        play = PLAY * (self._limits.upper - self._limits.lower)[columns]
        smooth = self._q[columns]
        self._led_to[columns] = np.where(heard_before, np.clip(
            self._led_to[columns], smooth - play, smooth + play), goal)
        self._moving[columns] = np.abs(smooth - self._led_to[columns]) >= 0.99 * play
        self._heard_goal[columns] = goal
        self._stamps[columns] = stamp_ns
        self._heard[columns] = now_s
        return True

    def _check_jump(self, columns, goal, seconds, heard_before) -> None:
        allowed = self._limits.velocity[columns] * (seconds + self._max_jump)
        excess = np.where(heard_before, np.abs(goal - self._heard_goal[columns]) - allowed, 0.0)
        if np.any(excess > 0):
            worst = int(np.argmax(excess / self._limits.velocity[columns]))
            before = self._heard_goal[columns[worst]]
            raise Rejected(
                'jump', f"'{self._names[columns[worst]]}' would lead from "
                f'{before:.4g} to {goal[worst]:.4g}; {allowed[worst]:.3g} is '
                'possible in that time')

    def age(self, now_s: float) -> float:
        """Return the age of the oldest of the joints that lead, s; inf where one never came."""
        return now_s - float(np.min(self._heard[self.led])) if np.any(self.led) else math.inf

    def missing(self, now_s: float, timeout: float) -> str | None:
        """Return in words which of the leader's joints are older than `timeout` s, or None."""
        old = self.led & (now_s - self._heard > timeout)
        if not np.any(old) and np.any(self.led):
            return None
        if not np.any(np.isfinite(self._heard)):
            seen = f'; seen were {self._foreign}' if self._foreign else ''
            return f'teleop/joint_states (no acceptable message received{seen})'
        names = ', '.join(name for name, is_old in zip(self._names, old) if is_old)
        return f'fresh teleop/joint_states of {names}'

    def goal(self, time_ns: int, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Return the positions and velocities [J] to be at a time, inside the position limits.

        :param keep: positions [J] of the joints that nothing leads.
        """
        lead = np.clip((time_ns - self._stamps) * 1e-9, 0.0, LONGEST_LEAD)
        v = np.where(self.led & self._moving, self._v, 0.0)
        q = np.where(self.led, self._led_to + v * lead, keep)
        inside = np.clip(q, self._limits.lower, self._limits.upper)
        return inside, np.where(q == inside, v, 0.0)

    @property
    def position(self) -> np.ndarray:
        """The goal's positions [J] as last heard; 0 where nothing leads."""
        return np.where(self.led, self._heard_goal, 0.0)
