"""`lingbot_va check --live` reports the faults of a running graph, over real DDS."""

import json
import os
import signal
import subprocess
import threading
import time

import cv2
import numpy as np
import pytest
from rcl_interfaces.srv import ListParameters
import rclpy
from rclpy.action import ActionServer
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, JointState
from support.ros_domain import claim_domain
from support.waiting import wait_for, wait_for_end
from trajectory_msgs.msg import JointTrajectory
import yaml

from lingbot_va_ros.action import RunTask
from lingbot_va_ros.cli.check import graph_probe as live
from lingbot_va_ros.cli.check.graph import action_findings
from lingbot_va_ros.cli.common.processes import node_command
from lingbot_va_ros.cli.main import main
from lingbot_va_ros.msg import ControlMode, PolicyStatus
from lingbot_va_ros.nodes.qos import COMMAND, EVENTS, EXECUTED, LATCHED, SENSOR
from lingbot_va_ros.resources import shared_file
from lingbot_va_ros.specs.embodiment import load_embodiment

SIM_LEFT = load_embodiment('sim_left')
COMMANDS = 'joint_trajectory_controller/joint_trajectory'
GOOD_PARAMETERS = {
    'joints': list(SIM_LEFT.joints), 'interpolate_from_desired_state': True,
    'open_loop_control': False, 'command_interfaces': ['position'],
    'state_interfaces': ['position', 'velocity'],
    'allow_nonzero_velocity_at_trajectory_end': False}


@pytest.fixture(scope='module', autouse=True)
def ros():
    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture
def check(tmp_path):
    """Return a function that looks at a namespace and returns exit code and findings."""
    def look(namespace, *words, seconds=1.5):
        path = tmp_path / 'found.json'
        code = main(['check', '--live', '--policy', 'untrained', '--embodiment', 'sim_left',
                     '--namespace', namespace, '--seconds', str(seconds), '--json', str(path),
                     *words])
        found = json.loads(path.read_text())
        assert found['ok'] == (code == 0)
        assert all('\n' not in each['message'] for each in found['findings'])
        return code, [
            (each['severity'], each['where'].removeprefix(f'/{namespace}/'), each['message'])
            for each in found['findings'] if 'untrained' not in each['message']
            # A busy machine may once be slow to deliver; that is a warning, and true.
            and 'silent: ' not in each['message']]
    return look


def errors(found):
    return [(where, message) for severity, where, message in found if severity == 'error']


def expect(found, severity, where, *pieces):
    """Assert that one finding at a place has all pieces in its message."""
    assert [each for each in found if each[:2] == (severity, where)
            and all(piece in each[2] for piece in pieces)], (severity, where, pieces, found)


