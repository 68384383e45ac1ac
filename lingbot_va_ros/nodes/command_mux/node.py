"""The node command_mux: the last stage before the controllers, which keeps every limit."""

from collections.abc import Sequence
import gc
import os
import signal
import sys
import threading
import time
import traceback

import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node

from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.mux.mux import Mux
from lingbot_va_ros.mux.settings import MuxSettings
from lingbot_va_ros.nodes.callback_thread import CallbackThread, ExecutorWithout
from lingbot_va_ros.nodes.command_mux.clocks import Clocks
from lingbot_va_ros.nodes.command_mux.contact_inputs import ContactInputs
from lingbot_va_ros.nodes.command_mux.controller_watch import ControllerWatch
from lingbot_va_ros.nodes.command_mux.driver_plugin import Plugins
from lingbot_va_ros.nodes.command_mux.gripper_action import GripperActions
from lingbot_va_ros.nodes.command_mux.inputs import Inputs
from lingbot_va_ros.nodes.command_mux.latched_stop import LatchedStop
from lingbot_va_ros.nodes.command_mux.outputs import Outputs
from lingbot_va_ros.nodes.command_mux.parameters import (
    declare_joint_map,
    FULL_SPEED_SCALING,
    PARAMETERS,
)
from lingbot_va_ros.nodes.command_mux.proximity import ProximityPublisher
from lingbot_va_ros.nodes.command_mux.publishers import DiagnosticsPublisher, ModePublisher
from lingbot_va_ros.nodes.command_mux.speed import SpeedInterface
from lingbot_va_ros.nodes.command_mux.teleop_inputs import TeleopInputs
from lingbot_va_ros.nodes.command_mux.teleop_parameters import (
    declare_deadman_modes,
    declare_joystick,
)
from lingbot_va_ros.nodes.command_mux.trajectory_action import TrajectoryActions
from lingbot_va_ros.nodes.joint_state_watch import JointStateWatch
from lingbot_va_ros.nodes.parameters import declare_parameters
from lingbot_va_ros.nodes.priority import raise_priority, threads_of_process
from lingbot_va_ros.nodes.run import CannotStart, run_node
from lingbot_va_ros.nodes.ticks import ticks
from lingbot_va_ros.specs.embodiment import EmbodimentError, load_embodiment

# How long the executor's thread may keep the interpreter while a tick is due.
SWITCH_SECONDS = 0.001
# A timeout is at least so many command periods: a source may miss some messages before it is lost.
LEAST_PERIODS = 5
# How long the node waits at shutdown for the thread of the ticks.
JOIN_SECONDS = 2.0


