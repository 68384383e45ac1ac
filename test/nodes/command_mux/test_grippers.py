"""Grippers that are driven by an action: goals over real DDS, where control_msgs is installed."""

import contextlib
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rclpy
from rclpy.action import ActionServer, CancelResponse
from rclpy.context import Context
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from support.node_processes import start_mux
from support.spinning import spinning
from support.waiting import wait_for
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint
import yaml

from lingbot_va_ros.msg import ControlMode
from lingbot_va_ros.nodes.qos import COMMAND, EVENTS, EXECUTED, JOINT_STATES, LATCHED
from lingbot_va_ros.resources import shared_file
from lingbot_va_ros.specs.embodiment import load_embodiment
from lingbot_va_ros.srv import SetControlMode

NS = 1_000_000_000
DEADLINE = 25.0
ACTION = 'hand/gripper_action'
try:
    from control_msgs.action import GripperCommand, ParallelGripperCommand
    KINDS = [GripperCommand, ParallelGripperCommand]
except ImportError as error:
    KINDS, missing = [None], str(error)
else:
    missing = ''
needs_control_msgs = pytest.mark.skipif(
    bool(missing), reason=f'control_msgs is not installed: {missing}')


@pytest.fixture(scope='module')
def embodiment(tmp_path_factory) -> Path:
    """Return sim_left with its gripper behind an action."""
    data = yaml.safe_load(shared_file('config', 'embodiments', 'sim_left.yaml').read_text())
    gripper = data['controllers'][0]['joints'].pop()
    data['controllers'].append({
        'topic': ACTION, 'kind': 'gripper_action', 'joints': [gripper], 'max_effort': 12.5})
    data['urdf'] = str(shared_file('urdf', 'sim_left.urdf'))
    path = tmp_path_factory.mktemp('robot') / 'with_action.yaml'
    path.write_text(yaml.safe_dump(data))
    return path


class Hand:
    """A robot whose arm goes where it is told and whose gripper has an action server."""

    def __init__(self, node, robot, kind):
        self.node, self.robot, self.kind = node, robot, kind
        self.goals, self.canceled, self.commands, self.executed, self.modes = [], [], [], [], []
        self.server = kind and ActionServer(
            node, kind, ACTION, self.on_goal,
            cancel_callback=lambda goal: self.canceled.append(goal) or CancelResponse.ACCEPT)
        self.start = robot.home.copy()
        self.goal = robot.home.copy()
        self.alive = True
        node.create_subscription(
            JointTrajectory, 'joint_trajectory_controller/joint_trajectory',
            self.commands.append, EVENTS)
        node.create_subscription(JointTrajectory, 'executed', self.executed.append, EXECUTED)
        node.create_subscription(ControlMode, 'command_mux/mode', self.modes.append, LATCHED)
        self.joint_states = node.create_publisher(JointState, 'joint_states', JOINT_STATES)
        self.policy = node.create_publisher(JointTrajectory, 'policy/joint_trajectory', COMMAND)
        node.create_timer(0.02, self.publish)
        self.set_mode_client = node.create_client(SetControlMode, 'command_mux/set_mode')

    def on_goal(self, handle):
        self.goals.append((time.monotonic(), handle.request))
        handle.succeed()
        return self.kind.Result()

    def positions(self):
        """Return what the goals asked for."""
        if self.kind.__name__ == 'GripperCommand':
            return [goal.command.position for _, goal in self.goals]
        return [goal.command.position[0] for _, goal in self.goals]

    def publish(self):
        now = time.time_ns()
        measured = np.array(
            self.executed[-1].points[0].positions if self.executed else self.start)
        state = JointState(name=list(self.robot.joints), position=list(measured))
        state.header.stamp.sec, state.header.stamp.nanosec = divmod(now, NS)
        self.joint_states.publish(state)
        if not self.alive:
            return
        plan = JointTrajectory(joint_names=list(self.robot.joints))
        plan.header.stamp.sec, plan.header.stamp.nanosec = divmod(now, NS)
        for index in range(1, 6):
            way = np.clip(self.goal - measured, -0.02, 0.02)  # more would be a jump
            point = JointTrajectoryPoint(
                positions=list(measured + way), velocities=[0.0] * len(self.goal))
            point.time_from_start.nanosec = index * 60_000_000
            plan.points.append(point)
        self.policy.publish(plan)

    def call(self, client, request):
        assert client.wait_for_service(timeout_sec=DEADLINE)
        future = client.call_async(request)
        wait_for(future.done, 'an answer')
        return future.result()

    def set_mode(self, mode):
        return self.call(self.set_mode_client, SetControlMode.Request(mode=mode))

    def mode(self):
        return self.modes[-1].mode if self.modes else None


