"""The command mux without ROS: one limited command a tick from the selected source, or HOLD."""

from collections.abc import Callable, Mapping, Sequence
import threading

import numpy as np

from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.motion.trajectory import TrajectoryMessage
from lingbot_va_ros.mux.arm_motion import ArmMotion
from lingbot_va_ros.mux.arm_watch import ArmFault, ArmWatch
from lingbot_va_ros.mux.command_source import CommandSource
from lingbot_va_ros.mux.command_sources import CommandSources
from lingbot_va_ros.mux.dead_man_switch import DeadManSwitch
from lingbot_va_ros.mux.held_joints import HeldJoints
from lingbot_va_ros.mux.joystick import JoyBindings, JoyMessage, Joystick
from lingbot_va_ros.mux.leader_arm import LeaderJoint
from lingbot_va_ros.mux.modes import ModeStateMachine, MuxMode
from lingbot_va_ros.mux.plan_source import PlanSource
from lingbot_va_ros.mux.report import Report, Tick
from lingbot_va_ros.mux.settings import MuxSettings
from lingbot_va_ros.mux.speed_scale import SpeedScale
from lingbot_va_ros.mux.state_watch import make_watches
from lingbot_va_ros.mux.validation import Rejected
from lingbot_va_ros.robot.collision import CollisionModel, Near
from lingbot_va_ros.robot.joint_state_filter import JointStateFilter
from lingbot_va_ros.specs.embodiment import Embodiment

# A loss is seen so many ticks before its timeout, so that the stop is out within the timeout.
WATCH_TICKS_AHEAD = 2
# A mux that stood still for longer than this (s) while it moved the arm goes on by set_mode only.
LONGEST_PAUSE = 0.5


