"""The command mux over DDS with drivers of several kinds: rows, velocities, names, a plugin."""

import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rclpy
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray
from std_srvs.srv import Trigger
from support.messages import nanoseconds, stamped
from support.node_processes import node_process
from support.services import ask_until_answered
from support.spinning import spinning
from support.waiting import wait_for, wait_for_end
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint
import yaml

from lingbot_va_ros.msg import ControlMode
from lingbot_va_ros.nodes.qos import COMMAND, EVENTS, EXECUTED, JOINT_STATES, LATCHED
from lingbot_va_ros.resources import shared_file
from lingbot_va_ros.specs.embodiment import load_embodiment
from lingbot_va_ros.srv import SetControlMode

NS = 1_000_000_000
PERIOD = 0.01
ARM = [f'left_joint_{index}' for index in range(1, 7)]
GRIPPER = 'left_gripper_joint'
PLUGINS = Path(__file__).parent / 'plugins'
PLUGIN = 'row_publisher:RowPublisher'
START = np.array([0.1, 0.2, 0.6, 0.1, 0.2, 0.1, 0.02])
SWING = np.array([0.4, 0.3, 0.3, 0.4, 0.3, 0.2, 0.005])
# joint_states come late where the cores are busy.
PATIENT = ('source_timeout:=2.0', 'joint_state_timeout:=2.0', 'max_tracking_delay:=5.0',
           'max_following_error:=3.0')


def robot_file(folder, controllers, **changes):
    """Write an embodiment file: sim_left with other controllers; return its path."""
    data = yaml.safe_load(shared_file('config', 'embodiments', 'sim_left.yaml').read_text())
    data['urdf'] = str(shared_file('urdf', 'sim_left.urdf'))
    data.update(controllers=controllers, **changes)
    path = folder / 'robot.yaml'
    path.write_text(yaml.safe_dump(data))
    return path


def mixed_file(folder):
    """Return the path of a robot with five kinds of controllers and two topics of joint states."""
    return robot_file(folder, [
        {'topic': '/bus/positions', 'kind': 'forward_position', 'joints': ARM[:2]},
        {'topic': 'servo/command', 'kind': 'joint_state', 'joints': [ARM[2]],
         'names': {ARM[2]: 'servo_3'}},
        {'topic': 'velocities/commands', 'kind': 'forward_velocity', 'joints': ARM[3:5],
         'gain': 1.0},
        {'kind': 'plugin', 'plugin': PLUGIN, 'joints': [ARM[5]], 'names': {ARM[5]: 'six'},
         'options': {'topic': 'plugin_rows', 'fails': str(folder / 'fails'),
                     'closed': str(folder / 'closed')}},
        {'topic': 'hand/joint_trajectory', 'kind': 'trajectory', 'joints': [GRIPPER]},
    ], joint_states=[
        {'topic': 'joint_states', 'timeout': 2.0},
        {'topic': '/servo/states', 'names': {ARM[2]: 'servo_3'}, 'timeout': 1.5},
    ])