@contextlib.contextmanager
def spinning_apart(name):
    """Yield a node in a context of its own: an action server leaves the graph only with that."""
    context = Context()
    rclpy.init(context=context)
    try:
        with spinning(rclpy.create_node(name, context=context)) as node:
            yield node
    finally:
        context.shutdown()


@contextlib.contextmanager
def running(embodiment, kind, *parameters):
    with spinning_apart('test_hand') as node:
        yield from hand_and_mux(node, embodiment, kind, *parameters)


def hand_and_mux(node, embodiment, kind, *parameters):
    hand = Hand(node, load_embodiment(str(embodiment)), kind)
    # A busy machine may deliver late, which is not what is tested here.
    patient = ('source_timeout:=3.0', 'joint_state_timeout:=3.0')
    arguments = [item for parameter in (f'embodiment:={embodiment}', *patient, *parameters)
                 for item in ('-p', parameter)]
    process = start_mux(os.devnull, *arguments)
    try:
        wait_for(lambda: hand.mode() == ControlMode.HOLD, 'the first mode')
        yield hand
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()


@needs_control_msgs
@pytest.mark.parametrize('kind', KINDS, ids=lambda kind: kind and kind.__name__)
def test_the_gripper_follows_by_few_goals_and_the_arm_by_its_controller(embodiment, kind):
    with running(embodiment, kind, 'gripper_goal_rate:=10.0') as hand:
        wait_for(lambda: hand.set_mode(ControlMode.POLICY).success, 'POLICY')
        wait_for(lambda: len(hand.executed) > 20, 'commands')
        assert not hand.goals, 'a motion begins without a goal'
        hand.goal = hand.goal * [1, 1, 1, 1, 1, 1, 0]  # closed
        wait_for(lambda: hand.goals and hand.positions()[-1] < 0.001, 'the gripper to close')
        times, positions = [at for at, _ in hand.goals], hand.positions()
        assert len(positions) <= 8 and np.all(np.diff(positions) < 0)
        assert np.all(np.diff(times) > 0.05)
        goal = hand.goals[-1][1]
        if kind.__name__ == 'GripperCommand':
            assert goal.command.max_effort == 12.5
        else:
            assert list(goal.command.name) == ['left_gripper_joint']
            assert list(goal.command.effort) == [12.5] and not len(goal.command.velocity)
        assert 'left_gripper_joint' not in hand.commands[-1].joint_names
        assert 'left_gripper_joint' in hand.executed[-1].joint_names


@needs_control_msgs
@pytest.mark.parametrize('kind', KINDS[:1], ids=lambda kind: kind and kind.__name__)
def test_a_stop_leaves_the_gripper_its_last_goal(embodiment, kind):
    with running(embodiment, kind) as hand:
        wait_for(lambda: hand.set_mode(ControlMode.POLICY).success, 'POLICY')
        hand.goal = hand.goal * [1, 1, 1, 1, 1, 1, 0]
        wait_for(lambda: hand.goals, 'a goal')
        hand.set_mode(ControlMode.STOPPED)
        wait_for(lambda: hand.mode() == ControlMode.STOPPED, 'STOPPED')
        time.sleep(0.3)  # one goal may have been on its way
        count = len(hand.goals)
        client = hand.node.create_client(Trigger, 'command_mux/clear_stop')
        assert hand.call(client, Trigger.Request()).success
        assert hand.set_mode(ControlMode.HOLD).success
        time.sleep(0.7)
        assert len(hand.goals) == count and not hand.canceled


@needs_control_msgs
@pytest.mark.parametrize('kind', KINDS[:1], ids=lambda kind: kind and kind.__name__)
def test_without_its_action_server_nothing_moves_and_its_loss_means_hold(embodiment, kind):
    with running(embodiment, None) as hand:
        answer = wait_for(
            lambda: (said := hand.set_mode(ControlMode.POLICY)).success is False
            and 'joint_states' not in said.message and 'plan' not in said.message
            and 'policy/' not in said.message and said, 'only the gripper to be missing')
        assert f'action server /{ACTION} (none is there)' in answer.message
        hand.kind = kind
        with spinning_apart('test_server') as node:
            ActionServer(node, kind, ACTION, hand.on_goal)
            wait_for(lambda: hand.set_mode(ControlMode.POLICY).success, 'POLICY')
        wait_for(lambda: hand.mode() == ControlMode.HOLD, 'HOLD')
        assert 'lost action server' in hand.modes[-1].reason


