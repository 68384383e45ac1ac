"""The command mux without ROS: inputs in, one gated command a tick out, HOLD when in doubt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import math
import threading

import numpy as np

from lingbot_va_ros.motion.plan import Plan
from lingbot_va_ros.motion.trajectory import TrajectoryMessage
from lingbot_va_ros.mux.command_sources import PlanSource, Refusals
from lingbot_va_ros.mux.command_stream import CommandStream
from lingbot_va_ros.mux.leader_arm import LeaderArm, LeaderJoint
from lingbot_va_ros.mux.modes import Mode, ModeMachine
from lingbot_va_ros.mux.motion_detector import MotionDetector
from lingbot_va_ros.mux.ramp import Ramp
from lingbot_va_ros.mux.validation import check_jump, check_times, read_plan, Rejected
from lingbot_va_ros.mux.workspace import Breach, PLAN_NOISE, WorkspaceWatch
from lingbot_va_ros.specs.embodiment import Embodiment

# A joint slower than this share of its velocity limit counts as standing.
STANDING = 0.05
# A gripper counts as where it was when it is this near, share of its range.
GRIP_TOLERANCE = 0.05
# A gripper has come to rest, at its command or at what it holds, so long after the last command.
GRIP_SECONDS = 0.5
# A position measured further outside the limits than this share of the joint's range is no
# measurement: wrong units, or a broken message.
IMPLAUSIBLE = 0.25
# A joint is measured no further from where it was than this (rad, m) and so many times its
# velocity limit allow, unless so many messages in a row say so.
GLITCH_WAY, GLITCH_SPEED, GLITCH_MESSAGES = 0.05, 4.0, 3
# An arm that falls behind its command is led back to where it is measured, unless that is more
# than so many times the greatest following error away.
RETREAT = 1.5
# A go-home motion is over when the command is this close (rad, m; per s) to its end.
AT_HOME = 1e-7
# A follower this near to its leader (rad, m; share of the velocity limit) tracks it at full
# speed.
TRACKING, TRACKING_SPEED = 0.005, 0.1


@dataclass(frozen=True)
class MuxSettings:
    """
    Times in seconds, distances in rad (m for prismatic joints).

    `max_jump`: a plan may begin as far away as a joint goes in this time at its velocity limit.
    `home_speed`: share of the velocity and acceleration limits that go_home uses.
    `teleop_approach_speed`: the same, until the arm has caught up with the teleoperation source.
    `takeover_motion`: way of the teleoperation source that takes POLICY's arm; 0: none does.
    `takeover_rest`: how long the source must have rested before.
    `deadman_button`: index of the button without which TELEOP is not; -1: none.
    """

    source_timeout: float = 0.2
    joint_state_timeout: float = 0.2
    start_tolerance: float = 0.05
    max_following_error: float = 0.35
    max_rejections: int = 10
    max_jump: float = 0.2
    emergency_stop_timeout: float = 0.0
    home_speed: float = 0.2
    teleop_approach_speed: float = 0.25
    takeover_motion: float = 0.0
    takeover_rest: float = 0.5
    deadman_button: int = -1


@dataclass(frozen=True)
class Tick:
    """
    What one tick sends: a command or none, and the executed points (due ns, q, v).

    `moves`: the command belongs to a motion that somebody wants; false for a stop.
    """

    command: Plan | None = None
    executed: list = field(default_factory=list)
    moves: bool = False


@dataclass(frozen=True)
class Report:
    """Figures of a mux; ages in seconds, inf where nothing ever came."""

    mode: Mode
    reason: str
    fell: bool
    accepted: int
    rejected: dict[str, int]
    rejected_in_row: int
    last_rejection: str
    teleop_accepted: int
    teleop_rejected: dict[str, int]
    teleop_last_rejection: str
    source_age: float
    teleop_age: float
    joint_state_age: float
    skipped_ticks: int
    blocked: Breach | None
    blocked_ticks: int


class Mux:
    """
    Take joint states, plans and requests from one thread, give commands to another.

    `now_ns` is ROS time, `now_s` the clock of the watchdogs (steady, or ROS time in simulation).
    Every method is short; none waits for anything but the others.

    :param period_ns: from tick to tick; ticks are whole periods apart.
    :param leader_map: how a leader arm's joints move the robot's; see mux/leader_arm.py.
    :raises ValueError: the embodiment's workspace cannot be watched.
    """

    def __init__(
        self, embodiment: Embodiment, settings: MuxSettings, period_ns: int,
        leader_map: Mapping[str, LeaderJoint] | None = None,
    ):
        self.embodiment = embodiment
        self.settings = settings
        self.period_ns = period_ns
        self.machine = ModeMachine(settings.emergency_stop_timeout)
        self.policy = PlanSource('policy/joint_trajectory')
        self.teleop = PlanSource('teleop/joint_trajectory')
        self.leader = LeaderArm(
            embodiment, leader_map or {}, settings.source_timeout, settings.max_jump)
        self.leader_refusals = Refusals()
        self.skipped_ticks = 0
        self.blocked_ticks = 0
        self._lock = threading.Lock()
        walls = embodiment.workspace is not None
        # One for each thread: pinocchio computes in place.
        self._plan_watch = WorkspaceWatch(embodiment) if walls else None
        self._stream = CommandStream(
            embodiment.limits, period_ns, WorkspaceWatch(embodiment) if walls else None)
        limits = embodiment.limits
        # Onto home, and at the begin of a mode onto what its source asks for.
        self._ramp = Ramp(limits, period_ns * 1e-9)
        self._ramping = False
        # Whether TELEOP is by the leader arm, or else by teleop/joint_trajectory.
        self._by_leader = False
        self._kept = np.zeros(len(embodiment.joints))
        grippers = {arm.gripper.joint for arm in embodiment.arms if arm.gripper}
        # A gripper that holds something cannot reach its command: that is no fault.
        self._follows = np.array([name not in grippers for name in embodiment.joints])
        self._grip_tolerance = GRIP_TOLERANCE * (limits.upper - limits.lower)
        # Where each joint was measured when it had come to rest after the last command; nan: not
        # yet.
        self._rested = np.full(len(embodiment.joints), np.nan)
        beyond = IMPLAUSIBLE * (limits.upper - limits.lower)
        self._lowest, self._highest = limits.lower - beyond, limits.upper + beyond
        self._glitch = np.full(len(embodiment.joints), np.inf)
        self._sprung = np.zeros(len(embodiment.joints), dtype=int)
        self._strange: dict[str, float] = {}  # positions that were not taken, by joint
        self._column = {name: index for index, name in enumerate(embodiment.joints)}
        count = len(embodiment.joints)
        self._q = np.zeros(count)
        self._v = np.zeros(count)
        self._heard = np.full(count, -math.inf)
        self._stamps = np.zeros(count, dtype=np.int64)
        self._detector = MotionDetector(np.where(
            self._follows, settings.takeover_motion or math.inf, math.inf),
            settings.takeover_rest)
        self._button = False
        self._button_heard = -math.inf
        self._joy_stamp_ns = -1
        self._joy_fault = ''
        self._begin_anew = False
        self._going_home = False
        # The stops (`machine.entries`) that came before the newest request for a motion.
        self._stops_before_motion = 0
        self._missing_controllers: tuple[str, ...] = ()
        self._entries_sent = 0
        self._last_tick_ns: int | None = None
        self._commanding = False  # whether the last tick's command was a motion's
        self._retreat = False  # whether the next stop is to go back to where the arm is
        self._stopped = False  # whether the last tick's command was a stop

    # ---- inputs

    def joint_state(self, names, positions, velocities, stamp_ns: int, now_s: float) -> None:
        """
        Take measured joints, any subset of the robot's, in any order.

        A stamp that stands still, and a value that is not finite, far outside the limits, or where
        the joint cannot have come to, leave a joint as old as it was.
        """
        with self._lock:
            for index, name in enumerate(names):
                column = self._column.get(name)
                if column is None or index >= len(positions):
                    continue
                if not self._lowest[column] <= positions[index] <= self._highest[column]:
                    self._strange[name] = float(positions[index])  # nan too
                    continue
                if stamp_ns and stamp_ns == self._stamps[column]:
                    continue
                if self._springs(column, positions[index], stamp_ns, now_s):
                    continue
                velocity = velocities[index] if index < len(velocities) else 0.0
                most = self._fastest(column, positions[index], stamp_ns, now_s)
                self._q[column] = positions[index]
                self._v[column] = (
                    min(max(velocity, -most), most) if math.isfinite(velocity) else 0.0)
                self._stamps[column] = stamp_ns
                self._heard[column] = now_s
                self._strange.pop(name, None)

    def _fastest(self, column: int, position: float, stamp_ns: int, now_s: float) -> float:
        """
        Return the highest speed that a joint can have, as its last two positions tell.

        Twice its mean speed, which a joint has that has set off between the two, and what it can
        gain meanwhile: a velocity beyond that is none, and a stop from it would move the arm.
        """
        seconds = self._seconds_since(column, stamp_ns, now_s)
        if not math.isfinite(seconds):  # the first
            return math.inf
        return 2 * abs(position - self._q[column]) / max(seconds, 1e-3) + (
            self.embodiment.limits.acceleration[column] * seconds)

    def _seconds_since(self, column: int, stamp_ns: int, now_s: float) -> float:
        """Return how long ago a joint was measured last, by arrival or by stamp."""
        return max(now_s - self._heard[column],
                   (stamp_ns - self._stamps[column]) * 1e-9 if stamp_ns else 0.0)

    def _springs(self, column: int, position: float, stamp_ns: int, now_s: float) -> bool:
        """
        Tell whether a measured position is a glitch, as far as one can know yet.

        It is none where the joint can have come to it, or where so many in a row say the same
        (somebody has moved the arm while we heard nothing, or set it anew).
        """
        seconds = self._seconds_since(column, stamp_ns, now_s)
        reach = GLITCH_WAY + GLITCH_SPEED * self.embodiment.limits.velocity[column] * seconds
        if not abs(position - self._q[column]) > reach:  # inf at the first
            self._sprung[column] = 0
            return False
        if abs(position - self._glitch[column]) > GLITCH_WAY:
            self._sprung[column] = 0
        self._glitch[column] = position
        self._sprung[column] += 1
        return self._sprung[column] < GLITCH_MESSAGES

    def plan_message(
            self, message: TrajectoryMessage, now_ns: int, now_s: float) -> str | None:
        """Take a plan of the policy; returns None or the reason why it is refused."""
        return self._take_plan(self.policy, message, now_ns, now_s)

    def teleop_message(
        self, message: TrajectoryMessage, now_ns: int, now_s: float) -> str | None:
        """Take a plan of the teleoperation; returns None or the reason why it is refused."""
        return self._take_plan(self.teleop, message, now_ns, now_s)

    def _take_plan(
        self, source: PlanSource, message: TrajectoryMessage, now_ns: int, now_s: float,
    ) -> str | None:
        try:
            plan = read_plan(message, self.embodiment, source is self.teleop)
            worst = self._plan_watch and self._plan_watch.worst(plan.positions)
            with self._lock:
                check_times(
                    message.stamp_ns, plan, now_ns, source.stamp_ns,
                    int(self.settings.source_timeout * 1e9))
                # Before its mode is chosen a plan may begin anywhere: the choice looks at it.
                if self._plan_source() is source:
                    check_jump(
                        plan, now_ns, self._where(now_ns, now_s), self.embodiment,
                        self.settings.max_jump, ~self._follows)
                if worst is not None:
                    self._check_workspace(worst, now_ns, now_s)
                source.take(plan, message.stamp_ns, now_s)
            return None
        except Rejected as refusal:
            with self._lock:
                self._refuse(source.refusals, refusal, self._plan_source() is source)
            return str(refusal)

    def leader_state(
        self, names: Sequence[str], positions: Sequence[float], stamp_ns: int, now_ns: int,
        now_s: float,
    ) -> str | None:
        """Take joint states of a leader arm; returns None or the reason of a refusal."""
        with self._lock:
            try:
                if self.leader.take(names, positions, stamp_ns, now_ns, now_s):
                    self.leader_refusals.took()
                return None
            except Rejected as refusal:
                self._refuse(
                    self.leader_refusals, refusal,
                    self.machine.mode == Mode.TELEOP and self._by_leader)
                return str(refusal)

    def _refuse(self, refusals: Refusals, refusal: Rejected, is_selected: bool) -> None:
        refusals.refused(refusal)
        if is_selected and refusals.in_row >= self.settings.max_rejections:
            self.machine.fall_to_hold(
                f'{refusals.in_row} messages refused in a row, the last: {refusal}')

    def joy(self, buttons: Sequence[int], stamp_ns: int, now_s: float) -> None:
        """Take the buttons of a joystick; a stamp that stands still is no news."""
        index = self.settings.deadman_button
        if index < 0:
            return
        with self._lock:
            if stamp_ns and stamp_ns == self._joy_stamp_ns:
                return
            self._joy_stamp_ns, self._button_heard = stamp_ns, now_s
            self._joy_fault = '' if index < len(buttons) else (
                f'joy has {len(buttons)} buttons, none with the index {index}')
            self._button = index < len(buttons) and bool(buttons[index])
            if not self._button and self.machine.mode == Mode.TELEOP:
                self.machine.fall_to_hold('the dead-man button was released')

    def _plan_source(self) -> PlanSource | None:
        """Return the source of plans that moves the arm, or None."""
        if self.machine.mode == Mode.POLICY:
            return self.policy
        teleop = self.machine.mode == Mode.TELEOP and not self._by_leader
        return self.teleop if teleop else None

    def _check_workspace(self, worst: np.ndarray, now_ns: int, now_s: float) -> None:
        """Refuse a plan that leads a tool out of the box, or further out than it is."""
        where = self._where(now_ns, now_s)
        now = np.zeros_like(worst) if where is None else self._plan_watch.excess(where)
        breach = self._plan_watch.breach(worst, now + PLAN_NOISE)
        if breach is not None:
            raise Rejected('workspace', f'it would lead {breach}')

    def emergency_input(self, pressed: bool, now_s: float) -> None:
        """Take a message of the emergency-stop input."""
        with self._lock:
            self.machine.emergency_input(pressed, now_s)

    def emergency_fault(self, reason: str) -> None:
        """Latch STOPPED where the emergency-stop input is supervised and cannot work."""
        with self._lock:
            if self.settings.emergency_stop_timeout > 0:
                self.machine.stop(reason)

    def controllers_missing(self, faults: tuple[str, ...]) -> None:
        """Take what is wrong with controllers that answer; nothing moves while it is."""
        with self._lock:
            self._missing_controllers = faults

    def fault(self, reason: str) -> None:
        """Hold, because something of the mux itself failed."""
        with self._lock:
            if not self.machine.fall_to_hold(reason) and self._going_home:
                self.machine.hold_again(reason)

    def report(self, now_s: float) -> 'Report':
        """Return the figures for people, all of one moment."""
        with self._lock:
            return Report(
                mode=self.machine.mode, reason=self.machine.reason,
                fell=self.machine.fell, accepted=self.policy.refusals.accepted,
                rejected=dict(self.policy.refusals.rejected),
                rejected_in_row=self.policy.refusals.in_row,
                last_rejection=self.policy.refusals.last,
                teleop_accepted=(
                    self.teleop.refusals.accepted + self.leader_refusals.accepted),
                teleop_rejected=dict(
                    self.teleop.refusals.rejected + self.leader_refusals.rejected),
                teleop_last_rejection=self.leader_refusals.last or self.teleop.refusals.last,
                source_age=now_s - self.policy.heard,
                teleop_age=min(now_s - self.teleop.heard, self.leader.age(now_s)),
                joint_state_age=now_s - float(self._heard.min()),
                skipped_ticks=self.skipped_ticks, blocked=self._stream.blocked,
                blocked_ticks=self.blocked_ticks)

    # ---- requests

    def choose(self, mode: int, now_ns: int, now_s: float) -> tuple[bool, str]:
        """Answer set_mode: (success, message)."""
        try:
            mode = Mode(mode)
        except ValueError:
            known = ', '.join(f'{known.value} {known.name}' for known in Mode)
            return False, f'mode {mode} does not exist; there are {known}'
        with self._lock:
            return self._choose(mode, now_ns, now_s)

    def _choose(self, mode: Mode, now_ns: int, now_s: float, **reason) -> tuple[bool, str]:
        if mode in (Mode.POLICY, Mode.TELEOP) and self.machine.mode == mode:
            return True, f'{mode.name} already'
        missing, by_leader = [], False
        if mode == Mode.POLICY:
            missing = [*self._missing_joints(now_s),
                       *self._missing_plan(self.policy, now_ns, now_s),
                       *self._missing_controllers]
        elif mode == Mode.TELEOP:
            by_leader, without = self._missing_teleop(now_ns, now_s)
            missing = [*self._missing_joints(now_s), *without, *self._missing_button(now_s),
                       *self._missing_controllers]
        elif mode == Mode.HOLD and not self._stream.started:
            missing = self._missing_joints(now_s)
        success, message = self.machine.choose(mode, missing, **reason)
        if success:
            self._going_home = False
            if mode in (Mode.POLICY, Mode.TELEOP):
                self._begin_anew = True
                self._stops_before_motion = self.machine.entries
                self._by_leader = by_leader
                self._detector.reset()
                for refusals in (
                        self.policy.refusals, self.teleop.refusals, self.leader_refusals):
                    refusals.in_row = 0
        return success, message

    def clear_stop(self, now_s: float) -> tuple[bool, str]:
        """Answer clear_stop: (success, message)."""
        with self._lock:
            return self.machine.clear_stop(now_s)

    def go_home(self, now_s: float) -> tuple[bool, str]:
        """Answer go_home: (success, message); the motion begins at the next tick."""
        with self._lock:
            if self.machine.mode != Mode.HOLD:
                return False, f'go_home needs HOLD, not {self.machine.mode.name}'
            if not self.machine.chosen:
                return False, 'nothing moves before the first set_mode; choose HOLD first'
            missing = [*self._missing_joints(now_s), *self._missing_controllers]
            if missing:
                return False, 'go_home needs ' + '; '.join(missing)
            outside = self._plan_watch and self._plan_watch.outside(self.embodiment.home)
            if outside:
                return False, f'home itself has {outside}'
            if not self._going_home:
                self._begin_anew = self._going_home = True
                self._stops_before_motion = self.machine.entries
                self.machine.remark('going home')
            return True, 'going home; any set_mode breaks it off'

    def _missing_joints(self, now_s: float) -> list[str]:
        old = now_s - self._heard > self.settings.joint_state_timeout
        if not np.any(old):
            return []
        names = [name for name, is_old in zip(self.embodiment.joints, old) if is_old]
        if any(name in self._strange for name in names):
            return [f'sound joint_states: {self._strangest(names)}']
        if len(names) == len(self.embodiment.joints) and not np.any(np.isfinite(self._heard)):
            return ['joint_states (none received)']
        age = now_s - self._heard[old].min()
        age = f'{age:.2f} s old' if math.isfinite(age) else 'never received'
        return [f'fresh joint_states of {", ".join(names)} ({age})']

    def _strangest(self, names: list[str]) -> str:
        name = next(name for name in names if name in self._strange)
        column = self._column[name]
        limits = self.embodiment.limits
        return (f"'{name}' is at {self._strange[name]:.4g}, far outside its limits "
                f'{limits.lower[column]:.4g} … {limits.upper[column]:.4g}')

    def _missing_teleop(self, now_ns: int, now_s: float) -> tuple[bool, list[str]]:
        """Return whether the leader arm is the source of TELEOP, and what is missing."""
        leader = self.leader.missing(now_s, self.settings.source_timeout)
        plan_is_fresh = now_s - self.teleop.heard <= self.settings.source_timeout
        if leader is None and plan_is_fresh:
            return False, ['one source, but both teleop/joint_trajectory and teleop/joint_states '
                           'are alive']
        if leader is None:
            return True, []
        if math.isinf(self.teleop.heard) and self.leader_refusals.accepted:
            why = self.leader_refusals
            return True, [leader + (f' (last refused: {why.last})' if why.in_row else '')]
        missing = self._missing_plan(self.teleop, now_ns, now_s)
        if math.isinf(self.teleop.heard) and self.leader_refusals.in_row:
            missing.append(f'teleop/joint_states (last refused: {self.leader_refusals.last})')
        return False, missing

    def _missing_button(self, now_s: float) -> list[str]:
        if self.settings.deadman_button < 0:
            return []
        if self._joy_fault:
            return [self._joy_fault]
        if now_s - self._button_heard > self.settings.source_timeout:
            return ['the dead-man button (joy is silent)']
        return [] if self._button else ['the dead-man button to be pressed']

    def _missing_plan(self, source: PlanSource, now_ns: int, now_s: float) -> list[str]:
        age = now_s - source.heard
        refusals = source.refusals
        why = f' (last refused: {refusals.last})' if refusals.in_row else ''
        if math.isinf(age):
            return [f'{source.topic}: no acceptable message received{why}']
        if age > self.settings.source_timeout:
            return [f'fresh {source.topic}: the last good one is {age:.2f} s old{why}']
        where = self._where(now_ns, now_s)
        if where is not None:
            try:
                check_jump(
                    source.plan, now_ns, where, self.embodiment, self.settings.max_jump,
                    ~self._follows)
            except Rejected as refusal:
                return [f'a plan that begins where the arm is: {refusal}']
        return []

    # ---- where the arm is

    def _fresh(self, now_s: float) -> bool:
        return bool(np.all(now_s - self._heard <= self.settings.joint_state_timeout))

    def _start(self, now_s: float) -> tuple[np.ndarray, np.ndarray] | None:
        """
        Return the state (q, v) that a motion from rest begins with, or None if nobody knows.

        The last command where the arm stands within start_tolerance of it, else as measured,
        brought inside the limits where it is as near to them. A gripper also keeps its last
        command while it is where that command has left it: it may be holding something.
        """
        last = self._stream.last_position()
        if not self._fresh(now_s):
            return None if last is None else (last, np.zeros_like(last))
        q, v = self._measured_inside()
        if last is None:
            return q, v
        standing = np.abs(self._v) <= STANDING * self.embodiment.limits.velocity
        near = np.abs(self._q - last) <= np.where(
            self._follows, self.settings.start_tolerance, self._grip_tolerance)
        moved = np.abs(self._q - self._rested) > self._grip_tolerance  # False where nan
        near = standing & (near | ~self._follows & ~moved)
        return np.where(near, last, q), np.where(near, 0.0, v)

    def _measured_inside(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the measured state, no faster than the limits and a stop inside them allow."""
        limits = self.embodiment.limits
        inside = np.clip(self._q, limits.lower, limits.upper)
        near = np.abs(self._q - inside) <= self.settings.start_tolerance
        q = np.where(near, inside, self._q)
        # A stop in whole ticks takes up to a·T²/8 more than one in continuous time.
        slack = limits.acceleration * (self.period_ns * 1e-9) ** 2 / 8
        up = np.sqrt(2 * limits.acceleration * np.maximum(limits.upper - q - slack, 0.0))
        down = np.sqrt(2 * limits.acceleration * np.maximum(q - limits.lower - slack, 0.0))
        return q, np.clip(
            self._v, -np.minimum(down, limits.velocity), np.minimum(up, limits.velocity))

    def _where(self, now_ns: int, now_s: float) -> np.ndarray | None:
        if self._stream.moving(now_ns) or (
                self.machine.mode in (Mode.POLICY, Mode.TELEOP) and self._stream.started
                and not self._begin_anew):
            return self._stream.state(now_ns)[0]
        start = self._start(now_s)
        return None if start is None else start[0]

    # ---- the tick

    def tick(self, tick_ns: int, now_s: float, jumped: str = '') -> Tick:
        """
        Watch over everything and return what is to be sent at this tick.

        :param tick_ns: ROS time of the tick, whole periods after the one before.
        :param jumped: how the clock jumped since the last tick; then `tick_ns` begins a new grid.
        """
        with self._lock:
            if jumped:
                self._clock_jumped(tick_ns, now_s, jumped)
            executed = self._stream.executed(tick_ns)
            if self._last_tick_ns is not None and not jumped:
                self.skipped_ticks += max(
                    0, round((tick_ns - self._last_tick_ns) / self.period_ns) - 1)
            self._last_tick_ns = tick_ns
            self.machine.watch(now_s)
            self._watch(tick_ns, now_s)
            self._take_over(tick_ns, now_s)
            command = self._command(tick_ns, now_s)
            if command is not None:
                self.blocked_ticks += self._stream.blocked is not None
                self._rested[:] = np.nan
            elif self._stream.rested(tick_ns, GRIP_SECONDS) and self._fresh(now_s):
                self._rested = np.where(np.isnan(self._rested), self._q, self._rested)
            executed += self._stream.executed(tick_ns + self.period_ns)
            self._commanding = command is not None and not self._stopped
            return Tick(command, executed, self._commanding)

    def last_stop(self, time_ns: int) -> Tick:
        """Return the stop to send when the mux ends while the arm is moving, else nothing."""
        with self._lock:
            moving = self._stream.moving(time_ns) or (
                self.machine.mode in (Mode.POLICY, Mode.TELEOP))
            if not moving or not self._stream.started:
                return Tick()
            executed = self._stream.executed(time_ns)
            self.machine.fall_to_hold('the mux ends')
            self._entries_sent = self.machine.entries
            self._going_home = False
            command = self._stream.stop(time_ns)
            return Tick(command, executed + self._stream.executed(command.end_ns))

    def _clock_jumped(self, tick_ns: int, now_s: float, how: str) -> None:
        moving = self._last_tick_ns is not None and self._stream.moving(self._last_tick_ns)
        if self._stream.started:
            # What the controller was to reach by now, on the old clock.
            state = self._stream.state((self._last_tick_ns or 0) + self.period_ns)
            self._stream.begin(tick_ns, *state)
        self.policy.forget()
        self.teleop.forget()
        self.leader.forget()
        self._detector.reset()
        self._button, self._button_heard, self._joy_stamp_ns = False, -math.inf, -1
        self._heard[:] = -math.inf
        self._stamps[:] = 0
        self.machine.forget_times(now_s)
        if not self.machine.fall_to_hold(how) and moving:
            self.machine.hold_again(how)
        self._going_home = False

    def _watch(self, tick_ns: int, now_s: float) -> None:
        """Fall to HOLD when the source, the joint states or the arm itself are lost."""
        by_source = self.machine.mode in (Mode.POLICY, Mode.TELEOP)
        if not by_source and not self._going_home:
            return
        # So much earlier that the stop is out within the timeout.
        early = 2e-9 * self.period_ns
        reason = ''
        if self._missing_controllers:
            reason = f'lost {"; ".join(self._missing_controllers)}'
        elif by_source and self._lost_source(now_s, early):
            reason = self._lost_source(now_s, early)
        elif np.any(now_s - self._heard > self.settings.joint_state_timeout - early):
            old = now_s - self._heard > self.settings.joint_state_timeout - early
            names = [name for name, is_old in zip(self.embodiment.joints, old) if is_old]
            reason = f'joint_states of {", ".join(names)} are too old'
            if any(name in self._strange for name in names):
                reason = f'joint_states make no sense: {self._strangest(names)}'
        elif not self._begin_anew:
            error = np.abs(self._q - self._stream.state(tick_ns)[0]) * self._follows
            worst = int(np.argmax(error))
            if error[worst] > self.settings.max_following_error:
                # An arm that was held up is about that far behind; further off, who knows where.
                self._retreat = error[worst] < RETREAT * self.settings.max_following_error
                reason = (
                    f"following error of '{self.embodiment.joints[worst]}' is {error[worst]:.3f}, "
                    f'more than {self.settings.max_following_error:g}')
        if reason and not self.machine.fall_to_hold(reason):
            self.machine.hold_again(f'go_home broken off: {reason}')

    def _lost_source(self, now_s: float, early: float) -> str:
        """Return how the source that moves the arm was lost, or an empty text."""
        timeout = self.settings.source_timeout
        source = self._plan_source()
        if source is None:
            lost = self.leader.missing(now_s, timeout - early) is not None
            topic, refusals = 'teleop/joint_states', self.leader_refusals
        else:
            lost = now_s - source.heard > timeout - early
            topic, refusals = source.topic, source.refusals
        if lost:
            why = f'; last refused: {refusals.last}' if refusals.in_row else ''
            return f'{topic} silent for {timeout:g} s{why}'
        if self.machine.mode == Mode.TELEOP and self.settings.deadman_button >= 0 and (
                now_s - self._button_heard > timeout - early):
            return f'joy silent for {timeout:g} s, and with it the dead-man button'
        return ''

    def _take_over(self, tick_ns: int, now_s: float) -> None:
        """Give the arm to the teleoperation where that is wanted and its source moves."""
        if self.settings.takeover_motion <= 0:
            return
        timeout = self.settings.source_timeout
        if self.leader.missing(now_s, timeout) is None:
            position = self.leader.position
        elif now_s - self.teleop.heard <= timeout:
            position = self.teleop.plan.sample(tick_ns)[0]
        else:
            self._detector.reset()
            return
        if self._detector.moved(position, now_s) and self.machine.mode == Mode.POLICY:
            # Where something is missing for TELEOP the policy keeps the arm.
            self._choose(
                Mode.TELEOP, tick_ns, now_s, reason='the teleoperation source was moved')

    def _command(self, tick_ns: int, now_s: float) -> Plan | None:
        self._stopped = self.machine.entries != self._entries_sent
        if self._stopped:
            self._entries_sent = self.machine.entries
            # What was asked for after the stop, between two ticks, begins at the next one.
            if self._stops_before_motion != self.machine.entries:
                self._going_home = False
                self._begin_anew = False
            retreat, self._retreat = self._retreat, False
            if self._commanding and retreat and self._fresh(now_s):
                inside = np.clip(
                    self._q, self.embodiment.limits.lower, self.embodiment.limits.upper)
                return self._stream.retreat(tick_ns, np.where(
                    self._follows, inside, self._stream.last_position()))
            # An arm that others have set in motion is stopped as hard as it may be.
            gentle = self.machine.gentle and self._stream.moving(tick_ns)
            if not self._commanding:
                self._continue_or_begin(tick_ns, now_s)
            return self._stream.stop(tick_ns, gentle) if self._stream.started else None
        if self.machine.mode not in (Mode.POLICY, Mode.TELEOP) and not self._going_home:
            return None
        if self._begin_anew:
            self._begin_motion(tick_ns, now_s)
        if self._going_home:
            return self._step_home(tick_ns)
        next_ns = tick_ns + self.period_ns
        source = self._plan_source()
        if source is not None:
            goal = source.goal(tick_ns, next_ns)
        else:
            goal = (*self.leader.goal(next_ns, self._kept), 0.0)
        return self._stream.follow(tick_ns, *self._ramped(tick_ns, *goal))

    def _begin_motion(self, tick_ns: int, now_s: float) -> None:
        self._continue_or_begin(tick_ns, now_s)
        self._begin_anew = False
        for source in (self.policy, self.teleop):
            source.rest()
        self._kept = self._stream.last_position()
        self._ramping = True
        self._ramp.begin(self._stream.acceleration(tick_ns))
        self._ramp.share = {
            Mode.POLICY: 1.0, Mode.TELEOP: self.settings.teleop_approach_speed,
            Mode.HOLD: self.settings.home_speed}[self.machine.mode]

    def _ramped(self, tick_ns: int, q_goal, v_goal, a_goal) -> tuple[np.ndarray, np.ndarray]:
        """
        Return the state of the next tick on the ramp that leads to what a source asks for.

        A plan is followed by itself once it is caught. A leader arm stays behind the ramp, which
        takes the noise out of it, at full speed once it was caught.
        """
        if not self._ramping:
            return q_goal, v_goal
        q, v = self._stream.state(tick_ns)
        q_next, v_next = self._ramp.step(q, v, q_goal, v_goal, a_goal)
        if self._plan_source() is not None:
            self._ramping = not self._ramp.caught
        elif np.all(np.abs(q_next - q_goal) <= TRACKING) and np.all(
                np.abs(v_next - v_goal) <= TRACKING_SPEED * self.embodiment.limits.velocity):
            self._ramp.share = 1.0
        return q_next, v_next

    def _continue_or_begin(self, tick_ns: int, now_s: float) -> None:
        if self._stream.moving(tick_ns):
            return
        start = self._start(now_s)
        if start is not None:
            self._stream.begin(tick_ns, *start)

    def _step_home(self, tick_ns: int) -> Plan:
        home = np.clip(
            self.embodiment.home, self.embodiment.limits.lower, self.embodiment.limits.upper)
        rest = np.zeros_like(home)
        goal = (home, rest)
        if not self._ramp.caught:
            goal = self._ramp.step(*self._stream.state(tick_ns), home, rest)
        command = self._stream.follow(tick_ns, *goal)
        q, v = self._stream.state(tick_ns + self.period_ns)
        if self._stream.blocked is not None:
            self.machine.hold_again(f'go_home broken off: on its way is {self._stream.blocked}')
        elif np.all(np.abs(q - home) < AT_HOME) and np.all(np.abs(v) < AT_HOME):
            self._going_home = False
            self.machine.remark('at home')
        return command
