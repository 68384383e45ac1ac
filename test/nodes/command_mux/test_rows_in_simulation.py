"""sim_robot without a trajectory controller, driven by the mux row by row, and a killed mux."""

import time

from nodes.command_mux.test_controller_kinds import Drivers, PATIENT, robot_file
import numpy as np
import pytest
import rclpy
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from support.messages import nanoseconds
from support.node_processes import node_process
from support.spinning import spinning
from support.waiting import wait_for

from lingbot_va_ros.msg import ControlMode
from lingbot_va_ros.nodes.qos import EXECUTED
from lingbot_va_ros.sim.controllers.direct_driver import INTERFACES
from lingbot_va_ros.specs.embodiment import load_embodiment

NS = 1_000_000_000
ROBOT = load_embodiment('sim_left')
TYPES = {'joint_state': JointState}


@pytest.fixture(scope='module', autouse=True)
def ros():
    rclpy.init()
    yield
    rclpy.try_shutdown()


class World(Drivers):
    """The policy of sim_robot; keeps what the mux sends and where the arm is."""

    def __init__(self, node, interface):
        super().__init__(node)
        self.messages, self.states_seen = [], []
        self.interface = interface
        self.swing = np.array([0.3, 0.2, -0.2, 0.3, 0.2, 0.2, -0.005])  # from home on
        node.create_subscription(
            TYPES.get(interface, Float64MultiArray), INTERFACES[interface],
            self.messages.append, EXECUTED)
        node.create_subscription(JointState, 'joint_states', self.on_states, 10)

    def publish_states(self):
        """Leave the joint states to sim_robot."""

    def on_states(self, message):
        self.q[:] = [message.position[list(message.name).index(name)] for name in ROBOT.joints]
        self.states_seen.append(np.array(message.velocity))

    def sent(self):
        """Return the values of all messages, [n, J]."""
        return np.array([values_of(message) for message in list(self.messages)])

    def is_moving(self):
        return bool(self.states_seen) and np.abs(self.states_seen[-1]).max() > 0.2

    def rests(self):
        return len(self.states_seen) > 20 and np.abs(self.states_seen[-20:]).max() < 1e-3


def values_of(message):
    """Return the values [J] of a message."""
    return message.position if isinstance(message, JointState) else message.data


def assert_rows_inside_limits(world):
    """Check the rows at the times that executed gives them."""
    limits = ROBOT.limits
    messages = list(world.messages)[1:-5]  # from the begin to what is executed and known so
    rows, seen_ns = np.array([values_of(message) for message in messages]), time.time_ns()
    wait_for(lambda: nanoseconds(world.executed[-1].header.stamp) > seen_ns, 'executed')
    executed = [(nanoseconds(message.header.stamp), np.array(message.points[0].positions))
                for message in list(world.executed)]
    times = np.array([stamp for stamp, _ in executed])
    points = np.array([q for _, q in executed])
    # Each row is an executed point; the rows of a rest are all its last one.
    nearest = [int(np.argmin(np.abs(points - row).max(axis=1))) for row in rows]
    off = np.abs(points[nearest] - rows).max()
    assert off < 1e-6, off
    if world.interface == 'joint_state':
        stamps = np.array([nanoseconds(message.header.stamp) for message in messages])
    else:
        stamps = times[nearest]
    assert np.all(rows >= limits.lower - 1e-9) and np.all(rows <= limits.upper + 1e-9)
    moving = np.flatnonzero(np.diff(stamps) > 0)
    seconds = np.diff(stamps)[moving, None] / NS
    speeds = np.diff(rows, axis=0)[moving] / seconds
    assert np.all(np.abs(speeds) <= limits.velocity + 1e-6)
    even = np.flatnonzero((seconds[1:] == seconds[:-1]).all(axis=1))
    gains = np.diff(speeds, axis=0)[even] / seconds[1:][even]
    assert len(gains) > 20 and np.all(np.abs(gains) <= limits.acceleration + 0.05)


@pytest.mark.parametrize('interface', ['forward_position', 'joint_state', 'forward_velocity'])
def test_the_simulated_arm_follows_rows_and_a_killed_mux_leaves_it_as_documented(
        tmp_path, interface):
    controllers = [{'topic': INTERFACES[interface], 'kind': interface,
                    'joints': list(ROBOT.joints)}]
    file = robot_file(tmp_path, controllers)
    parameters = [item for parameter in (f'embodiment:={file}', *PATIENT)
                  for item in ('-p', parameter)]
    with node_process(
            'sim_robot', tmp_path / 'sim.log', '-p', f'command_interface:={interface}',
            '-p', 'command_timeout:=0.0', '-p', 'camera_rate:=0.5'), node_process(
            'command_mux', tmp_path / 'mux.log', *parameters) as mux, spinning(
            rclpy.create_node('world')) as node:
        world = World(node, interface)
        wait_for(lambda: world.states_seen, 'joint states')
        world.start_motion()
        count = len(world.messages)
        wait_for(lambda: len(world.messages) > count + 40, 'rows')
        assert world.mode == ControlMode.POLICY
        if interface != 'forward_velocity':
            assert_rows_inside_limits(world)
        assert world.set_mode(ControlMode.HOLD).success
        wait_for(world.rests, 'rest')
        last = np.array(world.executed[-1].points[0].positions)
        np.testing.assert_allclose(world.q, last, atol=0.03)
        if interface == 'forward_velocity':
            assert not world.sent()[-1].any()
        else:
            np.testing.assert_allclose(world.sent()[-1], last, atol=1e-6)
        world.start_motion()
        mux.kill()
        mux.wait()
        if interface == 'forward_velocity':
            seen = len(world.states_seen)
            wait_for(lambda: len(world.states_seen) > seen + 20, 'joint states')
            assert np.abs(world.states_seen[-1]).max() > 0.05  # it goes on
        else:
            wait_for(world.rests, 'rest')
            np.testing.assert_allclose(world.q, world.sent()[-1], atol=0.03)
