"""The controller of sim_robot: messages, states as messages, and its parameters."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import rclpy
from rclpy.node import Node
from support.controllers import Rig
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from lingbot_va_ros.nodes.parameters import declare_parameters
from lingbot_va_ros.nodes.sim_robot.messages import state_message, state_type, trajectory_of
from lingbot_va_ros.nodes.sim_robot.parameters import PARAMETERS, read_controller_settings
from lingbot_va_ros.sim.controllers.settings import controller_settings, Replacement


class State(SimpleNamespace):
    """Stands in for control_msgs' JointTrajectoryControllerState, which may be missing."""

    def __init__(self):
        super().__init__(header=SimpleNamespace(), speed_scaling_factor=0.0)


@pytest.fixture(scope='module')
def ros():
    rclpy.init()
    yield
    rclpy.try_shutdown()


def test_a_state_becomes_a_message():
    rig = Rig(tau=0.03)
    rig.run(0.3)
    message = state_message(State, ('a',), rig.controller.state)
    assert message.joint_names == ['a'] and message.speed_scaling_factor == 1.0
    assert message.reference.positions[0] - message.feedback.positions[0] == pytest.approx(
        message.error.positions[0])
    assert list(message.output.positions) == list(rig.controller.command)
    assert message.reference.velocities and message.reference.accelerations
    assert message.feedback.velocities and not message.feedback.accelerations


def test_the_type_of_the_state_is_that_of_control_msgs(monkeypatch):
    stub = ModuleType('control_msgs.msg')
    stub.JointTrajectoryControllerState = State
    monkeypatch.setitem(sys.modules, 'control_msgs', ModuleType('control_msgs'))
    monkeypatch.setitem(sys.modules, 'control_msgs.msg', stub)
    assert state_type() is State
    monkeypatch.setitem(sys.modules, 'control_msgs.msg', None)
    assert state_type() is None


def test_a_message_keeps_its_points():
    message = JointTrajectory(joint_names=['a'], points=[
        JointTrajectoryPoint(positions=[1.0], velocities=[0.0])])
    message.points[0].time_from_start.nanosec = 7
    trajectory = trajectory_of(message, 5)
    assert trajectory.stamp_ns == 5 and trajectory.joint_names == ('a',)
    assert trajectory.points[0].time_from_start_ns == 7
    assert not len(trajectory.points[0].accelerations)


def test_parameters_choose_the_controller(ros):
    node = Node('bare')
    try:
        declare_parameters(node, PARAMETERS)
        assert read_controller_settings(node) == controller_settings('jazzy')
    finally:
        node.destroy_node()
    node = Node('bare', parameter_overrides=[
        rclpy.Parameter('controller', value='rolling'),
        rclpy.Parameter('controller_rate', value=250),
        rclpy.Parameter('interpolate_from_desired_state', value=False)])
    try:
        declare_parameters(node, PARAMETERS)
        settings = read_controller_settings(node)
        assert settings.replacement is Replacement.SPLICED
        assert settings.period_ns == 4_000_000 and not settings.joins_last_command
    finally:
        node.destroy_node()