class Graph:
    """Nodes of a robot in a namespace, sound unless a test makes them otherwise."""

    def __init__(self, namespace):
        self.namespace = namespace
        self._executor = SingleThreadedExecutor()
        self._nodes = []
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self.robot = self.node('robot')

    def node(self, name, **parameters):
        node = Node(name, namespace=self.namespace, use_global_arguments=False)
        for key, value in parameters.items():
            if key == 'use_sim_time':
                node.set_parameters([Parameter(key, value=value)])
            else:
                node.declare_parameter(key, value)
        self._nodes.append(node)
        self._executor.add_node(node)
        return node

    def start(self):
        self._thread.start()
        return self

    def is_seen_by(self, probe):
        """Return whether a probe has found every node and every end of a topic."""
        def ends_of(node):
            return [(topic, node.count_publishers(topic), node.count_subscribers(topic))
                    for topic, _ in sorted(self.robot.get_topic_names_and_types())
                    if topic.startswith(f'/{self.namespace}/')]

        def nodes_of(node):
            return sorted(
                name for name, space in node.get_node_names_and_namespaces()
                if space == f'/{self.namespace}' and not name.startswith('lingbot_va_check_'))
        return nodes_of(probe.node) == nodes_of(self.robot) and (
            ends_of(probe.node) == ends_of(self.robot))

    def _spin(self):
        try:
            self._executor.spin()
        except ExternalShutdownException:
            pass

    def close(self):
        self._executor.shutdown(timeout_sec=2.0)
        if self._thread.ident:
            self._thread.join(timeout=2.0)
        for node in self._nodes:
            node.destroy_node()

    def stamp(self, offset=0.0):
        seconds = self.robot.get_clock().now().nanoseconds * 1e-9 + offset
        stamp = JointState().header.stamp
        stamp.sec, stamp.nanosec = int(seconds), int(seconds % 1 * 1e9)
        return stamp

    def camera(self, role, rate=15.0, encoding='rgb8', offset=0.0, zero=False, short=0,
               profile=COMMAND):
        images = self.robot.create_publisher(Image, f'camera/{role}/image_raw', profile)

        def publish():
            message = Image(height=64, width=64, encoding=encoding, step=192)
            message.data.frombytes(bytes(192 * 64 - short))
            if not zero:
                message.header.stamp = self.stamp(offset)
            images.publish(message)
        self.robot.create_timer(1 / rate, publish)

    def joints(self, names=SIM_LEFT.joints, rate=50.0, stamp=None, positions=None, **changes):
        states = self.robot.create_publisher(JointState, 'joint_states', EVENTS)
        values = dict(zip(SIM_LEFT.joints, SIM_LEFT.home.tolist()))
        values.update(changes)

        def publish():
            message = JointState(name=list(names))
            message.position = positions or [values.get(name, 0.0) for name in names]
            message.header.stamp = stamp or self.stamp()
            states.publish(message)
        self.robot.create_timer(1 / rate, publish)

    def mux(self, executed=EXECUTED, mode=LATCHED, said=ControlMode.HOLD, **parameters):
        node = self.node('command_mux', embodiment='sim_left', **parameters)
        node.create_publisher(JointTrajectory, 'executed', executed)
        node.create_publisher(JointTrajectory, COMMANDS, COMMAND)
        node.create_publisher(ControlMode, '~/mode', mode).publish(
            ControlMode(mode=said, reason='as the test says'))
        node.create_subscription(
            JointTrajectory, 'policy/joint_trajectory', lambda message: None, COMMAND)
        return node

    def controller(self, kind=JointTrajectory, profile=EVENTS, **changes):
        node = self.node('joint_trajectory_controller', **{**GOOD_PARAMETERS, **changes})
        node.create_subscription(kind, '~/joint_trajectory', lambda message: None, profile)

    def policy(self, *, status, reason=''):
        node = self.node('lingbot_va_policy')
        node.create_publisher(JointTrajectory, '~/joint_trajectory', COMMAND)
        node.create_subscription(ControlMode, 'control_mode', lambda message: None, LATCHED)
        node.create_publisher(PolicyStatus, '~/status', LATCHED).publish(
            PolicyStatus(mode=status, reason=reason))


@pytest.fixture
def quick(monkeypatch):
    """Let discovery be short where no other process has to be found."""
    monkeypatch.setattr(live, 'LEAST_DISCOVERY', 0.3)
    monkeypatch.setattr(live, 'QUIET', 0.3)


@pytest.fixture
def graph(request, monkeypatch, quick):
    made = Graph(f'live_{abs(hash(request.node.name)) % 10 ** 8}')
    wait_until_quiet = live.GraphProbe.wait_for_graph

    def wait_for_graph(probe):
        wait_for(lambda: made.is_seen_by(probe), 'discovery of the whole graph')
        wait_until_quiet(probe)
    monkeypatch.setattr(live.GraphProbe, 'wait_for_graph', wait_for_graph)
    yield made
    made.close()


