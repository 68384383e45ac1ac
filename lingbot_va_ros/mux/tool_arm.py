"""One arm that an operator leads by its tool: with a velocity, or with the pose of a hand."""

from dataclasses import dataclass

import numpy as np
import pinocchio as pin

from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.mux.smoothed_goal import SmoothedGoal
from lingbot_va_ros.mux.tool_messages import ArmFrames
from lingbot_va_ros.mux.validation import Rejected
from lingbot_va_ros.robot.kinematics import Solution
from lingbot_va_ros.robot.poses import described, pose_of
from lingbot_va_ros.robot.tool_kinematics import ToolKinematics
from lingbot_va_ros.specs.embodiment import Arm, Embodiment, JointLimits

# Shares of the velocity and acceleration limits that a twist uses: the command follows it exactly.
SPEED_SHARE, ACCELERATION_SHARE = 0.9, 0.5
# A goal is never further ahead of the command than this, rad or m: where the command is held back,
# at the wall of the workspace or near an obstacle, the goal waits for it.
LEASH = 0.05
# Where less than this share of a twist is left, it is worth a word.
SLOW = 0.5


@dataclass(frozen=True)
class Anchor:
    """
    Where hand and tool were when they began to move together.

    :param number: counts the anchors of an arm.
    :param hand: pose [4, 4] in the base frame; None: no pose came yet.
    :param tool: the same, of the tool.
    :param joints: positions [n] of the arm there.
    """

    number: int
    hand: np.ndarray | None
    tool: np.ndarray
    joints: np.ndarray


@dataclass(frozen=True)
class FoundPose:
    """
    The joints for a hand's pose.

    :param anchor: number of the anchor that it was found with.
    :param target: pose [4, 4] that the tool is to have.
    :param joints: positions [n]; None: out of reach.
    :param reason: why, in one line.
    """

    anchor: int
    target: np.ndarray
    joints: np.ndarray | None
    reason: str = ''


