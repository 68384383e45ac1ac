"""The speed slider of Universal Robots over real DDS: mux, arm and policy follow it."""

import os

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
import numpy as np
import pytest
from rcl_interfaces.srv import SetParameters
import rclpy
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_msgs.msg import Float32
from support.messages import nanoseconds
from support.services import Services
from support.spinning import spinning
from support.waiting import DEADLINE, wait_for
from trajectory_msgs.msg import JointTrajectory

from lingbot_va_ros.cli.common.checkpoint import choose_checkpoint
from lingbot_va_ros.cli.common.processes import NodeProcesses
from lingbot_va_ros.cli.common.simulated_robot import MUX, POLICY, ROBOT, start_processes
from lingbot_va_ros.evaluation.tasks import INSTRUCTIONS
from lingbot_va_ros.motion.plan import Plan
from lingbot_va_ros.msg import ActionChunk, ControlMode
from lingbot_va_ros.nodes import qos
from lingbot_va_ros.srv import SetControlMode

NS = 1_000_000_000
STEP = 0.1  # s between two actions of the shipped checkpoint
SLIDER = 'speed_scaling_state_broadcaster/speed_scaling'
PATIENT = {'source_timeout': 5.0, 'joint_state_timeout': 5.0}  # however busy this machine is

pytestmark = pytest.mark.timeout(600)


class Robot:
    """A simulated UR-like arm, the mux that follows its slider, a policy, and what they say."""

    def __init__(self, node):
        self._call = Services(node).call
        self.chunks, self.executed, self.states = [], [], []
        self.modes, self.scales = [], []
        for kind, topic, heard, profile in (
                (ActionChunk, f'{POLICY}/action_chunk', self.chunks, qos.EVENTS),
                (JointTrajectory, 'executed', self.executed, qos.EXECUTED),
                (JointState, 'joint_states', self.states, qos.JOINT_STATES),
                (ControlMode, f'{MUX}/mode', self.modes, qos.LATCHED),
                (Float32, f'{MUX}/speed_scale', self.scales, qos.LATCHED)):
            node.create_subscription(kind, topic, heard.append, profile)

    def change(self, transition):
        request = ChangeState.Request(transition=Transition(id=transition))
        assert self._call(ChangeState, f'{POLICY}/change_state', request, DEADLINE).success

    def give_arm_to_policy(self):
        request = SetControlMode.Request(mode=ControlMode.POLICY)
        wait_for(lambda: self._call(
            SetControlMode, f'{MUX}/set_mode', request, DEADLINE).success, 'POLICY')

    def move_slider(self, percent):
        request = SetParameters.Request(parameters=[
            Parameter('speed_scaling', value=percent).to_parameter_msg()])
        answer, = self._call(
            SetParameters, f'{ROBOT}/set_parameters', request, DEADLINE).results
        assert answer.successful, answer.reason
        if percent:
            wait_for(lambda: self.scales and self.scales[-1].data == percent / 100, 'the scale')


@pytest.fixture
def robot(tmp_path):
    # The shipped one: the motion of random weights is beyond what an arm can follow.
    checkpoint = choose_checkpoint(None, tmp_path, os.environ, print)
    rclpy.init()
    try:
        with NodeProcesses(dict(os.environ), tmp_path) as processes:
            start_processes(
                processes, checkpoint,
                {'instruction': INSTRUCTIONS['wipe_plate'], 'max_camera_age': 5.0,
                 'max_camera_skew': 1.0},
                {'controller': 'ur_scaled', 'task': 'wipe_plate'},
                {'speed_scaling_topic': SLIDER, **PATIENT})
            with spinning(rclpy.create_node('test_speed_slider')) as node:
                yield Robot(node)
    finally:
        rclpy.try_shutdown()


def motion_of(trajectory):
    """Return a trajectory as a plan that can be sampled."""
    begin_ns = nanoseconds(trajectory.header.stamp)
    return Plan(
        np.array([begin_ns + nanoseconds(point.time_from_start) for point in trajectory.points]),
        np.array([point.positions for point in trajectory.points]),
        np.array([point.velocities for point in trajectory.points]))


def chunk_of(robot, step, motion=0.0):
    """Return the next chunk whose actions are `step` seconds apart and move so far, in rad."""
    first = len(robot.chunks)

    def wanted():
        for chunk in robot.chunks[first:]:
            plan = motion_of(chunk.trajectory)
            if (np.allclose(np.diff(plan.times_ns) / NS, step, atol=1e-3)
                    and np.ptp(plan.positions, axis=0).max() >= motion):
                return chunk
        return None
    wait_for(lambda: wanted() is not None, f'a chunk with steps of {step} s')
    return wanted()


def test_at_half_the_slider_the_arm_moves_at_half_the_speed_along_the_same_path(robot):
    robot.change(Transition.TRANSITION_CONFIGURE)
    robot.change(Transition.TRANSITION_ACTIVATE)
    robot.give_arm_to_policy()
    chunk_of(robot, STEP)
    robot.move_slider(50.0)
    half = motion_of(chunk_of(robot, 2 * STEP, motion=0.05).trajectory)
    wait_for(lambda: robot.executed and nanoseconds(
        robot.executed[-1].header.stamp) > half.end_ns + NS // 2, 'its end')
    commands = {nanoseconds(message.header.stamp): message.points[0].positions
                for message in robot.executed}
    states = {nanoseconds(message.header.stamp): message.position for message in robot.states}
    path = np.array([half.sample(time_ns)[0] for time_ns in range(
        int(half.times_ns[0]), half.end_ns, NS // 500)])
    for rows, most_off, most_behind in ((commands, 0.005, 0.01), (states, 0.005, 0.05)):
        inside = [stamp for stamp in rows if half.times_ns[0] <= stamp <= half.end_ns]
        assert len(inside) > 50
        for q, stamp in ((rows[stamp], stamp) for stamp in inside):
            assert np.abs(path - q).max(axis=1).min() < most_off  # on the path of the actions
            assert np.abs(half.sample(stamp)[0] - q).max() < most_behind  # at half their speed
    robot.move_slider(0.0)
    wait_for(lambda: robot.modes[-1].mode == ControlMode.HOLD, 'HOLD')
    assert 'speed scaling' in robot.modes[-1].reason
    robot.move_slider(100.0)
    robot.give_arm_to_policy()
    chunk_of(robot, STEP)