class Drivers:
    """Drivers of all kinds, a policy, and a record of what they got."""

    def __init__(self, node):
        self.node = node
        self.q, self.rates = START.copy(), np.zeros(7)
        self.moved_at = time.monotonic()
        self.rows = {name: [] for name in ('position', 'state', 'velocity', 'plugin', 'hand')}
        self.executed, self.modes = [], []
        self.goal, self.swing = lambda t_ns: START, SWING
        self.policy_alive = self.states_alive = True
        self.subscriptions = {
            'position': node.create_subscription(
                Float64MultiArray, '/bus/positions', self.on_position, EVENTS),
            'state': node.create_subscription(
                JointState, 'servo/command', self.on_state, EVENTS),
            'velocity': node.create_subscription(
                Float64MultiArray, 'velocities/commands', self.on_velocity, EVENTS),
            'plugin': node.create_subscription(
                Float64MultiArray, 'plugin_rows', self.on_plugin, EVENTS),
            'hand': node.create_subscription(
                JointTrajectory, 'hand/joint_trajectory', self.on_hand, EVENTS)}
        node.create_subscription(JointTrajectory, 'executed', self.executed.append, EXECUTED)
        node.create_subscription(ControlMode, 'command_mux/mode', self.modes.append, LATCHED)
        self.states = node.create_publisher(JointState, 'joint_states', JOINT_STATES)
        self.servo_states = node.create_publisher(JointState, '/servo/states', JOINT_STATES)
        self.policy = node.create_publisher(JointTrajectory, 'policy/joint_trajectory', COMMAND)
        self.stop = node.create_publisher(Bool, 'emergency_stop', EVENTS)
        self.set_mode_client = node.create_client(SetControlMode, 'command_mux/set_mode')
        node.create_timer(0.01, self.publish_states)
        node.create_timer(0.03, self.publish_plan)

    def on_position(self, message):
        self.rows['position'].append((time.monotonic(), np.array(message.data)))
        self.q[:2] = message.data

    def on_state(self, message):
        assert list(message.name) == ['servo_3']
        self.rows['state'].append((nanoseconds(message.header.stamp), np.array(
            [message.position[0], message.velocity[0]])))
        self.q[2] = message.position[0]

    def on_velocity(self, message):
        self.rows['velocity'].append((time.monotonic(), np.array(message.data)))
        self.move()
        self.rates[3:5] = message.data

    def on_plugin(self, message):
        self.rows['plugin'].append((time.monotonic(), np.array(message.data)))
        self.q[5] = message.data[0]

    def on_hand(self, message):
        assert list(message.joint_names) == [GRIPPER]
        self.rows['hand'].append((nanoseconds(message.header.stamp), message))
        self.q[6] = message.points[-1].positions[0]

    def move(self):
        now = time.monotonic()
        self.q += self.rates * (now - self.moved_at)
        self.moved_at = now

    def publish_states(self):
        self.move()
        if not self.states_alive:
            return
        others = [index for index in range(7) if index != 2]
        names = [*ARM, GRIPPER]
        message = JointState(
            name=[names[index] for index in others], position=list(self.q[others]))
        self.states.publish(stamped(message, time.time_ns()))
        message = JointState(name=['servo_3', 'servo_9'], position=[self.q[2], 7.0])
        self.servo_states.publish(stamped(message, time.time_ns()))

    def publish_plan(self):
        if not self.policy_alive:
            return
        now = time.time_ns()
        message = stamped(JointTrajectory(joint_names=[*ARM, GRIPPER]), now)
        for index in range(1, 11):
            after = index * 30_000_000
            v = (self.goal(now + after + 1000) - self.goal(now + after - 1000)) / 2e-6
            point = JointTrajectoryPoint(
                positions=list(self.goal(now + after)),
                velocities=list(v if index < 10 else 0.0 * v))
            point.time_from_start.nanosec = after
            message.points.append(point)
        self.policy.publish(message)

    def set_mode(self, mode):
        return ask_until_answered(self.set_mode_client, SetControlMode.Request(mode=mode))

    def trigger(self, name):
        client = self.node.create_client(Trigger, f'command_mux/{name}')
        return ask_until_answered(client, Trigger.Request())

    @property
    def mode(self):
        return self.modes[-1].mode if self.modes else None

    def start_motion(self):
        """Begin a motion of all joints; return when every driver is in motion."""
        def moves():
            if self.mode != ControlMode.POLICY:  # on a busy machine it may have fallen to HOLD
                here, count = self.q.copy(), len(self.modes)
                self.goal = lambda t_ns: here
                if self.set_mode(ControlMode.POLICY).success:
                    begin = time.time_ns()
                    self.goal = lambda t_ns: here + self.swing * (
                        1 - np.cos(2.0 * max(0.0, (t_ns - begin) * 1e-9)))
                    wait_for(lambda: len(self.modes) > count, 'POLICY')
            return self.is_moving()

        wait_for(moves, 'a motion')

    def is_moving(self):
        rows = self.rows
        return all(rows[name] for name in rows) and (
            abs(rows['state'][-1][1][1]) > 0.2 and abs(rows['velocity'][-1][1][0]) > 0.2)

    def forget(self):
        for rows in self.rows.values():
            rows.clear()

    def rests(self):
        """Return whether the last rows of all kinds are a rest, and repeat it."""
        rows = self.rows
        return all(
            len(rows[name]) >= 8 and np.array_equal(rows[name][-1][1], rows[name][-8][1])
            for name in ('position', 'state', 'velocity', 'plugin'))

    def wait_for_rest(self):
        wait_for(self.rests, 'the rows come to rest')
        assert np.all(self.rows['velocity'][-1][1] == 0.0)
        assert self.rows['state'][-1][1][1] == 0.0
        assert self.rows['plugin'][-1][1][1] == 0.0