def test_without_control_msgs_the_start_is_rejected_in_one_line(embodiment, tmp_path):
    hidden = tmp_path / 'control_msgs'
    hidden.mkdir()
    (hidden / '__init__.py').write_text("raise ImportError('hidden for this test')\n")
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(
        [str(tmp_path), *filter(None, [os.environ.get('PYTHONPATH')])])}
    done = subprocess.run(
        [sys.executable, '-m', 'lingbot_va_ros.nodes.command_mux.node', '--ros-args', '-p',
         f'embodiment:={embodiment}'], capture_output=True, text=True, timeout=30, env=environment)
    assert done.returncode == 1
    lines = [line for line in done.stderr.strip().splitlines() if 'PROFILES_FILE' not in line]
    assert len(lines) == 1, done.stderr
    assert "embodiment 'sim_left': a gripper_action controller needs the package control_msgs" in (
        lines[0]) and 'ros-$ROS_DISTRO-control-msgs' in lines[0]


def franka_description(prefix: Path) -> None:
    """Write a package with the frames, joints and limits that franka_description has."""
    limits = ((2.7437, 2.62), (1.7837, 2.62), (2.9007, 2.62), (3.0421, 2.62), (2.8065, 5.26),
              (4.5169, 4.18), (3.0159, 5.26))
    xml = ['<robot name="fr3_duo"><link name="base"/>']

    def joint(name, kind, parent, child, reach=0.0, speed=0.0, more=''):
        lower = -reach if kind == 'revolute' else 0.0
        xml.append(
            f'<link name="{child}"/><joint name="{name}" type="{kind}"><parent link="{parent}"/>'
            f'<child link="{child}"/><origin xyz="0.1 0 0.1"/><axis xyz="0 0 1"/><limit '
            f'lower="{lower}" upper="{reach}" velocity="{speed}" effort="1"/>{more}</joint>')
    for side in ('left_fr3', 'right_fr3'):
        joint(f'{side}_base', 'fixed', 'base', f'{side}_link0')
        for number, (reach, speed) in enumerate(limits):
            joint(f'{side}_joint{number + 1}', 'revolute', f'{side}_link{number}',
                  f'{side}_link{number + 1}', reach, speed)
        joint(f'{side}_hand', 'fixed', f'{side}_link7', f'{side}_hand_tcp')
        for finger, more in ((1, ''), (2, f'<mimic joint="{side}_finger_joint1"/>')):
            joint(f'{side}_finger_joint{finger}', 'prismatic', f'{side}_hand_tcp',
                  f'{side}_finger{finger}', 0.04, 0.2, more)
    folder = prefix / 'share' / 'franka_description' / 'robots' / 'fr3_duo'
    folder.mkdir(parents=True)
    (folder / 'fr3_duo.urdf.xacro').write_text(''.join(xml) + '</robot>')
    packages = prefix / 'share' / 'ament_index' / 'resource_index' / 'packages'
    packages.mkdir(parents=True)
    (packages / 'franka_description').write_text('')


@needs_control_msgs
@pytest.mark.parametrize('kind', KINDS[:1], ids=lambda kind: kind and kind.__name__)
def test_two_frankas_start_and_need_both_hands(kind, tmp_path, monkeypatch):
    franka_description(tmp_path)
    monkeypatch.setenv('AMENT_PREFIX_PATH', os.pathsep.join(
        [str(tmp_path), *filter(None, [os.environ.get('AMENT_PREFIX_PATH')])]))
    with running('dual_franka', None) as hand:
        answer = hand.set_mode(ControlMode.POLICY)
        assert not answer.success
        for side in ('left', 'right'):
            assert f'/{side}/franka_gripper/gripper_action (none is there)' in answer.message
        servers = [ActionServer(hand.node, kind, f'{side}/franka_gripper/gripper_action',
                                lambda handle: handle.succeed() or kind.Result())
                   for side in ('left', 'right')]
        for side in ('left', 'right'):
            hand.node.create_subscription(
                JointTrajectory, f'{side}_arm_controller/joint_trajectory', hand.commands.append,
                EVENTS)
        assert servers and wait_for(lambda: hand.set_mode(ControlMode.POLICY).success, 'POLICY')
