"""sim_robot as its own process, over real DDS."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rclpy
from rclpy.duration import Duration
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from rclpy.qos import ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64, String
from std_srvs.srv import Trigger
from support.waiting import wait_for_end
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from lingbot_va_ros.nodes.qos import COMMAND, EVENTS, LATCHED, SENSOR
from lingbot_va_ros.sim.experts import make_expert, PERIOD
from lingbot_va_ros.sim.simulation import Simulation

COMMANDS = 'joint_trajectory_controller/joint_trajectory'


class Robot:
    """A sim_robot process in a namespace of its own, and what it says."""

    def __init__(self, log, namespace, **parameters):
        self.namespace = namespace
        self.node = rclpy.create_node(
            'watcher', namespace=namespace, use_global_arguments=False)
        self.heard = {}
        self.commands = self.node.create_publisher(JointTrajectory, COMMANDS, COMMAND)
        self.resets = self.node.create_client(Trigger, 'sim_robot/reset')
        self.log_file = open(log, 'w')
        self.process = start(parameters, self.log_file, namespace)
        self.log = log

    def listen(self, kind, topic, qos=SENSOR):
        self.heard[topic] = []
        self.node.create_subscription(
            kind, topic, lambda message: self.heard[topic].append((time.monotonic(), message)),
            qos)

    def spin_until(self, condition, seconds=60.0):
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f'sim_robot ended: {self.logged()}'
            assert time.monotonic() < deadline, f'waited {seconds} s; log: {self.logged()}'
            rclpy.spin_once(self.node, timeout_sec=0.05)

    def spin_for(self, seconds):
        end = time.monotonic() + seconds
        self.spin_until(lambda: time.monotonic() > end, seconds + 5)

    def newest(self, topic):
        return self.heard[topic][-1][1]

    def next(self, topic):
        count = len(self.heard[topic])
        self.spin_until(lambda: len(self.heard[topic]) > count)
        return self.newest(topic)

    def call(self, future):
        self.spin_until(future.done)
        return future.result()

    def reset(self):
        return self.call(self.resets.call_async(Trigger.Request()))

    def set(self, **values):
        client = AsyncParameterClient(self.node, f'/{self.namespace}/sim_robot')
        assert client.wait_for_services(10.0)
        return self.call(client.set_parameters(
            [Parameter(name, value=value) for name, value in values.items()])).results

    def counted(self):
        return json.loads(self.next('sim_robot/task_state').data)

    def logged(self):
        return open(self.log).read()

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(timeout=5.0)
        finally:
            self.process.kill()
            self.log_file.close()
            self.node.destroy_node()


def start(parameters, output, namespace='refused'):
    arguments = [part for name, value in parameters.items()
                 for part in ('-p', f'{name}:={json.dumps(value)}')]
    return subprocess.Popen(
        [sys.executable, '-m', 'lingbot_va_ros.nodes.sim_robot.node', '--ros-args',
         '-r', f'__ns:=/{namespace}', *arguments],
        stdout=output, stderr=subprocess.STDOUT, env={**os.environ, 'PYTHONUNBUFFERED': '1'})


@pytest.fixture(scope='module')
def ros():
    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture(scope='module')
def robot(ros, tmp_path_factory):
    made = Robot(tmp_path_factory.mktemp('sim') / 'log', 'plain')
    try:
        made.listen(JointState, 'joint_states')
        for camera in ('head', 'left_wrist'):
            made.listen(Image, f'camera/{camera}/image_raw')
            made.listen(CameraInfo, f'camera/{camera}/camera_info')
        made.listen(String, 'sim_robot/task_state', LATCHED)
        made.spin_until(lambda: all(made.heard.values()))
        made.spin_until(lambda: made.commands.get_subscription_count() == 1)
        assert made.resets.wait_for_service(10.0)
        yield made
    finally:
        made.close()


def seconds(stamp):
    return stamp.sec + stamp.nanosec * 1e-9


def command(robot, positions, after=0.5, stamp=None):
    """Build a one-point command that ends standing still."""
    message = JointTrajectory()
    message.joint_names = list(robot.newest('joint_states').name)
    if stamp is not None:
        message.header.stamp = stamp
    point = JointTrajectoryPoint(positions=list(positions))
    point.velocities = [0.0] * len(point.positions)
    point.time_from_start.sec = int(after)
    point.time_from_start.nanosec = round(after % 1 * 1e9)
    message.points = [point]
    return message


def distance(robot, positions):
    return np.abs(np.array(robot.newest('joint_states').position) - positions).max()


def test_joint_states_name_arm_and_gripper_with_all_their_values(robot):
    state = robot.next('joint_states')
    assert list(state.name) == [f'left_joint_{n}' for n in range(1, 7)] + ['left_gripper_joint']
    assert len(state.position) == len(state.velocity) == len(state.effort) == 7
    assert distance(robot, [0, 0, 1.8, 0, 1.34, 0, 0.04]) < 0.1


def test_rates_and_stamps(robot):
    for heard in robot.heard.values():
        heard.clear()
    rates = {'joint_states': 100, 'camera/head/image_raw': 30, 'camera/left_wrist/image_raw': 30}
    robot.spin_until(
        lambda: all(len(robot.heard[topic]) > 1.5 * rate for topic, rate in rates.items()), 60.0)
    now = robot.node.get_clock().now().nanoseconds * 1e-9 - time.monotonic()  # at monotonic 0
    for topic, rate in rates.items():
        stamps = np.array([seconds(message.header.stamp) for _, message in robot.heard[topic]])
        # Stamped periods, not arrivals. A busy machine leaves images out, and delivers late.
        assert 1 / np.quantile(np.diff(stamps), 0.2) == pytest.approx(rate, rel=0.12)
        assert (np.diff(stamps) > 0).all()
        ages = [now + at - stamp for (at, _), stamp in zip(robot.heard[topic], stamps)]
        assert 0 <= min(ages) < 0.5
    head = {seconds(m.header.stamp) for _, m in robot.heard['camera/head/image_raw']}
    wrist = {seconds(m.header.stamp) for _, m in robot.heard['camera/left_wrist/image_raw']}
    info = {seconds(m.header.stamp) for _, m in robot.heard['camera/head/camera_info']}
    assert len(head & wrist) > 0.8 * len(head)
    assert len(head & info) > 0.8 * len(head)


def test_pictures_are_rgb_and_differ_between_the_cameras(robot):
    pictures = []
    for camera in ('head', 'left_wrist'):
        message = robot.next(f'camera/{camera}/image_raw')
        assert (message.height, message.width, message.step) == (128, 128, 384)
        assert message.encoding == 'rgb8'
        assert message.header.frame_id == f'{camera}_camera_optical_frame'
        pictures.append(np.frombuffer(message.data, np.uint8).reshape(128, 128, 3))
        assert pictures[-1].std() > 10
    assert np.abs(pictures[0].astype(int) - pictures[1]).mean() > 5


def test_camera_info_has_the_field_of_view(robot):
    info = robot.next('camera/head/camera_info')
    assert (info.width, info.height) == (128, 128)
    assert info.distortion_model == 'plumb_bob' and set(info.d) == {0.0}
    focal_length = 64 / np.tan(np.deg2rad(48.0) / 2)
    np.testing.assert_allclose(
        info.k, [focal_length, 0, 63.5, 0, focal_length, 63.5, 0, 0, 1])
    assert info.p[0] == info.k[0] and info.p[2] == info.k[2]


@pytest.mark.parametrize('topic', [
    'camera/head/image_raw', 'camera/head/camera_info', 'joint_states', 'sim_robot/task_state'])
def test_publishes_reliably(robot, topic):
    publisher, = robot.node.get_publishers_info_by_topic(
        f'/{robot.namespace}/{topic}')
    assert publisher.qos_profile.reliability == ReliabilityPolicy.RELIABLE


def test_moves_where_it_is_told_and_holds(robot):
    goal = [0.3, 0.2, 1.6, 0.1, 1.2, -0.4, 0.01]
    robot.commands.publish(command(robot, goal))
    robot.spin_until(lambda: distance(robot, goal) < 0.005)
    robot.spin_for(0.3)
    assert distance(robot, goal) < 0.005


def test_takes_a_ros_time_stamp(robot):
    goal = [-0.2, 0.0, 1.8, 0.0, 1.34, 0.0, 0.03]
    robot.commands.publish(command(robot, goal, stamp=robot.node.get_clock().now().to_msg()))
    robot.spin_until(lambda: distance(robot, goal) < 0.005)


def test_rejections_are_counted_named_and_move_nothing(robot):
    robot.reset()
    home = [0, 0, 1.8, 0, 1.34, 0, 0.04]
    robot.spin_until(lambda: distance(robot, home) < 0.005)
    before = robot.counted()['rejected_trajectories']
    away = [0.5] * 6 + [0.0]
    late = command(robot, away, stamp=robot.node.get_clock().now().to_msg())
    late.header.stamp.sec -= 10
    strange = command(robot, away)
    strange.joint_names[2] = 'nose'
    moving = command(robot, away)
    moving.points[-1].velocities[0] = 0.5
    not_a_number = command(robot, [float('nan')] * 7)
    for wanted, message, reason in (
            (1, late, 'in the past'), (2, strange, 'unknown joints: nose'),
            (3, moving, 'last velocity of joint left_joint_1'),
            (4, not_a_number, 'positions of joint left_joint_1 is nan')):
        robot.commands.publish(message)
        robot.spin_until(
            lambda: robot.counted()['rejected_trajectories'] - before == wanted)
        if wanted == 1:
            robot.spin_until(lambda: 'trajectory rejected: the last point' in robot.logged())
            assert reason in robot.logged()
    assert distance(robot, home) < 0.005


def test_rejection_log_is_throttled(robot):
    robot.spin_for(1.1)
    lines = robot.logged().count('trajectory rejected')
    before = robot.counted()['rejected_trajectories']
    empty = command(robot, [0.0] * 7)
    empty.points = []
    for _ in range(20):
        robot.commands.publish(empty)
        robot.spin_for(0.02)
    robot.spin_until(lambda: robot.counted()['rejected_trajectories'] > before + 10)
    assert 1 <= robot.logged().count('trajectory rejected') - lines <= 2


def test_reset_brings_the_arm_home_and_the_seed_lays_out_the_scene(robot):
    def picture():
        robot.next('camera/head/image_raw')
        data = robot.next('camera/head/image_raw').data
        return np.frombuffer(data, np.uint8).astype(int)

    def laid_out(seed):
        assert all(result.successful for result in robot.set(seed=seed))
        answer = robot.reset()
        assert answer.success and f'seed {seed}' in answer.message
        return picture()

    robot.commands.publish(command(robot, [0.5, 0.3, 1.6, 0.1, 1.2, 0.0, 0.0]))
    first = laid_out(3)
    assert distance(robot, [0, 0, 1.8, 0, 1.34, 0, 0.04]) < 0.005
    stamp = seconds(robot.newest('joint_states').header.stamp)
    second = laid_out(4)
    assert seconds(robot.next('joint_states').header.stamp) > stamp
    again = laid_out(3)
    assert np.abs(first - second).max() > 50
    assert np.abs(first - again).max() <= 2


def test_a_protective_stop_holds_the_arm_until_it_is_resumed(robot):
    stop, resume = (robot.node.create_client(Trigger, f'sim_robot/{name}')
                    for name in ('protective_stop', 'resume'))
    robot.reset()
    assert stop.wait_for_service(10.0) and resume.wait_for_service(10.0)
    home = np.array([0, 0, 1.8, 0, 1.34, 0, 0.04])
    goal = home + [0.8, 0, 0, 0, 0, 0, 0]
    robot.commands.publish(command(robot, goal, 2.0))
    robot.spin_until(lambda: distance(robot, home) > 0.1)
    answer = robot.call(stop.call_async(Trigger.Request()))
    assert answer.success and '~/resume' in answer.message
    robot.spin_for(0.3)
    held = np.array(robot.next('joint_states').position)
    accepted = robot.counted()['accepted_trajectories']
    robot.commands.publish(command(robot, home))
    robot.spin_for(1.0)
    assert distance(robot, held) < 0.005 and distance(robot, goal) > 0.1
    assert robot.counted()['accepted_trajectories'] == accepted
    assert robot.call(resume.call_async(Trigger.Request())).success
    robot.spin_for(0.3)
    assert distance(robot, held) < 0.005
    assert 'already' in robot.call(resume.call_async(Trigger.Request())).message
    robot.commands.publish(command(robot, home))
    robot.spin_until(lambda: distance(robot, home) < 0.005)


def test_task_state(robot):
    state = robot.counted()
    assert state['task'] == 'table'
    assert state['counts'] == {} and not state['done'] and not state['success']


@pytest.mark.parametrize('task, counts', [
    ('wipe_plate', {'strokes': 6}),
    ('open_boxes', {'opened_a': 1, 'closed_a': 1, 'opened_b': 1, 'closed_b': 0})])
def test_says_how_a_task_stands(robot, task, counts):
    def state_when(holds):
        robot.spin_until(lambda: holds(robot.counted()), 30.0)
        return robot.counted()

    assert all(result.successful for result in robot.set(task=task, seed=5, realtime_factor=6.0))
    try:
        assert robot.reset().message == f'task {task}, seed 5'
        begun = state_when(lambda state: state['task'] == task)
        assert begun['counts'] == dict.fromkeys(counts, 0)
        assert not begun['done'] and not begun['success']
        # The expert's way through the same scene, all in one message.
        simulation = Simulation(task=task, seed=5)
        commands = make_expert(simulation, np.random.default_rng(5)).commands
        message = JointTrajectory(joint_names=list(simulation.joints), points=[
            JointTrajectoryPoint(positions=row, time_from_start=Duration(
                seconds=PERIOD * number).to_msg()) for number, row in enumerate(commands, 1)])
        robot.commands.publish(message)
        ended = state_when(lambda state: state['done'])
        assert ended['success'] and ended['counts'] == counts, ended
        assert 'home' in ended['detail']
    finally:
        robot.set(task='table', realtime_factor=1.0)
        robot.reset()


@pytest.mark.parametrize('name, value, reason', [
    ('seed', -3, 'out of range'), ('task', 'juggle', 'expected one of'),
    ('realtime_factor', 0.0, 'out of range'), ('arms', 'both', 'read-only'),
    ('realtime_factor', 1000, 'parameter realtime_factor is 1000; expected 0.01 … 100'),
    ('speed_scaling', 50.0, 'only the controller ur_scaled has a speed slider'),
    ('realtime_factor', 'fast', "parameter realtime_factor is 'fast' (a string); expected a nu")])
def test_refuses_a_bad_parameter_with_a_reason(robot, name, value, reason):
    result, = robot.set(**{name: value})
    assert not result.successful
    assert reason in result.reason


@pytest.mark.parametrize('parameters, reason', [
    ({'arms': 'three'}, "parameter arms is 'three'; expected one of left, right, both"),
    ({'task': 'juggle'}, "parameter task is 'juggle'; expected one of table"),
    ({'seed': 'abc'}, "parameter seed is 'abc' (a string); expected an integer"),
    ({'controller': 'foxy'}, "parameter controller is 'foxy'; expected one of humble, jazzy"),
    ({'controller_rate': 0.0}, 'parameter controller_rate is 0; expected 10 … 1000'),
    ({'speed_scaling': 50.0}, 'only the controller ur_scaled has a speed slider'),
    ({'camera_width': 4}, 'parameter camera_width is 4; expected 16 … 1920')])
def test_does_not_start_with_a_bad_parameter(ros, tmp_path, parameters, reason):
    with open(tmp_path / 'log', 'w') as output:
        process = start(parameters, output)
    assert process.wait(timeout=15.0) == 1
    log = (tmp_path / 'log').read_text()
    # Kilted's Fast DDS adds a line of its own about the variable that Jazzy's reads.
    lines = [line for line in log.strip().splitlines() if 'PROFILES_FILE' not in line]
    assert len(lines) == 1
    assert reason in lines[0]


def test_clock_both_arms_and_faster_than_real_time(ros, tmp_path):
    robot = Robot(tmp_path / 'log', 'fast', publish_clock=True, realtime_factor=3, arms='both',
                  camera_width=64, camera_height=48, overview_rate=1)
    try:
        robot.listen(Clock, '/clock', EVENTS)
        robot.listen(JointState, 'joint_states', EVENTS)
        robot.listen(Image, 'camera/right_wrist/image_raw')
        robot.listen(Image, 'camera/overview/image_raw')
        robot.spin_until(lambda: all(robot.heard.values()))
        # A machine that is busy for a while drops time: one second in which it is not is enough.
        deadline = time.monotonic() + 60.0
        while True:
            first = len(robot.heard['/clock'])
            robot.spin_for(1.0)
            clocks = np.array([(arrived, seconds(message.clock))
                               for arrived, message in robot.heard['/clock'][first:]])
            pace = np.diff(clocks[[0, -1]], axis=0)[0]
            if pace[1] / pace[0] == pytest.approx(3.0, rel=0.15):
                break
            assert time.monotonic() < deadline, f'{pace[1] / pace[0]:.2f} times real time'
        assert (np.diff(clocks[:, 1]) > 0).all()
        # Joint states are stamped with the simulated time, not with ROS time.
        stamped = seconds(robot.next('joint_states').header.stamp)
        assert abs(stamped - seconds(robot.next('/clock').clock)) < 0.3
        picture = robot.newest('camera/right_wrist/image_raw')
        assert (picture.width, picture.height) == (64, 48)
        overview = robot.newest('camera/overview/image_raw')
        assert (overview.width, overview.height) == (400, 300)
        assert len(robot.newest('joint_states').name) == 14
        # A stamp on the simulated clock is understood on it.
        goal = np.array(robot.newest('joint_states').position)
        goal[0] = 0.4
        robot.spin_until(lambda: robot.commands.get_subscription_count() == 1)
        robot.commands.publish(command(robot, goal, stamp=robot.newest('/clock').clock))
        robot.spin_until(lambda: distance(robot, goal) < 0.005)

        assert robot.resets.wait_for_service(10.0)
        before = seconds(robot.newest('/clock').clock)
        assert robot.reset().success
        assert seconds(robot.next('/clock').clock) > before
        assert robot.set(reset_clock=True)[0].successful
        assert robot.reset().success
        robot.spin_until(lambda: seconds(robot.next('/clock').clock) < before)
    finally:
        robot.close()


def test_another_controller_and_late_messages(ros, tmp_path):
    robot = Robot(tmp_path / 'log', 'scaled', controller='ur_scaled', controller_rate=250.0,
                  controller_delay=0.3)
    try:
        robot.listen(JointState, 'joint_states')
        robot.listen(String, 'sim_robot/task_state', LATCHED)
        robot.spin_until(lambda: all(robot.heard.values()))
        robot.spin_until(lambda: robot.commands.get_subscription_count() == 1)
        now = robot.node.get_clock().now().to_msg()
        goal = np.array(robot.next('joint_states').position) + 0.1
        robot.commands.publish(command(robot, goal, 0.2, stamp=now))  # its end is past
        robot.spin_until(lambda: robot.counted()['rejected_trajectories'] == 1)
        # A step beyond the tolerance of Universal Robots' driver is not taken.
        robot.commands.publish(command(robot, goal + 0.3, 0.0))
        robot.spin_until(lambda: 'trajectory tolerance of joint' in robot.logged())
        assert distance(robot, goal - 0.1) < 0.01
        # The slider of its pendant, which the driver reports all the time.
        topic = 'speed_scaling_state_broadcaster/speed_scaling'
        robot.listen(Float64, topic)
        assert robot.next(topic).data == 100.0
        assert not robot.set(speed_scaling=101.0)[0].successful
        assert robot.set(speed_scaling=0.0)[0].successful
        robot.spin_until(lambda: robot.next(topic).data == 0.0)
        start, taken = goal - 0.1, robot.counted()['accepted_trajectories']
        there = start + np.where(np.arange(len(start)) < 6, 0.05, 0.0)  # the gripper stays
        robot.commands.publish(command(robot, there, 0.05))
        robot.spin_until(lambda: robot.counted()['accepted_trajectories'] > taken)
        robot.spin_for(0.3)
        assert distance(robot, start) < 0.01
        assert robot.set(speed_scaling=100.0)[0].successful
        robot.spin_until(lambda: distance(robot, there) < 0.01)
    finally:
        robot.close()


def test_sigterm_ends_it_in_time(ros, tmp_path):
    robot = Robot(tmp_path / 'log', 'stopped')
    try:
        robot.listen(JointState, 'joint_states')
        robot.spin_until(lambda: robot.heard['joint_states'])
        robot.process.send_signal(signal.SIGTERM)
        assert wait_for_end(robot.process, 5.0) == 0
        assert 'Traceback' not in robot.logged()
    finally:
        robot.close()