@pytest.fixture
def processes(tmp_path):
    """Return a function that starts nodes of ours as processes in a namespace."""
    running = []

    def start(namespace, name, *words):
        log = open(tmp_path / f'{name}.log', 'w')
        running.append((subprocess.Popen(
            [*node_command(name), '--ros-args',
             '-r', f'__ns:=/{namespace}', *words],
            stdout=log, stderr=subprocess.STDOUT,
            env={**os.environ, 'PYTHONUNBUFFERED': '1'}), log))
    yield start
    for process, _ in running:
        process.send_signal(signal.SIGINT)
    for process, log in running:
        try:
            wait_for_end(process, 5.0)
        finally:
            process.kill()
            log.close()


def wait_for_nodes(namespace, names, seconds=120.0):
    node = rclpy.create_node('waiting', namespace=namespace)
    deadline = time.monotonic() + seconds
    while not names <= {name for name, space in node.get_node_names_and_namespaces()
                        if space == f'/{namespace}'}:
        assert time.monotonic() < deadline, f'no {names}'
        rclpy.spin_once(node, timeout_sec=0.1)
    node.destroy_node()


def test_our_own_nodes_are_in_order(processes, check):
    processes('sound', 'sim_robot')
    processes('sound', 'command_mux')
    processes('sound', 'policy_node', '-r', '~/joint_trajectory:=policy/joint_trajectory',
              '-r', 'control_mode:=command_mux/mode')
    wait_for_nodes('sound', {'sim_robot', 'command_mux', 'lingbot_va_policy'})
    code, found = check('sound', seconds=2.0)
    assert errors(found) == [] and code == 0
    expect(found, 'warning', COMMANDS, '/sound/sim_robot', 'not ros2_control')
    expect(found, 'warning', 'lingbot_va_policy', 'unconfigured')
    assert len(found) == 2, found


def test_a_sound_graph_with_ros2_control_has_no_remarks_but_the_missing_policy(graph, check):
    graph.camera('head')
    graph.camera('left_wrist')
    graph.joints()
    graph.mux()
    graph.controller()
    code, found = check(graph.start().namespace)
    assert code == 0
    assert found == [('warning', 'lingbot_va_policy',
                      'does not run and was not checked')]


def test_faults_of_the_graph_are_all_named(graph, check):
    graph.robot.create_publisher(CompressedImage, 'camera/left_wrist/image_raw', SENSOR)
    graph.robot.create_publisher(Image, 'camera/front/image_raw', SENSOR)
    graph.joints([f'panda_{name}' for name in SIM_LEFT.joints])
    graph.mux(executed=SENSOR, mode=EXECUTED)
    graph.controller(
        interpolate_from_desired_state=False, joints=['left_joint_1', 'left_joint_9'],
        allow_nonzero_velocity_at_trajectory_end=True)
    graph.node('jogger').create_publisher(JointTrajectory, COMMANDS, COMMAND)
    code, found = check(graph.start().namespace)
    space = f'/{graph.namespace}'
    assert code == 1
    expect(found, 'error', 'camera/head/image_raw', 'no publisher',
           f'{space}/camera/front/image_raw')
    expect(found, 'error', 'camera/left_wrist/image_raw', f'{space}/robot publishes',
           'CompressedImage', 'expected sensor_msgs/msg/Image')
    expect(found, 'error', 'executed', f'{space}/command_mux', 'best effort', 'reliable')
    expect(found, 'error', 'command_mux/mode', 'volatile', 'transient local')
    expect(found, 'error', 'joint_states', 'no position of left_joint_1',
           'received: panda_left_joint_1', f'{space}/robot')
    expect(found, 'warning', 'joint_trajectory_controller', 'interpolate_from_desired_state')
    expect(found, 'error', 'joint_trajectory_controller', 'lack left_joint_2')
    expect(found, 'error', 'joint_trajectory_controller', 'left_joint_9')
    expect(found, 'warning', 'joint_trajectory_controller', 'allow_nonzero_velocity')
    expect(found, 'error', COMMANDS, f'{space}/jogger', 'not limited')
    assert len(errors(found)) == 8, found


