"""Drivers of actions, jogs and groups over DDS, where the packages of their messages are there."""

import contextlib
import importlib.util
import signal
import time

from nodes.command_mux.test_controller_kinds import ARM, Drivers, GRIPPER, PATIENT, robot_file
import numpy as np
import pytest
import rclpy
from rclpy.action import ActionServer, GoalResponse
from sensor_msgs.msg import JointState
from support.messages import nanoseconds, stamped
from support.node_processes import node_process
from support.spinning import spinning
from support.waiting import wait_for, wait_for_end

from lingbot_va_ros.motion.plan import Plan, resting_at
from lingbot_va_ros.msg import ControlMode
from lingbot_va_ros.nodes.qos import EVENTS

ACTION = '/arm/follow_joint_trajectory'
HAS_ACTIONS = importlib.util.find_spec('control_msgs') is not None
HAS_GROUPS = importlib.util.find_spec('interbotix_xs_msgs') is not None
needs_control_msgs = pytest.mark.skipif(not HAS_ACTIONS, reason='control_msgs is not installed')
needs_interbotix = pytest.mark.skipif(
    not HAS_GROUPS, reason='interbotix_xs_msgs is not installed')


@pytest.fixture(scope='module', autouse=True)
def ros():
    rclpy.init()
    yield
    rclpy.try_shutdown()


@contextlib.contextmanager
def running_mux(tmp_path, controllers):
    file = robot_file(tmp_path, controllers)
    arguments = [
        item for parameter in (f'embodiment:={file}', *PATIENT) for item in ('-p', parameter)]
    with node_process('command_mux', tmp_path / 'mux.log', *arguments) as process:
        yield process


class ActionArm(Drivers):
    """An arm behind FollowJointTrajectory, and a hand behind a trajectory topic."""

    def __init__(self, node):
        from control_msgs.action import FollowJointTrajectory

        super().__init__(node)
        self.kind = FollowJointTrajectory
        self.motion = resting_at(0, self.q)
        self.goals, self.rejects, self.aborts, self.newest = [], False, False, None
        self.server = ActionServer(
            node, FollowJointTrajectory, ACTION, self.abort,
            goal_callback=lambda goal: (
                GoalResponse.REJECT if self.rejects else GoalResponse.ACCEPT),
            handle_accepted_callback=self.accept)

    def accept(self, handle):
        message = handle.request.trajectory
        assert list(message.joint_names) == ['one', *ARM[1:]]
        self.goals.append((time.monotonic(), message))
        begin = nanoseconds(message.header.stamp)
        if self.aborts:
            self.abort(handle)
            return
        before, self.newest = self.newest, handle
        if before is not None:
            self.abort(before)  # some servers end a goal so that another one replaces
        hand = self.q[6]
        self.motion = Plan(
            np.array([begin + nanoseconds(p.time_from_start) for p in message.points]),
            np.array([[*p.positions, hand] for p in message.points]),
            np.array([[*p.velocities, 0.0] for p in message.points]))

    def abort(self, handle):
        def execute(goal):
            goal.abort()
            return self.kind.Result(error_code=-4, error_string='path tolerance')

        handle.execute(execute)

    def publish_states(self):
        if hasattr(self, 'motion'):
            self.q[:6] = self.motion.sample(time.time_ns())[0][:6]
        message = JointState(name=[*ARM, GRIPPER], position=list(self.q))
        self.states.publish(stamped(message, time.time_ns()))

    def is_moving(self):
        return np.abs(self.motion.sample(time.time_ns())[1]).max() > 0.2


@needs_control_msgs
def test_an_arm_behind_an_action_gets_few_goals_and_every_stop(tmp_path):
    controllers = [
        {'topic': ACTION, 'kind': 'trajectory_action', 'joints': ARM, 'goal_rate': 20.0,
         'names': {ARM[0]: 'one'}},
        {'topic': 'hand/joint_trajectory', 'kind': 'trajectory', 'joints': [GRIPPER]}]
    with running_mux(tmp_path, controllers) as process, spinning(
            rclpy.create_node('action_arm')) as node:
        arm = ActionArm(node)
        arm.start_motion()
        begin = len(arm.goals)
        wait_for(lambda: len(arm.goals) > begin + 20, 'goals')
        times = [stamp for stamp, _ in arm.goals[begin:begin + 20]]
        assert np.median(np.diff(times)) > 0.04
        # Each goal goes on from the one before, which had not begun to brake by then.
        assert arm.mode == ControlMode.POLICY
        for (_, before), (_, after) in zip(arm.goals[begin:], arm.goals[begin + 1:]):
            gap = nanoseconds(after.header.stamp) - nanoseconds(before.header.stamp)
            times_ns = [nanoseconds(point.time_from_start) for point in before.points]
            knots = np.array([point.positions for point in before.points])
            if gap < 60_000_000:
                expected = [np.interp(gap, times_ns, column) for column in knots.T]
                np.testing.assert_allclose(
                    after.points[0].positions, expected, atol=1e-3)
        assert arm.set_mode(ControlMode.HOLD).success
        wait_for(lambda: not np.any(arm.motion.sample(time.time_ns())[1]), 'rest')
        executed = arm.executed[-1].points[0]
        np.testing.assert_allclose(
            arm.goals[-1][1].points[-1].positions, executed.positions[:6], atol=1e-9)
        # A rejected goal.
        arm.start_motion()
        arm.rejects = True
        wait_for(lambda: arm.mode == ControlMode.HOLD, 'HOLD')
        assert arm.modes[-1].reason == f'{ACTION} rejected a goal'
        arm.rejects = False
        # An aborted one.
        arm.start_motion()
        arm.aborts = True
        wait_for(lambda: arm.mode == ControlMode.HOLD, 'HOLD')
        assert 'aborted its goal (error -4: path tolerance)' in arm.modes[-1].reason
        arm.aborts = False
        # The end by SIGINT, from a motion.
        arm.start_motion()
        count = len(arm.goals)
        process.send_signal(signal.SIGINT)
        assert wait_for_end(process, 10.0) == 0
        wait_for(lambda: len(arm.goals) > count, 'the last stop')
        assert not np.any(arm.motion.velocities[-1])


