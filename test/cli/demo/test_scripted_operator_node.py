"""The scripted operator, sim_robot and command_mux as processes, over DDS."""

import json
import sys
import time

from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
import pytest
import rclpy
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from lingbot_va_ros.cli.common.processes import node_command, NodeProcesses
from lingbot_va_ros.motion.plan import resting_at
from lingbot_va_ros.msg import ControlMode
from lingbot_va_ros.nodes import qos
from lingbot_va_ros.nodes.policy.messages import trajectory_message
from lingbot_va_ros.srv import SetControlMode

SEED = 4


class Scene:
    """A policy that keeps the arm where it is, and what everybody else says."""

    def __init__(self, processes):
        self.processes = processes
        self.node = rclpy.create_node('rests')
        self.joints, self.modes, self.strokes, self.values = None, [], None, {}
        self.commands = self.node.create_publisher(
            JointTrajectory, 'policy/joint_trajectory', qos.COMMAND)
        self.set_mode = self.node.create_client(SetControlMode, 'command_mux/set_mode')
        for kind, topic, callback, profile in (
                (JointState, 'joint_states', self.on_joints, qos.JOINT_STATES),
                (ControlMode, 'command_mux/mode', self.on_mode, qos.LATCHED),
                (DiagnosticArray, '/diagnostics', self.on_diagnostics, qos.EVENTS),
                (String, 'sim_robot/task_state', self.on_task_state, qos.LATCHED)):
            self.node.create_subscription(kind, topic, callback, profile)
        self.node.create_timer(0.02, self.rest)

    def on_joints(self, message):
        self.joints = message

    def on_mode(self, message):
        self.modes.append(message.mode)

    def on_diagnostics(self, message):
        self.values.update(
            (value.key, value.value) for status in message.status for value in status.values)

    def on_task_state(self, message):
        self.strokes = json.loads(message.data)['counts']['strokes']

    def rest(self):
        if self.joints is not None:
            now_ns = self.node.get_clock().now().nanoseconds
            plan = resting_at(now_ns, np.array(self.joints.position))
            self.commands.publish(trajectory_message(
                now_ns, self.joints.name, *plan.remainder(now_ns, 0.02)))

    def wait_until(self, condition, seconds=30.0):
        deadline = time.monotonic() + seconds
        while not condition():
            self.processes.check()
            assert time.monotonic() < deadline, (self.modes, self.strokes, self.values)
            rclpy.spin_once(self.node, timeout_sec=0.05)

    def give_to_policy(self):
        answer = self.set_mode.call_async(SetControlMode.Request(mode=ControlMode.POLICY))
        self.wait_until(answer.done)
        return answer.result().success


@pytest.fixture
def scene(tmp_path):
    rclpy.init()
    with NodeProcesses(None, tmp_path) as processes:
        processes.start('sim_robot', [
            *node_command('sim_robot'), '--ros-args', '-p', 'task:=wipe_plate',
            '-p', f'seed:={SEED}', '-p', 'camera_rate:=1.0'])
        # It is not about what is late on a busy machine.
        processes.start('command_mux', [
            *node_command('command_mux'), '--ros-args', '-p', 'source_timeout:=2.0',
            '-p', 'joint_state_timeout:=2.0'])
        processes.start('person', [
            sys.executable, '-m', 'lingbot_va_ros.cli.demo.scripted_operator_node',
            '--seed', str(SEED), '--after', '0'])
        yield Scene(processes)
        assert processes.end() == []
    rclpy.try_shutdown()


@pytest.mark.timeout(120)
def test_takes_over_makes_one_stroke_and_gives_back_with_nothing_refused(scene):
    scene.wait_until(lambda: scene.joints is not None and scene.strokes == 0)
    scene.wait_until(lambda: scene.set_mode.service_is_ready())
    scene.wait_until(lambda: scene.node.count_publishers('teleop/joint_trajectory') == 1)
    scene.wait_until(scene.give_to_policy)
    scene.wait_until(lambda: ControlMode.TELEOP in scene.modes)
    scene.wait_until(lambda: scene.modes[-1] == ControlMode.POLICY)
    scene.wait_until(lambda: scene.strokes == 1)
    modes = scene.modes[scene.modes.index(ControlMode.TELEOP):]
    assert modes == [ControlMode.TELEOP, ControlMode.POLICY]
    scene.values.clear()
    scene.wait_until(lambda: 'teleop_rejected_jump' in scene.values)
    refused = {key: value for key, value in scene.values.items()
               if key.startswith('teleop_rejected') and value != '0'}
    assert not refused