def test_a_tolerance_that_the_mux_does_not_keep_is_named(graph, check):
    graph.camera('head')
    graph.camera('left_wrist')
    graph.joints()
    graph.mux(max_following_error=0.15, command_rate=100.0)
    graph.controller(**{
        'constraints.left_joint_1.trajectory': 0.2, 'constraints.left_joint_1.goal': 0.1,
        'constraints.left_joint_2.trajectory': 0.2, 'constraints.left_joint_2.goal': 0.0,
        'constraints.left_joint_3.trajectory': 0.15,
        'constraints.stopped_velocity_tolerance': 0.01,
        'constraints.left_gripper_joint.trajectory': 0.02})
    graph.node('controller_manager', update_rate=50)
    code, found = check(graph.start().namespace)
    assert code == 1
    where = 'joint_trajectory_controller'
    expect(found, 'error', where, 'constraints.left_joint_1.goal is 0.1', 'error of 0.15 on')
    expect(found, 'error', where, 'constraints.left_joint_3.trajectory is 0.15')
    expect(found, 'warning', where, 'constraints.left_gripper_joint.trajectory is 0.02')
    expect(found, 'warning', where, 'its update_rate is 50 Hz', '100 commands per second')
    assert len(errors(found)) == 2, found


@pytest.mark.parametrize('answers', [False, True])
def test_a_controller_that_answers_late_or_never_is_one_line(graph, check, monkeypatch, answers):
    monkeypatch.setattr(live, 'ANSWER_SECONDS', 0.5)
    for role in ('head', 'left_wrist'):
        graph.camera(role)
    graph.joints()
    graph.mux()
    # In an executor of its own, which is late or does not run.
    node = Node('joint_trajectory_controller', namespace=graph.namespace,
                use_global_arguments=False, start_parameter_services=False)
    node.create_subscription(JointTrajectory, '~/joint_trajectory', lambda message: None, EVENTS)

    def late(request, response):
        time.sleep(2.0)
        return response
    node.create_service(ListParameters, '~/list_parameters', late)
    executor = SingleThreadedExecutor()
    if answers:
        executor.add_node(node)
        threading.Thread(target=lambda: executor.spin_once(timeout_sec=30.0)).start()
    try:
        begin = time.monotonic()
        code, found = check(graph.start().namespace)
        assert code == 1 and time.monotonic() - begin < 40
        assert [where for where, _ in errors(found)] == ['joint_trajectory_controller'], found
        expect(found, 'error', 'joint_trajectory_controller', 'does not return')
    finally:
        executor.shutdown(timeout_sec=5.0)
        node.destroy_node()


def test_two_publishers_of_a_joint_are_named(graph, check):
    graph.camera('head')
    graph.camera('left_wrist')
    graph.joints()
    graph.mux()
    graph.controller()
    zeros = graph.node('joint_state_publisher').create_publisher(
        JointState, 'joint_states', EVENTS)

    def publish():
        message = JointState(name=list(SIM_LEFT.joints), position=[0.0] * len(SIM_LEFT.joints))
        message.header.stamp = graph.stamp()
        zeros.publish(message)
    graph.robot.create_timer(0.1, publish)
    code, found = check(graph.start().namespace, seconds=2.5)
    assert code == 1
    by = f'/{graph.namespace}/joint_state_publisher, /{graph.namespace}/robot'
    expect(found, 'error', 'joint_states', 'left_joint_1', 'come from several publishers', by)
    expect(found, 'error', 'joint_states', "'left_joint_3' is at ", ' and at 0', by)


