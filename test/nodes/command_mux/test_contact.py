"""Contact limits over DDS: efforts of joint states, and a wrench topic."""

import time

from geometry_msgs.msg import PoseStamped, WrenchStamped
from nodes.command_mux.test_controller_kinds import ARM, Drivers, GRIPPER, PATIENT, robot_file
import pytest
import rclpy
from rclpy.context import Context
from sensor_msgs.msg import JointState
from support.messages import stamped
from support.node_processes import node_process
from support.spinning import spinning
from support.waiting import wait_for

from lingbot_va_ros.msg import ControlMode
from lingbot_va_ros.nodes.qos import SENSOR


@pytest.fixture(scope='module', autouse=True)
def ros():
    rclpy.init()
    yield
    rclpy.try_shutdown()


class Arm(Drivers):
    """An arm with a force sensor; its efforts and forces are what a test says."""

    def __init__(self, node):
        super().__init__(node)
        self.efforts, self.force = [0.0] * 7, 0.0
        self.wrenches = node.create_publisher(WrenchStamped, '/ft/wrench', SENSOR)

    def on_hand(self, message):
        self.q[:] = message.points[-1].positions
        self.rows['hand'].append(message)

    def publish_states(self):
        message = JointState(
            name=[*ARM, GRIPPER], position=list(self.q), effort=list(self.efforts))
        self.states.publish(stamped(message, time.time_ns()))
        if self.force is not None:
            message = WrenchStamped()
            message.wrench.force.z = self.force
            self.wrenches.publish(message)

    def is_moving(self):
        return len(self.rows['hand']) > 30

    def wait_for_hold(self):
        wait_for(lambda: self.mode == ControlMode.HOLD, 'HOLD')
        self.rows['hand'].clear()
        return self.modes[-1].reason


def test_an_effort_or_a_force_beyond_its_limit_means_hold(tmp_path):
    file = robot_file(
        tmp_path,
        [{'topic': 'hand/joint_trajectory', 'kind': 'trajectory', 'joints': [*ARM, GRIPPER]}],
        contact={'efforts': {ARM[2]: 15.0},
                 'wrenches': [{'topic': '/ft/wrench', 'force': 30.0, 'timeout': 1.0}]})
    arguments = [item for parameter in (f'embodiment:={file}', *PATIENT)
                 for item in ('-p', parameter)]
    with node_process('command_mux', tmp_path / 'mux.log', *arguments), spinning(
            rclpy.create_node('arm')) as node:
        arm = Arm(node)
        arm.start_motion()
        arm.efforts[2] = -16.5
        assert arm.wait_for_hold() == (
            f"contact: the effort of '{ARM[2]}' is -16.5, more than 15")
        arm.efforts[2] = 0.0
        arm.start_motion()
        arm.force = 45.0
        assert arm.wait_for_hold() == 'contact: force z on /ft/wrench is 45, more than 30'
        arm.force = 0.0
        arm.start_motion()
        arm.efforts[2] = float('nan')
        assert arm.wait_for_hold() == f"lost the effort of '{ARM[2]}' (it is nan)"
        arm.efforts = []
        wait_for(lambda: f"the effort of '{ARM[2]}' (none came)" in arm.set_mode(
            ControlMode.POLICY).message, 'a refusal')
        arm.efforts = [0.0] * 7
        arm.start_motion()
        arm.force = None
        assert 'force x on /ft/wrench (silent for 1 s)' in arm.wait_for_hold()
        other = Context()  # one participant has one type for a topic
        rclpy.init(context=other)
        try:
            stranger = rclpy.create_node('stranger', context=other)
            stranger.create_publisher(PoseStamped, '/ft/wrench', SENSOR)
            wait_for(lambda: '/ft/wrench (is geometry_msgs/msg/PoseStamped' in arm.set_mode(
                ControlMode.POLICY).message, 'a refusal')
        finally:
            rclpy.shutdown(context=other)
