"""The command source that leads arms by their tools: twists, poses of hands, and a joystick."""

from dataclasses import dataclass
import math

import numpy as np

from lingbot_va_ros.motion.time import to_nanoseconds
from lingbot_va_ros.mux.clutch import Clutch
from lingbot_va_ros.mux.command_source import CommandSource
from lingbot_va_ros.mux.goal import even_goal, Goal
from lingbot_va_ros.mux.settings import MuxSettings
from lingbot_va_ros.mux.tool_arm import FoundPose, ToolArm
from lingbot_va_ros.mux.tool_messages import checked_pose, checked_twist, ToolPose, ToolTwist
from lingbot_va_ros.mux.validation import check_stamp, NOT_NEWER, Rejected
from lingbot_va_ros.specs.embodiment import Embodiment

# A gripper moves to where it is sent at this share of its velocity limit.
GRIPPER_SHARE = 0.8
# An axis of a gripper that has moved this far, of its way, is meant.
AXIS_MOVED = 0.1
# Components of twists beyond this are cut off, m/s and rad/s: their squares overflow.
LARGEST_TWIST = 1e9
JOYSTICK = 'joy'


@dataclass
class Device:
    """
    What leads one arm: its newest twist, or that it is a hand.

    :param name: its topic.
    :param twist: [6] in m/s and rad/s; None: a hand.
    :param in_tool: the twist is along the axes of the tool frame.
    """

    name: str
    received: float = -math.inf
    stamp_ns: int = -1
    twist: np.ndarray | None = None
    in_tool: bool = False

    @property
    def is_at_rest(self) -> bool:
        """Whether it is a joystick that is not deflected: it leaves the arm to other devices."""
        return self.name == JOYSTICK and not np.any(self.twist)