def test_faults_of_the_messages_are_all_named(graph, check):
    graph.camera('head', encoding='32FC1', zero=True)
    graph.camera('left_wrist', rate=2.0, offset=-3600.0)
    graph.joints(stamp=graph.stamp(), left_joint_2=float('nan'), left_joint_3=90.0)
    graph.mux()
    graph.mux()
    graph.node('controller_manager')
    code, found = check(graph.start().namespace, seconds=2.5)
    assert code == 1
    by = f'from /{graph.namespace}/robot'
    expect(found, 'error', 'camera/head/image_raw', "'32FC1' is not supported", by)
    expect(found, 'error', 'camera/head/image_raw', 'stamps are zero', by)
    expect(found, 'error', 'camera/left_wrist/image_raw', '2.0 images per second', '5.0', by)
    expect(found, 'error', 'camera/left_wrist/image_raw', '3600', 'behind', by)
    expect(found, 'error', 'joint_states', 'stamp is constant', by)
    expect(found, 'error', 'joint_states', 'left_joint_2 is nan', by)
    expect(found, 'error', 'joint_states', 'left_joint_3 is at 90, outside', by)
    expect(found, 'error', COMMANDS, 'no controller subscribes')
    expect(found, 'error', 'command_mux', '2 nodes of this name')
    expect(found, 'warning', 'controller_manager', 'controller_manager_msgs is not installed')


def test_a_robot_without_our_nodes_and_with_slow_joints(graph, check):
    graph.camera('head', offset=2.0, short=100)
    graph.camera('left_wrist')
    graph.joints([*SIM_LEFT.joints[:-1], 'wheel'], rate=3.0)
    graph.controller(kind=JointState)
    code, found = check(graph.start().namespace)
    assert code == 1
    expect(found, 'error', 'command_mux', 'does not run')
    expect(found, 'error', 'executed', 'no publisher')
    expect(found, 'error', 'command_mux/mode', 'no publisher')
    expect(found, 'error', 'camera/head/image_raw', '12188 bytes of data, expected 12288')
    expect(found, 'error', 'camera/head/image_raw', '2.00 s ahead', 'synchronize')
    expect(found, 'error', 'joint_states', 'no position of left_gripper_joint', 'wheel')
    expect(found, 'error', 'joint_states', 'left_joint_1 comes ', 'times a second')
    expect(found, 'error', COMMANDS, 'subscribes to sensor_msgs/msg/JointState')


def test_two_policies_wrong_remaps_and_a_stop_are_named(graph, check):
    graph.camera('head')
    graph.camera('left_wrist')
    graph.joints(positions=[0.0, 0.0])
    graph.mux(use_sim_time=True, said=ControlMode.STOPPED)
    graph.controller(profile=LATCHED)
    graph.policy(status=PolicyStatus.FAULT, reason='out of memory')
    graph.policy(status=PolicyStatus.FAULT, reason='out of memory')
    code, found = check(graph.start().namespace)
    assert code == 1
    expect(found, 'error', 'lingbot_va_policy', '2 nodes of this name')
    expect(found, 'error', 'lingbot_va_policy', 'its plan goes to', 'policy/joint_trajectory')
    expect(found, 'error', 'lingbot_va_policy', 'remap control_mode')
    expect(found, 'error', 'lingbot_va_policy', 'FAULT', 'out of memory')
    expect(found, 'error', 'lingbot_va_policy', 'get_state')
    expect(found, 'error', 'command_mux', 'use_sim_time is true', '/clock')
    expect(found, 'warning', 'command_mux', 'STOPPED', 'as the test says')
    expect(found, 'error', 'joint_states', '7 names with 2 positions')
    expect(found, 'error', COMMANDS, 'QoS', 'volatile', 'transient local')