@needs_control_msgs
def test_an_action_server_that_is_missing_is_named(tmp_path):
    controllers = [
        {'topic': ACTION, 'kind': 'trajectory_action', 'joints': [*ARM, GRIPPER]}]
    with running_mux(tmp_path, controllers), spinning(rclpy.create_node('drivers')) as node:
        drivers = Drivers(node)
        node.destroy_subscription(drivers.subscriptions['state'])
        wait_for(lambda: f'action server {ACTION} (none is there)' in drivers.set_mode(
            ControlMode.POLICY).message, 'a refusal')


@needs_control_msgs
def test_a_jogged_arm_gets_velocities_and_zeros_at_rest(tmp_path):
    from control_msgs.msg import JointJog

    controllers = [
        {'topic': 'jog', 'kind': 'joint_jog', 'joints': ARM, 'names': {ARM[0]: 'one'}},
        {'topic': 'hand/joint_trajectory', 'kind': 'trajectory', 'joints': [GRIPPER]}]
    with running_mux(tmp_path, controllers), spinning(rclpy.create_node('jogged')) as node:
        arm = Drivers(node)
        jogs = []

        def on_jog(message):
            jogs.append(message)
            arm.move()
            arm.rates[:6] = message.velocities

        node.create_subscription(JointJog, 'jog', on_jog, EVENTS)
        arm.publish_states = lambda: None
        node.create_timer(0.01, lambda: (arm.move(), arm.states.publish(stamped(JointState(
            name=[*ARM, GRIPPER], position=list(arm.q)), time.time_ns()))))
        arm.is_moving = lambda: bool(jogs) and abs(jogs[-1].velocities[0]) > 0.2
        arm.start_motion()
        assert list(jogs[-1].joint_names) == ['one', *ARM[1:]]
        assert jogs[-1].duration == pytest.approx(0.01) and not jogs[-1].displacements
        assert arm.set_mode(ControlMode.HOLD).success
        wait_for(lambda: not np.any(jogs[-1].velocities), 'zeros')


@needs_interbotix
def test_groups_and_single_joints_of_interbotix_get_positions(tmp_path):
    from interbotix_xs_msgs.msg import JointGroupCommand, JointSingleCommand

    controllers = [
        {'topic': 'commands/joint_group', 'kind': 'joint_group', 'joints': ARM, 'group': 'arm'},
        {'topic': 'commands/joint_single', 'kind': 'joint_group', 'joints': [GRIPPER],
         'names': {GRIPPER: 'gripper'}}]
    with running_mux(tmp_path, controllers), spinning(rclpy.create_node('xs')) as node:
        arm = Drivers(node)
        groups, singles = [], []

        def on_group(message):
            groups.append(message)
            arm.q[:6] = message.cmd

        node.create_subscription(JointGroupCommand, 'commands/joint_group', on_group, EVENTS)
        node.create_subscription(
            JointSingleCommand, 'commands/joint_single', singles.append, EVENTS)
        arm.publish_states = lambda: None
        node.create_timer(0.01, lambda: arm.states.publish(stamped(JointState(
            name=[*ARM, GRIPPER], position=list(arm.q)), time.time_ns())))
        arm.is_moving = lambda: len(groups) > 50
        arm.start_motion()
        assert groups[-1].name == 'arm' and singles[-1].name == 'gripper'
        assert arm.set_mode(ControlMode.HOLD).success
        wait_for(lambda: len(groups) > 5 and groups[-1].cmd == groups[-5].cmd, 'rest')
        last = arm.executed[-1].points[0].positions
        np.testing.assert_allclose(groups[-1].cmd, last[:6], atol=1e-6)
        assert singles[-1].cmd == pytest.approx(last[6], abs=1e-6)