@pytest.fixture(scope='module', autouse=True)
def ros():
    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture(scope='module')
def python_path():
    before = os.environ.get('PYTHONPATH', '')
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [str(PLUGINS), before]))
    yield
    os.environ['PYTHONPATH'] = before


@pytest.fixture
def drivers():
    with spinning(rclpy.create_node('drivers')) as node:
        yield Drivers(node)


def mux_of(tmp_path, file, *parameters):
    arguments = [
        item for parameter in (f'embodiment:={file}', *PATIENT, *parameters)
        for item in ('-p', parameter)]
    return node_process('command_mux', tmp_path / 'mux.log', *arguments, warm=False)


def assert_stamped_rows_inside_limits(rows, limits, column):
    """Check (stamp in ns, [position, velocity]) of one joint."""
    for (before_ns, before), (after_ns, after) in zip(rows, rows[1:]):
        seconds = (after_ns - before_ns) / NS
        assert abs(after[0] - before[0]) <= limits.velocity[column] * seconds + 1e-6
        assert abs(after[1]) <= limits.velocity[column] + 1e-6
        assert abs(after[1] - before[1]) <= limits.acceleration[column] * seconds + 1e-4


def test_kinds_move_together_stop_row_by_row_and_end_with_the_mux(
        tmp_path, drivers, python_path):
    file = mixed_file(tmp_path)
    robot = load_embodiment(str(file))
    with mux_of(tmp_path, file) as process:
        drivers.start_motion()
        seen = len(drivers.rows['state'])
        wait_for(lambda: len(drivers.rows['state']) > seen + 30, 'rows')
        rows, executed = list(drivers.rows['state']), {
            nanoseconds(message.header.stamp): message.points[0] for message in drivers.executed}
        both = [(stamp, row) for stamp, row in rows if stamp in executed]
        assert len(both) > 20
        for stamp, row in both:
            assert row[0] == pytest.approx(executed[stamp].positions[2], abs=1e-9)
            assert row[1] == pytest.approx(executed[stamp].velocities[2], abs=1e-9)
        # HOLD: each driver is led to rest, row by row, and then left alone.
        assert drivers.set_mode(ControlMode.HOLD).success
        drivers.wait_for_rest()
        assert_stamped_rows_inside_limits(drivers.rows['state'], robot.limits, 2)
        last = drivers.executed[-1].points[0].positions
        np.testing.assert_allclose(drivers.rows['position'][-1][1], last[:2], atol=1e-6)
        count = len(drivers.rows['position'])
        # The emergency stop, from a motion.
        drivers.start_motion()
        assert drivers.rows['position'][count:], 'the motion had no rows'
        drivers.forget()
        drivers.stop.publish(Bool(data=True))
        wait_for(lambda: drivers.mode == ControlMode.STOPPED, 'STOPPED')
        drivers.wait_for_rest()
        drivers.stop.publish(Bool(data=False))
        wait_for(lambda: drivers.trigger('clear_stop').success, 'clear_stop')
        # A plugin that fails is named.
        drivers.start_motion()
        (tmp_path / 'fails').write_text('send')
        wait_for(lambda: drivers.mode == ControlMode.HOLD, 'HOLD')
        assert drivers.modes[-1].reason == (
            f'plugin {PLUGIN}: RuntimeError: the servo bus failed in send')
        (tmp_path / 'fails').write_text('fault')
        wait_for(lambda: 'failed in fault' in drivers.set_mode(ControlMode.POLICY).message,
                 'a refusal')
        (tmp_path / 'fails').unlink()
        # The end by SIGINT, from a motion.
        drivers.start_motion()
        drivers.forget()
        process.send_signal(signal.SIGINT)
        assert wait_for_end(process, 10.0) == 0
        drivers.wait_for_rest()
        assert_stamped_rows_inside_limits(drivers.rows['state'], robot.limits, 2)
        assert (tmp_path / 'closed').read_text() == 'six'


