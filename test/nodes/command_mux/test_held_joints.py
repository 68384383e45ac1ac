"""Held joints over DDS: they are in every message of their controllers, and never move."""

import time

from nodes.command_mux.test_controller_kinds import ARM, Drivers, GRIPPER, PATIENT, robot_file
import numpy as np
import pytest
import rclpy
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from support.messages import stamped
from support.node_processes import node_process
from support.spinning import spinning
from support.waiting import wait_for
from trajectory_msgs.msg import JointTrajectory

from lingbot_va_ros.msg import ControlMode
from lingbot_va_ros.nodes.qos import EVENTS
from lingbot_va_ros.resources import shared_file

TORSO, LIFT = 'right_joint_1', 'right_joint_2'  # of the robot with two arms, one of which is here


@pytest.fixture(scope='module', autouse=True)
def ros():
    rclpy.init()
    yield
    rclpy.try_shutdown()


class Arm(Drivers):
    """An arm whose controller wants the torso in every message; a lift has a driver of its own."""

    def __init__(self, node):
        super().__init__(node)
        self.commands, self.lifts = [], []
        self.torso, self.lift = 0.25, 0.1
        node.create_subscription(
            JointTrajectory, 'whole_body/joint_trajectory', self.on_command, EVENTS)
        node.create_subscription(
            Float64MultiArray, 'lift/commands', self.lifts.append, EVENTS)

    def on_command(self, message):
        assert list(message.joint_names) == [TORSO, *ARM, GRIPPER]
        self.commands.append(message)
        self.q[:] = message.points[-1].positions[1:]

    def publish_states(self):
        message = JointState(
            name=[*ARM, GRIPPER, TORSO, LIFT], position=[*self.q, self.torso, self.lift])
        self.states.publish(stamped(message, time.time_ns()))

    def is_moving(self):
        return len(self.commands) > 20 and len(self.lifts) > 20


def test_held_joints_are_sent_where_they_are_and_hold_the_arm_when_they_move(tmp_path):
    file = robot_file(
        tmp_path, [
            {'topic': 'whole_body/joint_trajectory', 'kind': 'trajectory',
             'joints': [TORSO, *ARM, GRIPPER]},
            {'topic': 'lift/commands', 'kind': 'forward_position', 'joints': [LIFT]}],
        held_joints={TORSO: 'where_it_is', LIFT: 0.3},
        urdf=str(shared_file('urdf', 'sim_dual.urdf')))
    arguments = [item for parameter in (f'embodiment:={file}', *PATIENT)
                 for item in ('-p', parameter)]
    with node_process('command_mux', tmp_path / 'mux.log', *arguments), spinning(
            rclpy.create_node('arm')) as node:
        arm = Arm(node)
        wait_for(lambda: f"held joint '{LIFT}' at 0.300 (it is at 0.100)" in arm.set_mode(
            ControlMode.POLICY).message, 'a refusal')
        assert not arm.commands
        arm.lift = 0.305
        arm.start_motion()
        assert {point.positions[0] for command in list(arm.commands)
                for point in command.points} == {0.25}
        assert {row.data[0] for row in list(arm.lifts)} == {0.305}
        assert all(len(message.joint_names) == 7 for message in list(arm.executed))
        arm.torso = 0.3
        wait_for(lambda: arm.mode == ControlMode.HOLD, 'HOLD')
        assert f"held joint '{TORSO}' at 0.250 (it is at 0.300)" in arm.modes[-1].reason
        arm.commands.clear()
        arm.lifts.clear()
        arm.start_motion()
        np.testing.assert_allclose(arm.commands[-1].points[0].positions[0], 0.3)
