"""The last hop before the controllers: policy, teleoperation or hold, gated."""

from array import array
from collections import deque
import gc
import math
import os
from pathlib import Path
import signal
import sys
import threading
import time
import traceback

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
import numpy as np
import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from lingbot_va_ros.motion.trajectory import TrajectoryMessage
from lingbot_va_ros.motion.trajectory import TrajectoryPoint as PlainPoint
from lingbot_va_ros.msg import ControlMode
from lingbot_va_ros.mux.gripper_goals import GripperGoals
from lingbot_va_ros.mux.latched_stop_file import LatchedStopFile
from lingbot_va_ros.mux.leader_arm import LeaderJoint
from lingbot_va_ros.mux.modes import MuxMode
from lingbot_va_ros.mux.mux import Mux, Tick
from lingbot_va_ros.mux.settings import MuxSettings
from lingbot_va_ros.mux.validation import REJECTION_KINDS
from lingbot_va_ros.nodes.parameters import declare_parameters, NodeParameter, parameter_overrides
from lingbot_va_ros.nodes.priority import run_first, threads_of_process
from lingbot_va_ros.nodes.qos import COMMAND, EVENTS, EXECUTED, JOINT_STATES, LATCHED, SENSOR
from lingbot_va_ros.nodes.run import CannotStart, run_node
from lingbot_va_ros.nodes.stamps import duration_of, nanoseconds_of, stamp_of
from lingbot_va_ros.nodes.ticks import ticks
from lingbot_va_ros.specs.embodiment import EmbodimentError, load_embodiment
from lingbot_va_ros.srv import SetControlMode

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

_NS = 1_000_000_000
# How long the executor's thread may keep the interpreter while a tick is due.
SWITCH_SECONDS = 0.001
_DEFAULT = MuxSettings()
# A source must be able to miss some messages before it counts as lost.
_LEAST_PERIODS = 5

PARAMETERS = (
    NodeParameter(
        'embodiment', 'sim_left',
        'The robot: a name in config/embodiments, or the path of an embodiment file.'),
    NodeParameter('command_rate', 100.0, 'Commands per second, Hz.', 10.0, 1000.0),
    NodeParameter(
        'source_timeout', _DEFAULT.source_timeout,
        'Silence of the selected source, or age of its stamps, that means HOLD, s.', 0.02, 10.0),
    NodeParameter(
        'joint_state_timeout', _DEFAULT.joint_state_timeout,
        'Age of the joint states of any joint that means HOLD, s.', 0.02, 10.0),
    NodeParameter(
        'start_tolerance', _DEFAULT.start_tolerance,
        'A motion starts at the last command where the measured joint is this near to it, '
        'else as measured, rad or m.', 0.0, 1.0),
    NodeParameter(
        'max_following_error', _DEFAULT.max_following_error,
        'Distance of a measured arm joint from its command that means HOLD, rad or m.',
        0.001, 10.0),
    NodeParameter(
        'max_rejections', _DEFAULT.max_rejections,
        'Refused messages of the source in a row that mean HOLD.', 1, 100000),
    NodeParameter(
        'max_jump', _DEFAULT.max_jump,
        'A plan may begin as far from the present command as a joint goes in this time at '
        'its velocity limit, s.', 0.0, 5.0),
    NodeParameter(
        'emergency_stop_timeout', _DEFAULT.emergency_stop_timeout,
        'Silence of emergency_stop that latches STOPPED, s; 0: the input is not '
        'supervised.', 0.0, 60.0),
    NodeParameter(
        'realtime_priority', 50,
        'Priority 1 … 98 under SCHED_FIFO where the system grants it, as ros2_control '
        'does; 0: the ordinary scheduler.', 0, 98),
    NodeParameter(
        'home_speed', _DEFAULT.home_speed,
        'Share of the velocity and acceleration limits that go_home uses.', 0.01, 1.0),
    NodeParameter(
        'teleop_approach_speed', _DEFAULT.teleop_approach_speed,
        'Share of the velocity and acceleration limits with which the arm closes the way '
        'to the teleoperation source before it tracks it.', 0.01, 1.0),
    NodeParameter(
        'takeover_motion', _DEFAULT.takeover_motion,
        'A teleoperation source that rested and then moves further than this takes the '
        'arm from the policy, rad or m; 0: only set_mode does.', 0.0, 3.0),
    NodeParameter(
        'takeover_rest', _DEFAULT.takeover_rest,
        'How long the teleoperation source must have rested before it takes the arm by '
        'moving, s.', 0.1, 60.0),
    NodeParameter(
        'deadman_button', _DEFAULT.deadman_button,
        'Index of the button of joy that must be pressed during TELEOP; -1: none.', -1, 255),
    NodeParameter(
        'stop_folder', '',
        'Where a latched stop is kept for a respawned mux; empty: the runtime folder of '
        'the user.'),
    NodeParameter(
        'gripper_goal_rate', 5.0,
        'At most so many goals per second go to a gripper that is driven by an action, '
        'Hz.', 0.1, 50.0),
    NodeParameter(
        'gripper_threshold', 0.02,
        'A gripper that is driven by an action gets a new goal when its command has moved '
        'further from the last one, share of the way from open to closed.', 0.0, 0.5),
)
_STOPPED_BEFORE = 'stopped before the mux was restarted: '
_MAP_KEYS = ('joint', 'scale', 'offset', 'sign')