class ToolArm:
    """
    The goal of one arm's joints [n], which a twist or a hand's pose moves on.

    Ticks and messages use it under one lock; only `find` does not need it.

    :param max_jump: seconds; see `SmoothedGoal`.
    :param is_relative: the tool moves as the hand does from where both were, in place of going to
        where the hand is.
    :param scales: factors [2] of the translations and rotations of hands.
    :param max_distance: m or rad from where the tool is; a hand that asks for more is rejected.
    :raises ValueError: see `ArmKinematics`.
    """

    def __init__(
        self, embodiment: Embodiment, arm: Arm, max_jump: float, is_relative: bool,
        scales: tuple[float, float], max_distance: float,
    ) -> None:
        self.side = arm.side
        self.columns = np.array([embodiment.joints.index(joint) for joint in arm.joints])
        limits = embodiment.limits
        self._limits = JointLimits(*(part[self.columns] for part in (
            limits.lower, limits.upper, limits.velocity, limits.acceleration, limits.jerk)))
        self._names = arm.joints
        self._kinematics = ToolKinematics(embodiment, arm)
        self.frames = ArmFrames(
            self._kinematics.base_frame, self._kinematics.tool_frame,
            self._kinematics.beside_base, self._kinematics.beside_tool)
        self._finder = ToolKinematics(embodiment, arm)  # `find` may run beside a tick
        self.is_relative, self._scales, self._max_distance = is_relative, scales, max_distance
        self._goal = SmoothedGoal(self._limits, arm.joints, max_jump)
        # The goal, and the command that follows it.
        self._q, self._v = np.zeros(len(arm.joints)), np.zeros(len(arm.joints))
        self._command = self._q
        self.hand: np.ndarray | None = None  # the newest pose of the hand
        self.anchor = Anchor(0, None, np.eye(4), self._q)
        self.note = ''  # what holds the arm back, in one line
        self._has_goal = False

    def begin(self, q: np.ndarray) -> None:
        """Rest at positions [J] of the robot, and let hand and tool move together from now on."""
        self._q, self._v = np.array(q[self.columns]), np.zeros(len(self.columns))
        self._command = self._q
        self.note = ''
        self._goal.forget()
        self._set_anchor()

    def engage(self) -> None:
        """Let hand and tool move together from where the tool's goal is."""
        self._goal.forget()
        self._set_anchor()

    def _set_anchor(self) -> None:
        self._has_goal = False
        self.anchor = Anchor(
            self.anchor.number + 1, self.hand, self._kinematics.forward(self._q), self._q.copy())

    # ---- a hand

    def find(self, hand: np.ndarray) -> FoundPose:
        """
        Return the joints with which the tool follows a hand at a pose [4, 4].

        :raises Rejected: kind distance.
        """
        anchor, seed = self.anchor, self._seed()
        target = self._target(anchor, hand)
        tool = self._finder.forward(self._command)
        away, turned = _apart(tool, target)
        if max(away, turned) > self._max_distance:
            raise Rejected(
                'distance', f'the {self.side} tool would go {away:.3f} m and turn {turned:.3f} '
                f'rad from where it is; teleop_max_distance is {self._max_distance:g}')
        found = self._finder.nearest(target, seed)
        if not found.reached:
            return FoundPose(
                anchor.number, target, None, f'{self._out_of_reach(target, found)}; it holds')
        return FoundPose(anchor.number, target, found.joints)

    def obstacle(self, q: np.ndarray) -> str:
        """Return in one line why the tool at positions [J] cannot go to its hand, or ''."""
        if self.is_relative or self.hand is None:
            return ''
        away, turned = _apart(self._kinematics.forward(q[self.columns]), self.hand)
        if max(away, turned) > self._max_distance:
            return (f'a hand near the {self.side} tool: it is {away:.3f} m away and turned by '
                    f'{turned:.3f} rad; teleop_max_distance is {self._max_distance:g}')
        found = self._kinematics.nearest(self.hand, q[self.columns])
        return '' if found.reached else (
            f'a hand in reach: {self._out_of_reach(self.hand, found)}')

    def _out_of_reach(self, target: np.ndarray, found: Solution) -> str:
        return (f'the {self.side} arm cannot reach the pose {described(target)}: '
                f'{found.translation_left:.3f} m and {found.rotation_left:.3f} rad are left')

    def _seed(self) -> np.ndarray:
        return np.array(self._goal.newest if self._has_goal else self._q)

    def _target(self, anchor: Anchor, hand: np.ndarray) -> np.ndarray:
        if not self.is_relative or anchor.hand is None:
            return np.array(anchor.tool if self.is_relative else hand)
        moved = hand[:3, 3] - anchor.hand[:3, 3]
        turned = pin.log3(hand[:3, :3] @ anchor.hand[:3, :3].T)
        target = np.array(pose_of(
            anchor.tool[:3, 3] + self._scales[0] * moved,
            pin.exp3(self._scales[1] * turned) @ anchor.tool[:3, :3]))
        return target

    def lead(self, found: FoundPose, stamp_ns: int) -> None:
        """
        Let the arm follow a hand; an outdated or unreachable pose changes nothing.

        :raises Rejected: kind jump.
        """
        if found.anchor != self.anchor.number:
            return
        if found.joints is None:
            self.note = found.reason
            return
        self.note = ''
        count = len(self.columns)
        if not self._has_goal and self.is_relative:
            self._goal.rest_at(self._q, stamp_ns - 1)
        columns = np.arange(count)
        is_fresh = np.full(count, self._has_goal or self.is_relative)
        self._goal.take(columns, found.joints, stamp_ns, is_fresh)
        self._has_goal = True

    # ---- ticks

    def observe(self, q: np.ndarray, v: np.ndarray) -> None:
        """Take the commanded state [J] of the robot: the goal stays near it."""
        q, v = q[self.columns], v[self.columns]
        self._command = q
        near = np.clip(self._q, q - LEASH, q + LEASH)
        if np.any(near != self._q):
            self._v = np.where(near != self._q, v, self._v)
            self._q = near

    def follow_hand(
        self, tick_ns: int, next_ns: int, speed: float) -> tuple[np.ndarray, np.ndarray]:
        """Return positions and velocities [n] of the goal at the next tick."""
        if not self._has_goal:
            return self.brake(tick_ns, next_ns, speed)
        q, v = self._goal.at(next_ns)
        inside = np.clip(q, self._limits.lower, self._limits.upper)
        self._q, self._v = inside, np.where(q == inside, v, 0.0)
        return self._q, self._v

    def brake(
        self, tick_ns: int, next_ns: int, speed: float) -> tuple[np.ndarray, np.ndarray]:
        """Return positions and velocities [n] of a goal that comes to rest where it is."""
        if not np.any(self._v):
            return self._q, self._v
        return self.follow_twist(np.zeros(6), False, tick_ns, next_ns, speed)

    def follow_twist(
        self, twist: np.ndarray, in_tool: bool, tick_ns: int, next_ns: int, speed: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Return positions and velocities [n] of the goal at the next tick.

        All joints slow down together, so that the tool keeps its direction: at the velocity
        limits, near the position limits, near singularities.

        :param twist: [6]; see `ToolKinematics.velocities`.
        :param speed: share of the velocity limits that holds now, 0 … 1.
        """
        period, limits = (next_ns - tick_ns) / NANOSECONDS, self._limits
        brakes = ACCELERATION_SHARE * limits.acceleration
        rest = self._q + self._v * (float(np.max(np.abs(self._v) / brakes)) / 2.0)
        wanted, given = self._kinematics.velocities(self._q, twist, in_tool, rest)
        share = 1.0
        note = '' if given > SLOW else f'{self.side}: slowed down near a singularity'
        most = SPEED_SHARE * speed * limits.velocity
        share = min(share, *(most / np.maximum(np.abs(wanted), most)))
        room = np.where(wanted > 0.0, limits.upper - self._q, self._q - limits.lower)
        stops = np.sqrt(2.0 * brakes * np.maximum(room, 0.0))
        shares = np.where(wanted == 0.0, 1.0, stops / np.maximum(np.abs(wanted), 1e-12))
        worst = int(np.argmin(shares))
        if shares[worst] < share:
            share = float(shares[worst])
            if share < SLOW:
                note = f"{self.side}: '{self._names[worst]}' is near its limit"
        self.note = note
        change = share * wanted - self._v
        largest = float(np.max(np.abs(change) / (brakes * period)))
        before, self._v = self._v, self._v + change / max(1.0, largest)
        q = self._q + (before + self._v) / 2.0 * period
        inside = np.clip(q, limits.lower, limits.upper)
        self._v = np.where(q == inside, self._v, 0.0)
        self._q = inside
        return self._q, self._v


def _apart(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return the distance, m, and the angle, rad, between two poses [4, 4]."""
    return float(np.linalg.norm(one[:3, 3] - other[:3, 3])), float(
        np.linalg.norm(pin.log3(one[:3, :3].T @ other[:3, :3])))