class Mux:
    """
    Takes joint states, commands of sources and requests; gives one command a tick.

    Inputs and requests may come from one thread, ticks from another: every public method holds the
    lock, and none waits for anything else. `now_ns` is ROS time, `now_s` the watchdogs' clock
    (steady, or ROS time in simulation).

    :param period_ns: from tick to tick; ticks are whole periods apart.
    :param leader_map: how the joints of a leader arm move the robot's; see mux/leader_arm.py.
    :param bindings: of the joystick; by default it has a dead-man button only.
    :raises ValueError: the embodiment's workspace or collisions cannot be watched.
    """

    def __init__(
        self, embodiment: Embodiment, settings: MuxSettings, period_ns: int,
        leader_map: Mapping[str, LeaderJoint] | None = None,
        bindings: JoyBindings | None = None,
    ) -> None:
        grippers = [arm.gripper.joint for arm in embodiment.arms if arm.gripper]
        is_gripper = np.isin(embodiment.joints, grippers)
        self.embodiment = embodiment
        self.settings = settings
        self.period_ns = period_ns
        self.machine = ModeStateMachine(settings.emergency_stop_timeout)
        self.joints = JointStateFilter(
            embodiment.joints, embodiment.limits, settings.joint_state_timeout,
            embodiment.joint_states)
        self.speed = SpeedScale(
            settings.speed_scale, settings.full_speed_scaling, settings.follows_driver)
        self.sources = CommandSources(embodiment, settings, leader_map or {}, is_gripper)
        self.skipped_ticks = 0
        self.blocked_ticks = dict.fromkeys(('workspace', 'collision'), 0)
        self._lock = threading.Lock()
        self._dead_man = DeadManSwitch(
            settings.deadman_button, settings.source_timeout, settings.deadman_modes)
        self._joystick = Joystick(
            bindings or JoyBindings(), self._dead_man, self.sources.tool.clutch,
            tuple(arm.side for arm in embodiment.arms), self.sources.tool)
        # What bodies are kept apart; None: nothing is.
        self.collision = model = (
            None if embodiment.collision is None else CollisionModel(embodiment))
        # Commands have another: pinocchio computes in place, in two threads.
        self._plan_watch = make_watches(embodiment, model)
        # Found here: a request comes in a third thread, while a plan may be checked.
        self._home_breach = (
            None if self._plan_watch is None else self._plan_watch.outside(embodiment.home))
        self._arm = ArmWatch(self.joints, embodiment, settings, is_gripper, period_ns)
        self.contact = self._arm.contact  # has a lock of its own, as `held`
        self.held = HeldJoints(embodiment, settings.joint_state_timeout)
        self._motion = ArmMotion(
            embodiment, settings, self.machine, self.joints, self.sources, self.speed, is_gripper,
            self._arm, period_ns, make_watches(embodiment, model))
        self._last_tick_ns: int | None = None

    # ---- inputs

    def take_joint_state(
        self, names: Sequence[str], positions: Sequence[float], velocities: Sequence[float],
        stamp_ns: int, now_ns: int, now_s: float,
    ) -> None:
        """Take measured joints, any subset of the robot's, in any order."""
        with self._lock:
            self.joints.update(names, positions, velocities, stamp_ns, now_ns, now_s)

    def take_policy_plan(
        self, message: TrajectoryMessage, now_ns: int, now_s: float) -> str | None:
        """Take a plan of the policy; returns None or the reason of its rejection."""
        return self._take_plan(self.sources.policy, message, now_ns, now_s)

    def take_teleop_plan(
        self, message: TrajectoryMessage, now_ns: int, now_s: float) -> str | None:
        """Take a plan of the teleoperation; returns None or the reason of its rejection."""
        return self._take_plan(self.sources.teleop, message, now_ns, now_s)

    def take_leader_state(
        self, names: Sequence[str], positions: Sequence[float], stamp_ns: int, now_ns: int,
        now_s: float,
    ) -> str | None:
        """Take joint states of a leader arm; returns None or the reason of their rejection."""
        leader = self.sources.leader
        return self.take_from(
            leader, lambda: leader.update(names, positions, stamp_ns, now_ns, now_s))

    def take_from(self, source: CommandSource, take: Callable[[], object]) -> str | None:
        """Let a source take a message; returns None or the reason of its rejection."""
        with self._lock:
            try:
                take()
                return None
            except Rejected as rejected:
                return self._reject(source, rejected)

    def is_led_by(self, source: CommandSource) -> bool:
        """Return whether a source moves the arm, and has begun to."""
        return self._motion.source is source and not self._motion.begins_anew

    def take_joy(self, message: JoyMessage, now_ns: int, now_s: float) -> str | None:
        """
        Take a message of a joystick; returns None or the reason of its rejection.

        A released dead-man button ends the modes that need it.
        """
        with self._lock:
            try:
                requests, has_clutch_changed = self._joystick.update(message, now_s)
            except Rejected as rejected:
                return self._reject(self.sources.tool, rejected)
            if requests.released and self._dead_man.needed_in(self.machine.mode):
                self.machine.fall_to_hold('the dead-man button was released')
            if has_clutch_changed:
                self.sources.engage(self.sources.tool.clutch.is_engaged)
            return self._hand_over(requests.mode, now_ns, now_s)

    def _hand_over(self, mode: MuxMode | None, now_ns: int, now_s: float) -> str | None:
        """Give the arm from the policy to the operator or back, as a button asks for."""
        if mode is None or mode == self.machine.mode:
            return None
        if not {mode, self.machine.mode} <= {MuxMode.TELEOP, MuxMode.POLICY}:
            return f'a button takes the arm from POLICY or TELEOP, not {self.machine.mode.name}'
        success, message = self._set_mode(mode, now_ns, now_s, 'asked for by a button of joy')
        return None if success else message

    def take_emergency_stop(self, pressed: bool, now_s: float) -> None:
        """Take a message of the emergency-stop input."""
        with self._lock:
            self.machine.emergency_input(pressed, now_s)

    def take_emergency_stop_fault(self, reason: str) -> None:
        """Latch STOPPED where the emergency-stop input is supervised and cannot work."""
        with self._lock:
            if self.settings.emergency_stop_timeout > 0:
                self.machine.stop(reason)

    def take_controller_faults(self, origin: str, faults: tuple[str, ...]) -> None:
        """Take the faults that a watch of controllers sees; nothing moves while there is one."""
        with self._lock:
            self._arm.take_faults(origin, faults)

    def take_controller_reference(
        self, names: Sequence[str], positions: Sequence[float], stamp_ns: int) -> None:
        """Take the reference of a trajectory controller; see `ReferenceWatch.add`."""
        with self._lock:
            self._arm.add_reference(names, positions, stamp_ns)

    def take_fault(self, reason: str) -> None:
        """Hold, because a part of the mux itself failed."""
        with self._lock:
            self._hold_for(reason)

    def _hold_for(self, reason: str) -> None:
        if not self.machine.fall_to_hold(reason) and self._motion.going_home:
            self.machine.abort_motion(reason)

    def _take_plan(
        self, source: PlanSource, message: TrajectoryMessage, now_ns: int, now_s: float,
    ) -> str | None:
        try:
            with self._lock:
                arm = self._motion.position(now_ns, now_s)
            plan = source.read(message, now_ns, arm)
            # Without the lock: a long plan takes many milliseconds, and no tick waits for it.
            fault = None if self._plan_watch is None else self._plan_watch.plan_fault(plan, arm)
            with self._lock:
                source.check_times(message, plan, now_ns)
                arm = self._motion.position(now_ns, now_s)
                # Before its mode is chosen a plan may begin anywhere: the choice looks at it.
                if self._motion.source is source and arm is not None:
                    source.check_jump(plan, now_ns, arm)
                if fault is not None:
                    raise fault
                source.accept(plan, message.stamp_ns, now_s)
            return None
        except Rejected as rejected:
            with self._lock:
                return self._reject(source, rejected)

    def take_refusal(self, source: CommandSource, rejected: Rejected) -> str:
        """Count a message that was rejected before it was read; returns the reason."""
        with self._lock:
            return self._reject(source, rejected)

    def _reject(self, source: CommandSource, rejected: Rejected) -> str:
        """Count a rejected message; too many in a row of the source that moves the arm: HOLD."""
        source.counts.count_rejected(rejected)
        in_row = source.counts.rejected_in_row
        if self._motion.source is source and in_row >= self.settings.max_rejections:
            self.machine.fall_to_hold(
                f'{in_row} messages rejected in a row, the last: {rejected}')
        return str(rejected)

    # ---- requests

    def set_mode(self, mode: int, now_ns: int, now_s: float) -> tuple[bool, str]:
        """Answer set_mode: (success, message)."""
        try:
            wanted = MuxMode(mode)
        except ValueError:
            known = ', '.join(f'{known.value} {known.name}' for known in MuxMode)
            return False, f'mode {mode} does not exist; there are {known}'
        with self._lock:
            return self._set_mode(wanted, now_ns, now_s, 'asked for over set_mode')

    def clear_stop(self, now_s: float) -> tuple[bool, str]:
        """Answer clear_stop: (success, message)."""
        with self._lock:
            return self.machine.clear_stop(now_s)

    def go_home(self, now_s: float) -> tuple[bool, str]:
        """Answer go_home: (success, message); the motion begins at the next tick."""
        with self._lock:
            if self.machine.mode != MuxMode.HOLD:
                return False, f'go_home needs HOLD, not {self.machine.mode.name}'
            if not self.machine.chosen:
                return False, 'nothing moves before the first set_mode; choose HOLD first'
            missing = self._arm.missing(now_s, is_commanded=False)
            if missing:
                return False, 'go_home needs ' + '; '.join(missing)
            if self._home_breach is not None:
                return False, f'home itself has {self._home_breach}'
            in_the_way = self._motion.way_home_breach(now_s)
            if in_the_way is not None:
                return False, f'on the way home is {in_the_way}'
            if not self._motion.going_home:
                self._motion.going_home = True
                self._motion.request()
                self.machine.set_reason('going home')
            return True, 'going home; any set_mode breaks it off'

    def _set_mode(
        self, mode: MuxMode, now_ns: int, now_s: float, reason: str) -> tuple[bool, str]:
        if mode.has_source and self.machine.mode == mode:
            return True, f'{mode.name} already'
        source, missing = self._source_of(mode, now_ns, now_s)
        success, message = self.machine.choose(mode, missing, reason)
        if success:
            self._motion.going_home = False
        if success and source is not None:
            self.sources.select(source)
            self._motion.request()
        return success, message

    def _source_of(
        self, mode: MuxMode, now_ns: int, now_s: float) -> tuple[CommandSource | None, list[str]]:
        """Return the source that moves the arm in a mode, and what the mode lacks."""
        if mode == MuxMode.STOPPED or mode == MuxMode.HOLD and self._motion.stream.started:
            return None, []
        if mode == MuxMode.HOLD:
            return None, self.joints.missing(now_s)
        arm = self._motion.position(now_ns, now_s)
        if mode == MuxMode.TELEOP:
            source, missing = self.sources.teleoperation(now_ns, now_s, arm)
        else:
            source = self.sources.policy
            missing = source.missing(now_ns, now_s, arm)
        if self._dead_man.needed_in(mode):
            missing = [*missing, *self._dead_man.missing(now_s)]
        is_commanded = self._motion.source is not None or self._motion.stream.moving(now_ns)
        return source, [*self._arm.missing(now_s, is_commanded), *missing]

    # ---- the tick

    def tick(self, tick_ns: int, now_s: float, jumped: str = '') -> Tick:
        """
        Watch over inputs and arm, and return the messages of this tick.

        :param tick_ns: ROS time of the tick, whole periods after the one before.
        :param jumped: how the clock jumped since the last tick; then `tick_ns` begins a new grid.
        """
        with self._lock:
            if jumped:
                self._clock_jumped(tick_ns, now_s, jumped)
            self._motion.rows.resume(tick_ns)
            executed = self._motion.stream.executed(tick_ns)
            if self._last_tick_ns is not None and not jumped:
                self._count_skipped(tick_ns, self._last_tick_ns)
            self._last_tick_ns = tick_ns
            self.machine.watch(now_s)
            if self._motion.stream.started:
                self._arm.add_command(tick_ns, self._motion.stream.state(tick_ns)[0])
            self._arm.take_faults('speed', self.speed.faults)
            self._watch(tick_ns, now_s)
            self._take_over(tick_ns, now_s)
            self._motion.limit_speed()
            try:
                command = self._motion.command(tick_ns, now_s)
            except ArithmeticError as error:
                # The controller goes on along the last command, which ends in a stop.
                self._hold_for(str(error))
                command = None
            if command is not None and self._motion.stream.blocked is not None:
                self.blocked_ticks[self._motion.stream.blocked.kind] += 1
            self._motion.take_note(command, tick_ns, now_s)
            executed += self._motion.stream.executed(tick_ns + self.period_ns)
            row = self._motion.row(tick_ns, now_s, command is not None)
            return Tick(command, executed, self._motion.was_motion, row)

    def last_stop(self, time_ns: int) -> Tick:
        """Return the stop to send when the mux ends while the arm is moving, else nothing."""
        with self._lock:
            is_moving = self._motion.source is not None or self._motion.stream.moving(time_ns)
            if not is_moving or not self._motion.stream.started:
                return Tick()
            executed = self._motion.stream.executed(time_ns)
            self.machine.fall_to_hold('the mux ends')
            command = self._motion.last_stop(time_ns)
            return Tick(command, executed + self._motion.stream.executed(
                command.end_ns + self.period_ns))

    def last_row(self, tick_ns: int, now_s: float) -> Tick:
        """Return the row of a tick after `last_stop`; without one nothing is left to send."""
        with self._lock:
            return Tick(row=self._motion.row(tick_ns, now_s, False))

    def _clock_jumped(self, tick_ns: int, now_s: float, how: str) -> None:
        last_ns, stream = self._last_tick_ns, self._motion.stream
        is_moving = last_ns is not None and stream.moving(last_ns)
        # What the controller was to reach by now, on the old clock.
        self._motion.go_on(tick_ns, (last_ns or 0) + self.period_ns)
        self.sources.forget()
        self._joystick.forget()
        self.joints.forget()
        self.contact.forget()
        self.held.forget()
        self.machine.forget_times(now_s)
        if not self.machine.fall_to_hold(how) and is_moving:
            self.machine.abort_motion(how)
        self._motion.going_home = False

    def _count_skipped(self, tick_ns: int, last_ns: int) -> None:
        """Count missed ticks; where the arm has come to rest meanwhile, begin again gently."""
        skipped = max(0, round((tick_ns - last_ns) / self.period_ns) - 1)
        self.skipped_ticks += skipped
        if not skipped or not self._motion.was_motion or self._motion.stream.moving(tick_ns):
            return
        seconds = (tick_ns - last_ns) / NANOSECONDS
        if seconds > LONGEST_PAUSE:
            reason = f'the mux itself stood still for {seconds:.2f} s'
            self._hold_for(reason)
        else:
            self._motion.begins_anew = True

    def _watch(self, tick_ns: int, now_s: float) -> None:
        """Fall to HOLD when a controller, the source, a joint state or the arm itself is lost."""
        if self._arm.has_controller_fault:
            self._motion.expect_away()
        if self._motion.source is None and not self._motion.going_home:
            return
        fault = self._fault(tick_ns, now_s)
        if fault is None:
            return
        self._motion.expect_stop(fault.can_retreat, fault.is_away)
        prefix = 'go_home broken off: ' if self._motion.going_home else ''
        self._hold_for(prefix + fault.reason)

    def _fault(self, tick_ns: int, now_s: float) -> ArmFault | None:
        """Return why the arm must not move on, or None."""
        margin = WATCH_TICKS_AHEAD * self.period_ns / NANOSECONDS
        source = self._motion.source
        lost = '' if source is None else source.lost(now_s, margin)
        if not lost and self.machine.mode == MuxMode.TELEOP:
            lost = self.sources.rival(now_s) or self.sources.clutch_lost(now_s, margin)
        if not lost and self._dead_man.needed_in(self.machine.mode):
            lost = self._dead_man.lost(now_s, margin)
        fault = ArmFault(lost) if lost else self._arm.lost(now_s, margin)
        if fault is not None or self._motion.begins_anew:
            return fault
        return self._arm.disobedience(now_s)

    def _take_over(self, tick_ns: int, now_s: float) -> None:
        """Give the arm to the teleoperation where its source begins to move."""
        if self.sources.takes_over(tick_ns, now_s) and self.machine.mode == MuxMode.POLICY:
            # Where TELEOP lacks something the policy keeps the arm.
            self._set_mode(MuxMode.TELEOP, tick_ns, now_s, 'the teleoperation source was moved')

    # ---- diagnostics

    def report(self, now_s: float) -> Report:
        """Return the figures of the mux, all of one moment."""
        with self._lock:
            machine = self.machine
            return Report(
                mode=machine.mode, reason=machine.reason, is_fault=machine.is_fault,
                sources=self.sources.report(now_s), teleop_side=self._joystick.side,
                joint_states=self.joints.report(now_s),
                tracking_delay=self._arm.tracking_delay,
                references_off=self._arm.references_off,
                skipped_ticks=self.skipped_ticks, blocked=self._motion.stream.blocked,
                blocked_ticks=dict(self.blocked_ticks),
                nearest=next(iter(self._motion.nearest(now_s, 1)), None))

    def nearest(self, now_s: float, count: int) -> list[Near]:
        """Return the nearest pairs of bodies where the arm is now, the nearest first."""
        with self._lock:
            return self._motion.nearest(now_s, count)