def test_a_lost_driver_means_hold_and_a_killed_mux_leaves_the_last_row(
        tmp_path, drivers, python_path):
    with mux_of(tmp_path, mixed_file(tmp_path)) as process:
        drivers.start_motion()
        drivers.node.destroy_subscription(drivers.subscriptions['state'])
        wait_for(lambda: drivers.mode == ControlMode.HOLD, 'HOLD')
        assert 'servo/command (none listens)' in drivers.modes[-1].reason
        drivers.subscriptions['state'] = drivers.node.create_subscription(
            JointState, 'servo/command', drivers.on_state, EVENTS)
        drivers.start_motion()
        # Silent joint states.
        drivers.forget()
        drivers.states_alive = False
        wait_for(lambda: drivers.mode == ControlMode.HOLD, 'HOLD')
        # As the states are waited for longer than an arm may stand, either is told.
        drivers.wait_for_rest()
        drivers.states_alive = True
        drivers.start_motion()
        process.kill()
        process.wait()
        # Nobody brakes: the positions stay at the last row, the velocities go on.
        wait_for(lambda: time.monotonic() - drivers.rows['velocity'][-1][0] > 0.3, 'the last row')
        assert np.abs(drivers.rows['velocity'][-1][1]).max() > 0.05
        last = drivers.rows['position'][-1][1]
        np.testing.assert_array_equal(drivers.q[:2], last)


@pytest.mark.parametrize(('controller', 'expected'), [
    ({'kind': 'plugin', 'plugin': 'no_such_package.driver:Driver'},
     'plugin no_such_package.driver:Driver: ModuleNotFoundError: No module named'),
    ({'kind': 'plugin', 'plugin': 'row_publisher:WithoutSend'}, 'has no method send'),
    ({'kind': 'plugin', 'plugin': PLUGIN}, "RowPublisher: KeyError: 'fails'"),
    ({'kind': 'joint_group', 'topic': 'commands/joint_group', 'group': 'arm'},
     'interbotix_xs_msgs'),
])
def test_a_driver_that_cannot_be_had_is_named_in_one_line(
        tmp_path, python_path, controller, expected):
    if expected == 'interbotix_xs_msgs':
        if has_package(expected):
            pytest.skip('interbotix_xs_msgs is installed')
    file = robot_file(tmp_path, [{**controller, 'joints': [*ARM, GRIPPER]}])
    with mux_of(tmp_path, file) as process:
        assert process.wait(timeout=60) == 1
    lines = (tmp_path / 'mux.log').read_text().splitlines()
    wrong = [line for line in lines if line.startswith('cannot start: ')]
    assert len(wrong) == 1 and expected in wrong[0]
    assert 'Traceback' not in ''.join(lines)


def has_package(name):
    return subprocess.run([sys.executable, '-c', f'import {name}'], capture_output=True,
                          check=False).returncode == 0