class ToolTeleop(CommandSource):
    """
    Leads each arm by a twist, by the pose of a hand or by a joystick, one of them at a time.

    Arms that nothing leads, and all other joints, keep their command. Its name is that of the
    device that was heard last.
    """

    is_followed_exactly = False

    def __init__(self, embodiment: Embodiment, settings: MuxSettings) -> None:
        super().__init__('teleop/twist', settings.source_timeout)
        self.clutch = Clutch(settings.clutch_button >= 0, settings.source_timeout)
        self.arms: dict[str, ToolArm] = {}
        self._unusable: dict[str, str] = {}  # why an arm cannot be led by its tool
        self._settings = settings
        self._limits = embodiment.limits
        self._scale = np.repeat([settings.teleop_linear_scale, settings.teleop_angular_scale], 3)
        self._sides = tuple(arm.side for arm in embodiment.arms)
        self._devices: dict[str, dict[str, Device]] = {}
        self._grippers = {
            arm.side: (embodiment.joints.index(arm.gripper.joint), arm.gripper)
            for arm in embodiment.arms if arm.gripper is not None}
        self._openings: dict[str, float] = {}  # asked for, 0 closed … 1 open
        # What the axis of a gripper was when it was first heard: it leads once it has moved.
        self._untouched: dict[str, float] = {}
        self._used: list[Device] = []  # that led an arm since the begin
        self._q = np.zeros(len(embodiment.joints))
        self._v = np.zeros(len(embodiment.joints))
        for arm in embodiment.arms:
            self._devices[arm.side] = {}
            try:
                self.arms[arm.side] = ToolArm(
                    embodiment, arm, settings.max_jump, settings.teleop_pose_mode == 'relative',
                    (settings.teleop_linear_scale, settings.teleop_angular_scale),
                    settings.teleop_max_distance)
            except (ValueError, OSError) as error:
                self._unusable[arm.side] = ' '.join(str(error).split())

    def topic(self, side: str, what: str) -> str:
        """Return the topic of an arm: teleop/<what>, of several arms teleop/<side>/<what>."""
        return f'teleop/{what}' if len(self._sides) == 1 else f'teleop/{side}/{what}'

    def frame_to_look_up(self, side: str, frame: str) -> str:
        """Return the base frame in which a message's frame is to be looked up; empty: in none."""
        arm = self.arms.get(side)
        return '' if arm is None or arm.frames.knows(frame) else arm.frames.base

    def _arm(self, side: str) -> ToolArm:
        if side not in self.arms:
            raise Rejected('frame', self._unusable.get(side, f'there is no {side} arm'))
        return self.arms[side]

    # ---- messages

    def take_twist(self, twist: ToolTwist, now_ns: int, now_s: float) -> None:
        """
        Take a twist of an arm's tool, scaled and no faster than the settings allow.

        :raises Rejected: kinds frame, not_finite, future, stale, not_newer.
        """
        arm = self._arm(twist.side)
        values, in_tool = checked_twist(twist, arm.frames)
        device = self._device(twist.side, self.topic(twist.side, 'twist'))
        self._note_message(device, twist.stamp_ns, now_ns, now_s)
        values = np.clip(values, -LARGEST_TWIST, LARGEST_TWIST)
        device.twist, device.in_tool = self._bounded(self._scale * values), in_tool

    def take_joystick(
        self, side: str, axes: np.ndarray, in_tool: bool, now_s: float) -> None:
        """
        Take the deflections [6] of a joystick, -1 … 1, for one arm; the others are not led by it.

        :raises Rejected: kind frame.
        """
        self._arm(side)
        for other in self._sides:
            if other != side:
                self._drop(other, JOYSTICK)
        device = self._device(side, JOYSTICK)
        device.received, self.name = now_s, device.name
        settings = self._settings
        device.twist = self._bounded(axes * np.repeat(
            [settings.teleop_linear_speed, settings.teleop_angular_speed], 3))
        device.in_tool = in_tool
        # At rest it leads nothing, and says nothing about why another device is not followed.
        if not device.is_at_rest:
            self.counts.count_accepted()

    def _drop(self, side: str, name: str) -> None:
        device = self._devices[side].pop(name, None)
        if device is not None:
            self._used = [each for each in self._used if each is not device]

    def _bounded(self, twist: np.ndarray) -> np.ndarray:
        parts = []
        for part, most in ((twist[:3], self._settings.teleop_linear_speed),
                           (twist[3:], self._settings.teleop_angular_speed)):
            speed = float(np.linalg.norm(part))
            parts.append(part * (most / speed) if speed > most else part)
        return np.concatenate(parts)

    def find(self, pose: ToolPose, is_followed: bool) -> tuple[np.ndarray, FoundPose | None]:
        """
        Return a hand's pose [4, 4] in the base frame, and the joints for it if it leads the arm.

        It takes milliseconds, and needs no lock.

        :raises Rejected: kinds frame, not_finite, pose, distance.
        """
        arm = self._arm(pose.side)
        hand = checked_pose(pose, arm.frames)
        leads = is_followed and self.clutch.is_engaged
        return hand, arm.find(hand) if leads else None

    def take_pose(
        self, pose: ToolPose, hand: np.ndarray, found: FoundPose | None, now_ns: int,
        now_s: float,
    ) -> None:
        """
        Take what `find` has found for a hand's pose.

        Out of its reach an arm holds; the hand counts as alive all the same.

        :raises Rejected: kinds future, stale, not_newer, jump.
        """
        arm = self._arm(pose.side)
        device = self._device(pose.side, self.topic(pose.side, 'pose'))
        self._note_message(device, pose.stamp_ns, now_ns, now_s)
        arm.hand = hand
        if found is not None and self.clutch.is_engaged:
            if arm.anchor.hand is None:  # its first pose since the motion began
                arm.engage()
                self.begins_anew = not arm.is_relative
            else:
                arm.lead(found, pose.stamp_ns or now_ns)

    def _device(self, side: str, name: str) -> Device:
        return self._devices[side].setdefault(name, Device(name))

    def _note_message(
        self, device: Device, stamp_ns: int, now_ns: int, now_s: float) -> None:
        if stamp_ns:
            check_stamp(stamp_ns, now_ns, to_nanoseconds(self.timeout))
            if stamp_ns <= device.stamp_ns:
                raise Rejected('not_newer', NOT_NEWER)
            device.stamp_ns = stamp_ns
        device.received, self.name = now_s, device.name
        self.counts.count_accepted()

    # ---- clutch and grippers

    def engage(self, is_engaged: bool) -> None:
        """Close or release the clutch; closed, hands and tools move together from there on."""
        if is_engaged:
            for arm in self.arms.values():
                arm.engage()
                self.begins_anew |= not arm.is_relative

    def open_gripper(self, side: str, opening: float) -> None:
        """Send an arm's gripper to an opening, 0 closed … 1 open; it needs no other device."""
        if side in self._grippers:
            self._openings[side] = min(max(opening, 0.0), 1.0)

    def move_gripper(self, side: str, opening: float) -> None:
        """Send an arm's gripper to where an axis is, 0 … 1, once the axis has been moved."""
        untouched = self._untouched.setdefault(side, opening)
        if abs(opening - untouched) > AXIS_MOVED or side in self._openings:
            self.open_gripper(side, opening)

    def opening(self, side: str) -> float:
        """Return the opening of a gripper that is asked for, or else commanded, 0 … 1."""
        if side not in self._grippers:
            return 0.0
        column, gripper = self._grippers[side]
        commanded = (self._q[column] - gripper.closed) / (gripper.open - gripper.closed)
        return self._openings.get(side, float(commanded))

    # ---- the command source

    def _fresh(self, now_s: float) -> dict[str, list[Device]]:
        """Return the fresh devices of each arm; others that lead no arm are forgotten."""
        fresh: dict[str, list[Device]] = {}
        for side, devices in self._devices.items():
            for name, device in list(devices.items()):
                if now_s - device.received <= self.timeout:
                    fresh.setdefault(side, []).append(device)
                elif not any(each is device for each in self._used):
                    del devices[name]
                    if device.twist is None and side in self.arms:
                        self.arms[side].hand = None
        return fresh

    def age(self, now_s: float) -> float:
        """Return the age of the device that was heard last, s."""
        return now_s - max(
            (device.received for devices in self._devices.values()
             for device in devices.values()), default=-math.inf)

    def claims(self, now_s: float) -> bool:
        return any(not device.is_at_rest for devices in self._fresh(now_s).values()
                   for device in devices)

    def _conflict(self, now_s: float) -> str:
        for side, fresh in self._fresh(now_s).items():
            alive = [device.name for device in fresh if not device.is_at_rest]
            if len(alive) > 1:
                return (f'two devices at once lead the {side} arm: both {alive[0]} and '
                        f'{alive[1]} are alive')
        return ''

    def missing(self, now_ns: int, now_s: float, arm: np.ndarray | None) -> list[str]:
        why = f' ({self.counts.explanation})' if self.counts.explanation else ''
        self._used = []  # what led the arms before leads them no more
        fresh = self._fresh(now_s)
        if not fresh or self.counts.rejected_in_row:
            return [f'{self.name}: no fresh message{why}']
        conflict = self._conflict(now_s)
        if conflict:
            return [f'one device for each arm; {conflict}']
        if self.clutch.bounces:
            return [f'a clutch that does not bounce ({self.clutch.bounces})']
        hands = [self.arms[side] for side, devices in fresh.items()
                 if side in self.arms and any(device.twist is None for device in devices)]
        return [] if arm is None else [
            obstacle for hand in hands if (obstacle := hand.obstacle(arm))]

    def lost(self, now_s: float, margin: float = 0.0) -> str:
        conflict = self._conflict(now_s)
        if conflict:
            return conflict
        if self.clutch.bounces:
            return self.clutch.bounces
        for device in self._used:
            if now_s - device.received > self.timeout - margin:
                why = self.counts.explanation
                return f'{device.name} silent for {self.timeout:g} s' + (f'; {why}' if why else '')
        return '' if self._used else super().lost(now_s, margin)

    def begin(self, start: np.ndarray) -> None:
        self._q, self._v = np.array(start), np.zeros(len(start))
        self._used = []
        self._openings, self._untouched = {}, {}
        for arm in self.arms.values():
            arm.begin(start)

    def observe(self, q: np.ndarray, v: np.ndarray) -> None:
        for arm in self.arms.values():
            arm.observe(q, v)

    def goal(self, tick_ns: int, next_ns: int, speed: float) -> Goal:
        q, v = self._q.copy(), np.zeros_like(self._q)
        for side, arm in self.arms.items():
            device = self._leading(side)
            if device is None or not self.clutch.is_engaged and device.twist is None:
                moved = arm.brake(tick_ns, next_ns, speed)
            elif device.twist is None:
                moved = arm.follow_hand(tick_ns, next_ns, speed)
            else:
                twist = device.twist if self.clutch.is_engaged else np.zeros(6)
                moved = arm.follow_twist(twist, device.in_tool, tick_ns, next_ns, speed)
            q[arm.columns], v[arm.columns] = moved
        for side, opening in self._openings.items():
            column, gripper = self._grippers[side]
            goal = gripper.closed + opening * (gripper.open - gripper.closed)
            step = GRIPPER_SHARE * self._limits.velocity[column] * (next_ns - tick_ns) * 1e-9
            q[column] += min(max(goal - q[column], -step), step)
        self._q, self._v = q, v
        return even_goal(q, v)

    def _leading(self, side: str) -> Device | None:
        """Return the device that leads an arm, and note that it does."""
        # A joystick at rest leaves the arm to what was heard last of the others.
        device = max(
            self._devices[side].values(), default=None,
            key=lambda each: (not each.is_at_rest, each.received))
        if device is None or math.isinf(device.received):
            return None
        if not any(each is device for each in self._used):
            self._used.append(device)
        return device

    def position(self, time_ns: int) -> np.ndarray:
        """Return nan: no motion of a hand takes the arm from the policy."""
        return np.full(len(self._q), np.nan)

    def forget(self) -> None:
        for devices in self._devices.values():
            devices.clear()
        for arm in self.arms.values():
            arm.hand = None
        self._used = []

    def notes(self) -> str:
        """Return in one line what holds arms back, or an empty text."""
        return '; '.join(arm.note for arm in self.arms.values() if arm.note)