def test_a_clock_that_only_a_part_of_the_graph_follows_is_named(graph, check):
    graph.camera('head')
    graph.camera('left_wrist', offset=-graph.robot.get_clock().now().nanoseconds * 1e-9 + 40.0)
    graph.joints()
    graph.mux()
    graph.controller()
    clock, begin = graph.robot.create_publisher(Clock, '/clock', COMMAND), time.monotonic()

    def tick():
        message = Clock()
        now = time.monotonic() - begin + 40.0
        message.clock.sec, message.clock.nanosec = int(now), int(now % 1 * 1e9)
        clock.publish(message)

    graph.robot.create_timer(0.02, tick)
    code, found = check(graph.start().namespace)
    assert code == 1
    expect(found, 'error', 'command_mux', 'use_sim_time is false, but /clock is published by',
           f'/{graph.namespace}/robot')
    expect(found, 'error', 'camera/left_wrist/image_raw', 'of another clock',
           'looks like simulated time')
    assert len(errors(found)) == 2, found


def test_an_empty_domain_is_one_line(check, monkeypatch, quick):
    monkeypatch.setenv('ROS_DOMAIN_ID', str(claim_domain()))
    code, found = check('nowhere')
    assert code == 1
    assert [where for where, _ in errors(found)] == ['graph']
    assert 'no node is visible' in found[0][2]


@pytest.mark.parametrize('words', [('--seconds', '0'), ('--seconds', 'long')])
def test_a_bad_time_is_one_line(words, capsys):
    with pytest.raises(SystemExit) as left:
        main(['check', '--live', *words])
    assert left.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_compressed_cameras_are_decoded_once_and_judged(graph, check, tmp_path):
    data = yaml.safe_load(shared_file('config', 'embodiments', 'sim_left.yaml').read_text())
    data['urdf'] = str(shared_file('urdf', 'sim_left.urdf'))
    for camera in data['cameras'].values():
        camera['transport'] = 'compressed'
    (tmp_path / 'sim_left.yaml').write_text(yaml.safe_dump(data))
    jpeg = cv2.imencode('.jpg', np.zeros((48, 32, 3), np.uint8))[1].tobytes()
    for role, content in (('head', jpeg), ('left_wrist', b'no picture')):
        images = graph.robot.create_publisher(
            CompressedImage, f'camera/{role}/image_raw/compressed', SENSOR)

        def publish(images=images, content=content):
            message = CompressedImage(format='jpeg', data=content)
            message.header.stamp = graph.stamp()
            images.publish(message)
        graph.robot.create_timer(0.1, publish)
    graph.joints()
    graph.mux()
    graph.controller()
    code, found = check(
        graph.start().namespace, '--embodiment', str(tmp_path / 'sim_left.yaml'))
    assert code == 1
    expect(found, 'warning', 'camera/head/image_raw/compressed', '32x48', '64x64')
    expect(found, 'error', 'camera/left_wrist/image_raw/compressed',
           'neither JPEG nor PNG')
    assert len(errors(found)) == 1, found


def test_a_whole_graph_on_simulated_time_is_in_order(processes, check):
    processes('simulated', 'sim_robot', '-p', 'publish_clock:=true')
    processes('simulated', 'command_mux', '-p', 'use_sim_time:=true')
    wait_for_nodes('simulated', {'sim_robot', 'command_mux'})
    code, found = check('simulated', seconds=2.0)
    assert errors(found) == [] and code == 0


def test_a_gripper_action_without_a_server_or_of_another_type_is_named(ros):
    node = Node('test_gripper_action')
    try:
        alone, = action_findings(node, '/hand/gripper_action')
        assert alone.severity == 'error' and 'no action server' in alone.message
        server = ActionServer(node, RunTask, 'hand/gripper_action', lambda handle: None)
        end = time.monotonic() + 20
        while 'no action server' in alone.message and time.monotonic() < end:
            alone, = action_findings(node, '/hand/gripper_action')
            time.sleep(0.05)
        assert '/test_gripper_action serves lingbot_va_ros/action/RunTask' in alone.message
        assert 'control_msgs/action/GripperCommand or control_msgs/action/Par' in alone.message
        server.destroy()
    finally:
        node.destroy_node()


def test_a_bad_namespace_is_one_line(check):
    code, found = check('bad name')
    assert code == 1
    assert [where for where, _ in errors(found)] == ['--namespace']