class CommandMux(Node):
    """
    Connects the mux to ROS; its rules are in mux/mux.py.

    The executor's thread passes inputs to the mux, another the emergency stop and requests, and a
    third sends a command each tick.

    :raises CannotStart: the embodiment, its workspace, a timeout or the joint map is wrong, or a
        package is missing.
    :raises WrongParameter: a parameter has a wrong type or value.
    """

    def __init__(self) -> None:
        super().__init__('command_mux')
        self.failed = False
        values = declare_parameters(self, PARAMETERS, read_only=True)
        values['deadman_modes'] = declare_deadman_modes(self)
        bindings = declare_joystick(self)
        values['clutch_button'] = bindings.buttons['clutch']
        try:
            embodiment = load_embodiment(values.pop('embodiment'))
        except EmbodimentError as error:
            raise CannotStart(str(error)) from None
        goal_period = 1.0 / values.pop('gripper_goal_rate')
        threshold = values.pop('gripper_threshold')
        self._period_ns = round(NANOSECONDS / values.pop('command_rate'))
        # The threads of DDS get it too: a publisher waits for the locks that they hold.
        raise_priority(
            self, [*threads_of_process(), 0], values.pop('realtime_priority'), True, 'commands')
        self._latched_stop = LatchedStop(self, values.pop('stop_folder'))
        scaling_topic = values.pop('speed_scaling_topic')
        values['follows_driver'] = bool(scaling_topic)
        values['full_speed_scaling'] = FULL_SPEED_SCALING[values.pop('speed_scaling_unit')]
        settings = MuxSettings(**values)
        _check_timeouts(settings, self._period_ns)
        joint_map = declare_joint_map(self, embodiment)
        try:
            self._mux = Mux(embodiment, settings, self._period_ns, joint_map, bindings)
        except ValueError as error:
            raise CannotStart(f"embodiment '{embodiment.name}': {error}") from None
        for line in [] if self._mux.collision is None else self._mux.collision.remarks():
            self.get_logger().warning(line)
        self._clocks = Clocks(self)
        self._modes = ModePublisher(self, self._mux, self._latched_stop)
        watch = JointStateWatch(self, embodiment.joints, embodiment.joint_states)
        self._diagnostics = DiagnosticsPublisher(
            self, self._mux, self._modes, self._clocks, embodiment.name, watch)
        grippers = GripperActions(self, embodiment, threshold, goal_period)
        self.urgent_group = MutuallyExclusiveCallbackGroup()
        self._actions = TrajectoryActions(self, embodiment, self._mux, self.urgent_group)
        self._plugins = Plugins(self, embodiment, self._mux.take_fault)
        self._outputs = Outputs(
            self, embodiment, grippers, self._actions, self._plugins, self._mux.held,
            self._period_ns / NANOSECONDS)
        self._inputs = Inputs(
            self, self._mux, self._clocks, watch, self.urgent_group, self._modes.publish)
        self._teleop = TeleopInputs(
            self, self._mux, embodiment, self._clocks,
            bindings.are_used or settings.deadman_button >= 0, self._inputs.warn,
            self._modes.publish)
        self._speed = SpeedInterface(self, self._mux.speed, scaling_topic, self.urgent_group)
        ProximityPublisher(self, self._mux, self._clocks, self._speed.publish)
        grippers.watch(self, self._mux, self._clocks)
        contact = ContactInputs(self, embodiment, self._mux.contact, self._clocks)
        ControllerWatch(
            self, embodiment, self._outputs.publishers, self._mux,
            lambda: [*self._plugins.faults(), *contact.faults(),
                     *self._mux.held.faults(self._clocks.now_s())])
        self._latched_stop.restore(self._mux)
        self._modes.publish()
        self._ending = threading.Event()
        self._last_tick_ns = self._clocks.now_ns()
        self._thread = threading.Thread(target=self._run_ticks, name='ticks', daemon=True)
        self._thread.start()
        self._urgent_thread = CallbackThread(self, self.urgent_group, 'urgent')

    def close(self, asked_by: int | None) -> bool:
        """
        End the ticks and send a last stop where the arm is moving.

        :param asked_by: the signal. SIGINT comes from an operator who ends the whole system, and a
            latched stop with it; after any other the mux may be respawned.
        :returns: whether the threads have ended.
        """
        self._ending.set()
        self._thread.join(timeout=JOIN_SECONDS)
        if self._thread.is_alive():
            return False
        self._send_last_stop()
        self._modes.publish()
        all_ended = self._urgent_thread.close()
        if asked_by == signal.SIGINT:
            self._latched_stop.clear()
        return self._latched_stop.close() and all_ended

    def _send_last_stop(self) -> None:
        """Send the last stop; row by row where a controller takes no braking tail."""
        # By steady time: nothing hands on /clock any more.
        tick_ns, due = self._last_tick_ns + self._period_ns, time.monotonic()
        self._outputs.send(self._mux.last_stop(tick_ns))
        while (tick := self._mux.last_row(tick_ns, self._clocks.now_s())).row is not None:
            time.sleep(max(0.0, due - time.monotonic()))
            self._outputs.send(tick)
            tick_ns += self._period_ns
            due += self._period_ns / NANOSECONDS
        self._actions.flush()
        self._plugins.close()

    def _run_ticks(self) -> None:
        try:
            for tick in ticks(self.get_clock(), self._period_ns, self._ending):
                woken = time.monotonic()
                self._last_tick_ns = tick.ros_ns
                self._outputs.send(self._mux.tick(tick.ros_ns, self._clocks.now_s(), tick.jumped))
                if not tick.jumped:
                    self._diagnostics.add_lateness(tick.late_s + time.monotonic() - woken)
                self._modes.publish()
        except Exception as error:
            if self._ending.is_set() or not rclpy.ok(context=self.context):
                return
            # Without ticks there are no commands: the node ends, and a launch file may respawn it.
            self.failed = True
            self.get_logger().fatal(f'the command ticks failed:\n{traceback.format_exc()}')
            self._mux.take_fault(f'{type(error).__name__} in the command tick: {error}')
            self._modes.publish()
            os.kill(os.getpid(), signal.SIGTERM)  # `run_node` ends in order, with a last stop


def _check_timeouts(settings: MuxSettings, period_ns: int) -> None:
    least = LEAST_PERIODS * period_ns / NANOSECONDS
    for name in ('source_timeout', 'joint_state_timeout'):
        timeout = getattr(settings, name)
        if timeout < least:
            raise CannotStart(
                f'{name} is {timeout:g} s; expected at least {LEAST_PERIODS} command periods '
                f'({least:g} s)')


def main(args: Sequence[str] | None = None) -> None:
    """Run the node until SIGINT or SIGTERM, or until its ticks fail (exit code 1)."""
    def make_node() -> CommandMux:
        node = CommandMux()
        # The garbage collector needs 20 ms for the objects of the start, which live to the end.
        gc.collect()
        gc.freeze()
        return node

    sys.setswitchinterval(SWITCH_SECONDS)
    code = run_node(make_node, args, lambda node: ExecutorWithout(node.urgent_group))
    gc.unfreeze()  # so that ruckig's objects go, which else prints a page about leaks
    sys.exit(code)


if __name__ == '__main__':
    main()