class CommandMux(Node):
    """
    Convert messages for mux/mux.py and send its commands; see there for what it promises.

    The executor's thread stores what comes in; a thread of its own sends a command each tick.
    """

    def __init__(self):
        super().__init__('command_mux')
        values = declare_parameters(self, PARAMETERS, read_only=True)
        try:
            embodiment = load_embodiment(values.pop('embodiment'))
        except EmbodimentError as error:
            raise CannotStart(str(error)) from None
        goal_period, threshold = 1.0 / values.pop('gripper_goal_rate'), values.pop(
            'gripper_threshold')
        period_ns = round(_NS / values.pop('command_rate'))
        for name in ('source_timeout', 'joint_state_timeout'):
            if values[name] * _NS < _LEAST_PERIODS * period_ns:
                raise CannotStart(
                    f'{name} is {values[name]:g} s; expected at least {_LEAST_PERIODS} command '
                    f'periods ({_LEAST_PERIODS * period_ns / _NS:g} s)')
        self._raise_priority(values.pop('realtime_priority'))
        self._latched_stop = self._find_latched_stop(values.pop('stop_folder'))
        self._settings = MuxSettings(**values)
        self._embodiment = embodiment
        self._period_ns = period_ns
        try:
            self._mux = Mux(
                embodiment, self._settings, period_ns, self._declare_joint_map(embodiment))
        except ValueError as error:
            raise CannotStart(f"embodiment '{embodiment.name}': {error}") from None
        stopped = self._read_stop()
        if stopped is not None:
            self._mux.machine.begin_stopped(_STOPPED_BEFORE + stopped)
        self._simulated = self.get_parameter('use_sim_time').value
        self._lateness = deque(maxlen=round(10 * _NS / period_ns))
        self._mode_lock = threading.Lock()
        self._published_mode = None
        self._diagnosed = (None, -math.inf)
        self._make_interfaces()
        self._grippers = self._make_grippers(threshold, goal_period)
        self._send_goals()
        self._moved = False
        self._publish_mode()
        self._ending = threading.Event()
        self.failed = False
        self._last_tick_ns = self._now_ns()
        self._thread = threading.Thread(target=self._tick_on, name='ticks', daemon=True)
        self._thread.start()

    # ---- set-up

    def _declare_joint_map(self, embodiment) -> dict:
        """Declare teleop_joint_map.<joint>.{joint, scale, offset, sign} for every joint."""
        prefix = 'teleop_joint_map.'
        for given in parameter_overrides(self):
            name, _, key = given.removeprefix(prefix).rpartition('.')
            if given.startswith(prefix) and (
                    name not in embodiment.joints or key not in _MAP_KEYS):
                raise CannotStart(
                    f'parameter {given}: expected {prefix}<joint>.<key> with a joint of '
                    f"embodiment '{embodiment.name}' ({', '.join(embodiment.joints)}) and one of "
                    f'{", ".join(_MAP_KEYS)}')
        joint_map = {}
        for name in embodiment.joints:
            rows = _joint_map_parameters(f'{prefix}{name}.', name)
            declared = declare_parameters(self, rows, read_only=True)
            values = dict(zip(_MAP_KEYS, declared.values(), strict=True))
            if values['sign'] == 0:
                raise CannotStart(f'parameter {prefix}{name}.sign is 0; expected 1 or -1')
            joint_map[name] = LeaderJoint(**values)
        return joint_map

    def _find_latched_stop(self, folder: str) -> LatchedStopFile:
        name = f'{os.environ.get("ROS_DOMAIN_ID", "0")}{self.get_fully_qualified_name()}'
        return LatchedStopFile(Path(folder).expanduser() if folder else None, name)

    def _read_stop(self) -> str | None:
        try:
            return self._latched_stop.read()
        except OSError as error:
            self._warn_of_latched_stop(error)
            return None

    def _warn_of_latched_stop(self, error: OSError) -> None:
        self.get_logger().warning(
            f'a stop would be forgotten by a respawned mux: {self._latched_stop.path}: '
            f'{error.strerror}', throttle_duration_sec=10.0)

    def _raise_priority(self, priority: int) -> None:
        """
        Let this process run before others; a busy machine is late.

        Threads of DDS as well: what publishes waits for the locks that they hold.
        """
        if priority == 0:
            return
        try:
            run_first([*threads_of_process(), 0], priority, inherited=True)
        except (AttributeError, OSError) as error:
            self.get_logger().warning(
                f'commands run at ordinary priority and may be late on a busy machine: no '
                f'real-time priority {priority} ({error}); grant rtprio in '
                '/etc/security/limits.d, or set realtime_priority to 0')

    def _make_interfaces(self) -> None:
        order = {name: index for index, name in enumerate(self._embodiment.joints)}
        self._controllers = [
            (self.create_publisher(JointTrajectory, controller.topic, COMMAND),
             list(controller.joints), [order[name] for name in controller.joints])
            for controller in self._embodiment.controllers if controller.kind == 'trajectory']
        self._executed = self.create_publisher(JointTrajectory, 'executed', EXECUTED)
        self._mode = self.create_publisher(ControlMode, '~/mode', LATCHED)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', EVENTS)
        self.create_subscription(
            JointTrajectory, 'policy/joint_trajectory', self._on_policy, COMMAND)
        self.create_subscription(
            JointTrajectory, 'teleop/joint_trajectory', self._on_teleop, COMMAND)
        self.create_subscription(
            JointState, 'teleop/joint_states', self._on_leader, JOINT_STATES)
        if self._settings.deadman_button >= 0:
            self.create_subscription(Joy, 'joy', self._on_joy, SENSOR)
        self.create_subscription(JointState, 'joint_states', self._on_joint_state, JOINT_STATES)
        self.create_subscription(
            Bool, 'emergency_stop', self._on_emergency_stop, EVENTS,
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=self._on_emergency_stop_mismatch))
        self.create_service(SetControlMode, '~/set_mode', self._on_set_mode)
        self.create_service(Trigger, '~/clear_stop', self._on_clear_stop)
        self.create_service(Trigger, '~/go_home', self._on_go_home)
        self.create_timer(0.1, self._diagnose, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _make_grippers(self, threshold: float, goal_period: float) -> list:
        """Return (column, GripperAction) of the grippers that are driven by an action."""
        controllers = [c for c in self._embodiment.controllers if c.kind == 'gripper_action']
        if not controllers:
            return []
        # Imported where an embodiment asks for it: not every machine has control_msgs.
        from lingbot_va_ros.nodes.command_mux.gripper_action import (
            GripperAction,
            missing_interfaces,
        )
        missing = missing_interfaces()
        if missing:
            raise CannotStart(f"embodiment '{self._embodiment.name}': {missing}")
        way = {
            arm.gripper.joint: abs(arm.gripper.open - arm.gripper.closed)
            for arm in self._embodiment.arms if arm.gripper}
        limits = self._embodiment.limits
        grippers = []
        for controller in controllers:
            column = self._embodiment.joints.index(controller.joints[0])
            span = way.get(controller.joints[0], limits.upper[column] - limits.lower[column])
            grippers.append((column, GripperAction(
                self, controller, GripperGoals(threshold * span, goal_period))))
        self.create_timer(
            0.02, self._send_goals, clock=Clock(clock_type=ClockType.STEADY_TIME))
        return grippers

    def close(self, asked_by: int | None) -> bool:
        """
        End the ticks and send a last stop where the arm is moving; True when all has ended.

        :param asked_by: the signal; SIGINT is somebody who ends all of it, and a latched stop with
            it. After any other the mux may be respawned.
        """
        self._ending.set()
        self._thread.join(timeout=2.0)
        if self._thread.is_alive():
            return False
        self._send(self._mux.last_stop(self._last_tick_ns + self._period_ns))
        self._publish_mode()
        if asked_by == signal.SIGINT:
            self._record_stop(None)
        return True

    # ---- the executor's thread: store what comes in

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    def _now_s(self) -> float:
        """Return the clock of the watchdogs: steady, or ROS time in simulation."""
        return self._now_ns() / _NS if self._simulated else time.monotonic()

    def _on_joint_state(self, message: JointState) -> None:
        stamp_ns = nanoseconds_of(message.header.stamp)
        self._mux.take_joint_state(
            message.name, message.position, message.velocity, stamp_ns, self._now_s())

    def _on_policy(self, message: JointTrajectory) -> None:
        self._log_rejection('policy/joint_trajectory', self._mux.take_policy_plan(
            _plain_trajectory(message), self._now_ns(), self._now_s()))

    def _on_teleop(self, message: JointTrajectory) -> None:
        self._log_rejection('teleop/joint_trajectory', self._mux.take_teleop_plan(
            _plain_trajectory(message), self._now_ns(), self._now_s()))

    def _on_leader(self, message: JointState) -> None:
        self._log_rejection('teleop/joint_states', self._mux.take_leader_state(
            message.name, message.position, nanoseconds_of(message.header.stamp), self._now_ns(),
            self._now_s()))

    def _on_joy(self, message: Joy) -> None:
        self._mux.take_joy(message.buttons, nanoseconds_of(message.header.stamp), self._now_s())
        self._publish_mode()

    def _log_rejection(self, topic: str, reason: str | None) -> None:
        if reason is not None:
            self.get_logger().warning(f'{topic} rejected: {reason}', throttle_duration_sec=1.0)
            self._publish_mode()

    def _on_emergency_stop(self, message: Bool) -> None:
        self._mux.take_emergency_stop(message.data, self._now_s())
        self._publish_mode()

    def _on_emergency_stop_mismatch(self, _event) -> None:
        reason = 'a publisher of emergency_stop offers an incompatible QoS; it must be reliable'
        self.get_logger().error(reason)
        self._mux.take_emergency_stop_fault(reason)
        self._publish_mode()

    def _on_set_mode(self, request, response):
        if self._now_ns() == 0:
            response.success, response.message = False, 'use_sim_time is set, but no /clock came'
            return response
        response.success, response.message = self._mux.set_mode(
            request.mode, self._now_ns(), self._now_s())
        self._publish_mode()
        return response

    def _on_clear_stop(self, _request, response):
        response.success, response.message = self._mux.clear_stop(self._now_s())
        self._publish_mode()
        return response

    def _on_go_home(self, _request, response):
        response.success, response.message = self._mux.go_home(self._now_s())
        self._publish_mode()
        return response

    def _send_goals(self) -> None:
        self._mux.take_controller_faults(
            tuple(filter(None, (gripper.fault() for _, gripper in self._grippers))))
        for _, gripper in self._grippers:
            gripper.send_what_is_due(self._now_s())

    # ---- the thread of the ticks

    def _tick_on(self) -> None:
        try:
            for tick in ticks(self.get_clock(), self._period_ns, self._ending):
                woken = time.monotonic()
                self._last_tick_ns = tick.ros_ns
                self._send(self._mux.tick(tick.ros_ns, self._now_s(), tick.jumped))
                if not tick.jumped:
                    self._lateness.append(tick.late_s + time.monotonic() - woken)
                self._publish_mode()
        except Exception as error:
            if self._ending.is_set() or not rclpy.ok(context=self.context):
                return
            # Without its ticks the mux keeps no promise: it ends, and is respawned where asked.
            self.failed = True
            self.get_logger().fatal(f'the command ticks failed:\n{traceback.format_exc()}')
            self._mux.take_fault(f'{type(error).__name__} in the command tick: {error}')
            self._publish_mode()
            os.kill(os.getpid(), signal.SIGTERM)  # `run_node` ends in order, with a last stop

    def _send(self, tick: Tick) -> None:
        self._command_grippers(tick)
        if tick.command is not None:
            start_ns = int(tick.command.times_ns[0])
            for publisher, joints, columns in self._controllers:
                message = JointTrajectory()
                message.header.stamp = stamp_of(start_ns)
                message.joint_names = joints
                message.points = [
                    _point(int(due_ns) - start_ns, q[columns], v[columns])
                    for due_ns, q, v in zip(
                        tick.command.times_ns[1:], tick.command.positions[1:],
                        tick.command.velocities[1:])]
                publisher.publish(message)
        for due_ns, q, v in tick.executed:
            message = JointTrajectory()
            message.header.stamp = stamp_of(due_ns)
            message.joint_names = list(self._embodiment.joints)
            message.points = [_point(0, q, v)]
            self._executed.publish(message)

    def _command_grippers(self, tick: Tick) -> None:
        for column, gripper in self._grippers:
            if not tick.moves:
                gripper.goals.rest()
                continue
            if not self._moved:
                gripper.goals.begin(float(tick.command.positions[0][column]))
            gripper.goals.want(float(tick.command.positions[1][column]))
        self._moved = tick.moves

    # ---- what people see

    def _publish_mode(self) -> None:
        """Publish the mode if it changed; read under the lock, so that the last word is true."""
        with self._mode_lock:
            mode, reason = self._mux.machine.state
            if (mode, reason) == self._published_mode:
                return
            message = ControlMode()
            message.header.stamp = self.get_clock().now().to_msg()
            message.mode, message.reason = int(mode), reason
            self._mode.publish(message)
            was_stopped = self._published_mode is not None and (
                self._published_mode[0] == MuxMode.STOPPED)
            self._published_mode = (mode, reason)
            if (mode == MuxMode.STOPPED) != was_stopped:
                self._record_stop(reason if mode == MuxMode.STOPPED else None)
        self.get_logger().info(f'{mode.name}: {reason}')

    def _record_stop(self, reason: str | None) -> None:
        try:
            if reason is None:
                self._latched_stop.clear()
            else:
                self._latched_stop.write(reason.removeprefix(_STOPPED_BEFORE))
        except OSError as error:
            self._warn_of_latched_stop(error)

    def _diagnose(self) -> None:
        """Publish /diagnostics once a second and whenever mode or reason changed."""
        now = time.monotonic()
        state, then = self._diagnosed
        if state == self._published_mode and now - then < 1.0 - 0.05:
            return
        self._diagnosed = (self._published_mode, now)
        report = self._mux.report(self._now_s())
        status = DiagnosticStatus()
        status.name = f'{self.get_fully_qualified_name().lstrip("/")}: mode'
        status.hardware_id = self._embodiment.name
        status.message = f'{report.mode.name}: {report.reason}'
        status.level = DiagnosticStatus.OK
        if report.rejected_in_row or report.is_fault or report.blocked:
            status.level = DiagnosticStatus.WARN
        if report.mode == MuxMode.STOPPED:
            status.level = DiagnosticStatus.ERROR
        late_ms = np.array(self._lateness or [0.0]) * 1e3
        values = {
            'mode': report.mode.name,
            'reason': report.reason,
            'source_age_s': f'{report.source_age:.3f}',
            'teleop_age_s': f'{report.teleop_age:.3f}',
            'joint_state_age_s': f'{report.joint_state_age:.3f}',
            'accepted': report.accepted,
            **{f'rejected_{kind}': report.rejected.get(kind, 0) for kind in REJECTION_KINDS},
            'rejected_in_row': report.rejected_in_row,
            'last_rejection': report.last_rejection,
            'teleop_accepted': report.teleop_accepted,
            **{f'teleop_rejected_{kind}': report.teleop_rejected.get(kind, 0)
               for kind in REJECTION_KINDS},
            'teleop_last_rejection': report.teleop_last_rejection,
            'skipped_ticks': report.skipped_ticks,
            'workspace': f'kept inside: {report.blocked}' if report.blocked else 'inside',
            'workspace_blocked_ticks': report.blocked_ticks,
            'command_late_ms_p50': f'{np.percentile(late_ms, 50):.3f}',
            'command_late_ms_p99': f'{np.percentile(late_ms, 99):.3f}',
            'command_late_ms_max': f'{late_ms.max():.3f}',
        }
        status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        message.status = [status]
        self._diagnostics.publish(message)


def _joint_map_parameters(prefix: str, joint: str) -> tuple[NodeParameter, ...]:
    """Return the parameters that map one joint of the leader arm, in the order of _MAP_KEYS."""
    return (
        NodeParameter(
            prefix + 'joint', joint,
            'Joint of the leader arm that moves this joint; empty: none, this joint keeps its '
            'last command.'),
        NodeParameter(
            prefix + 'scale', 1.0, "Factor on the leader joint's position.", -100.0, 100.0),
        NodeParameter(
            prefix + 'offset', 0.0, 'Added after the factor, rad or m.', -100.0, 100.0),
        NodeParameter(prefix + 'sign', 1, 'Direction: 1 or -1.', -1, 1))


def _plain_trajectory(message: JointTrajectory) -> TrajectoryMessage:
    return TrajectoryMessage(
        stamp_ns=nanoseconds_of(message.header.stamp),
        joints=tuple(message.joint_names),
        points=tuple(
            PlainPoint(
                nanoseconds_of(point.time_from_start),
                point.positions, point.velocities, point.accelerations)
            for point in message.points))


def _point(after_ns: int, q: np.ndarray, v: np.ndarray) -> JointTrajectoryPoint:
    point = JointTrajectoryPoint()
    point.positions = array('d', q.tobytes())
    point.velocities = array('d', v.tobytes())
    point.time_from_start = duration_of(after_ns)
    return point


def main(args=None) -> None:
    """Run the node until SIGINT or SIGTERM, or until its ticks fail (exit code 1)."""
    def make_node() -> CommandMux:
        node = CommandMux()
        # What is there by now stays: to go through all of it again takes the collector 20 ms.
        gc.collect()
        gc.freeze()
        return node

    sys.setswitchinterval(SWITCH_SECONDS)
    sys.exit(run_node(make_node, args))


if __name__ == '__main__':
    main()
