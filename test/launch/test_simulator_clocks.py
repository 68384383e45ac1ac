"""
The mux on the /clock of a simulator: the sampled controller behind it moves evenly.

Neither simulator runs here. A publisher steps /clock as they do, a controller samples the mux's
commands at the steps, and each step waits for the mux, as fast or slow as this machine is.
"""

from dataclasses import dataclass
import os

import numpy as np
import pytest
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from support.messages import nanoseconds
from support.node_processes import node_process
from support.services import Services
from support.spinning import spinning_node
from support.waiting import DEADLINE, wait_for
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from lingbot_va_ros.msg import ControlMode
from lingbot_va_ros.nodes import qos
from lingbot_va_ros.nodes.sim_robot.messages import trajectory_of
from lingbot_va_ros.nodes.stamps import duration_of, stamp_of
from lingbot_va_ros.sim.controllers.command_trace import CommandTrace
from lingbot_va_ros.sim.controllers.control_loop import ControlLoop
from lingbot_va_ros.sim.controllers.delivery import Delivery
from lingbot_va_ros.sim.controllers.settings import controller_settings
from lingbot_va_ros.sim.controllers.trajectory_controller import TrajectoryController
from lingbot_va_ros.specs.embodiment import load_embodiment
from lingbot_va_ros.srv import SetControlMode

NS = 1_000_000_000
ROBOT = load_embodiment('sim_left')
PERIOD_NS = NS // 100  # of the mux
SPEED = 0.5  # rad/s of the first joint
SETTLING, MEASURED = 1.0, 1.0  # s

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Simulator:
    """
    How a simulator steps.

    :param clock_ns: from message to message on /clock.
    :param update_rate: of the controller, Hz; its updates are at steps of the clock.
    :param delay: of a command, in simulated time, s.
    """

    clock_ns: int
    update_rate: float
    delay: float


SIMULATORS = {
    # One message a rendered frame; ros2_control runs beside Isaac Sim and follows /clock.
    'isaac': Simulator(NS // 60, 60.0, 0.0),
    'isaac, late commands': Simulator(NS // 60, 60.0, 0.015),
    # Physics at 1 kHz, /clock at 200 Hz, and gz_ros2_control at the mux's own rate.
    'gazebo': Simulator(NS // 200, 100.0, 0.0),
    'gazebo, late commands': Simulator(NS // 200, 100.0, 0.015),
}


class Cell:
    """A simulator's clock, a controller with an arm that follows it, and a policy that plans."""

    def __init__(self, node, namespace, simulator):
        self._simulator = simulator
        self.time_ns = NS
        settings = controller_settings('jazzy', rate=simulator.update_rate)
        self._loop = ControlLoop(
            TrajectoryController(ROBOT.joints, settings), Delivery(simulator.delay))
        self._loop.begin(self.time_ns, ROBOT.home)
        self.stamps, self.commands, self.modes = [], [], []
        self.moving_since_ns = None

        def publisher(kind, topic, profile):
            return node.create_publisher(kind, f'/{namespace}/{topic}', profile)

        self._clock = node.create_publisher(Clock, '/clock', QoSProfile(depth=10))
        self._states = publisher(JointState, 'joint_states', qos.EVENTS)
        self._plans = publisher(JointTrajectory, 'policy/joint_trajectory', qos.COMMAND)
        node.create_subscription(
            JointTrajectory, f'/{namespace}/joint_trajectory_controller/joint_trajectory',
            self._take_command, qos.EVENTS)
        node.create_subscription(
            ControlMode, f'/{namespace}/command_mux/mode', self.modes.append, qos.LATCHED)
        self._set_mode = f'/{namespace}/command_mux/set_mode'
        self._services = Services(node)

    def _take_command(self, message):
        stamp_ns = nanoseconds(message.header.stamp)
        self._loop.send(trajectory_of(message, stamp_ns), self.time_ns)
        self.stamps.append(stamp_ns)

    @property
    def mode(self):
        return self.modes[-1].mode if self.modes else None

    def step(self, waits):
        """
        Step the clock: the arm is measured, the policy plans, and the controller samples.

        :param waits: whether the controller waits for the mux's newest tick.
        """
        self.time_ns += self._simulator.clock_ns
        self._clock.publish(Clock(clock=stamp_of(self.time_ns)))
        state = JointState(name=list(ROBOT.joints), position=self._loop.command.tolist())
        state.header.stamp = stamp_of(self.time_ns)
        self._states.publish(state)
        self._plans.publish(self._plan())
        if waits:
            wait_for(lambda: self.stamps and self.stamps[-1] > self.time_ns - PERIOD_NS,
                     f'a command at {self.time_ns / NS:.3f} s; the mux says {self.modes[-1]}')
        command = self._loop.advance(self.time_ns, lambda: (self._loop.command, None))
        self.commands.append(command.copy())

    def _plan(self):
        message = JointTrajectory(joint_names=list(ROBOT.joints))
        message.header.stamp = stamp_of(self.time_ns)
        for number in range(1, 12):
            after_ns = number * NS // 20
            q, v = ROBOT.home.copy(), np.zeros(len(ROBOT.joints))
            if self.moving_since_ns is not None:
                q[0] += SPEED * (self.time_ns + after_ns - self.moving_since_ns) / NS
                v[0] = SPEED if number < 11 else 0.0
            message.points.append(JointTrajectoryPoint(
                positions=q.tolist(), velocities=v.tolist(),
                time_from_start=duration_of(after_ns)))
        return message

    def start_policy(self):
        """Step until the mux gives the arm to the policy and sends its first command."""
        request = SetControlMode.Request(mode=ControlMode.POLICY)

        def given():
            self.step(waits=False)
            return self._services.call(
                SetControlMode, self._set_mode, request, DEADLINE).success

        def commanded():
            self.step(waits=False)
            return self.stamps and self.mode == ControlMode.POLICY
        wait_for(given, 'POLICY')
        wait_for(commanded, 'a command')
        self.moving_since_ns = self.time_ns + PERIOD_NS * 10

    def trace(self, seconds):
        """Step for so long, and return the commands of the controller at its updates."""
        first = len(self.commands)
        begin_ns, end_ns = self.time_ns, self.time_ns + round(seconds * NS)
        while self.time_ns < end_ns:
            self.step(waits=True)
        stride = round(NS / self._simulator.update_rate / self._simulator.clock_ns)
        return CommandTrace(
            begin_ns, 1 / self._simulator.update_rate, np.array(self.commands[first::stride]))


@pytest.mark.parametrize('name', SIMULATORS)
def test_the_controller_moves_evenly_on_the_clock_of(tmp_path, name):
    namespace = f'cell_{os.getpid()}_{list(SIMULATORS).index(name)}'
    with spinning_node('simulator') as node, node_process(
            'command_mux', tmp_path / 'mux.log', '-r', f'__ns:=/{namespace}', '-p',
            'use_sim_time:=true', '-p', 'embodiment:=sim_left', '-p', 'source_timeout:=0.5', '-p',
            'joint_state_timeout:=0.5'):
        cell = Cell(node, namespace, SIMULATORS[name])
        cell.start_policy()
        trace = cell.trace(SETTLING + MEASURED)
        assert cell.mode == ControlMode.POLICY, cell.modes[-1].reason
    limits = ROBOT.limits.acceleration
    assert np.all(np.abs(trace.accelerations()) < 1.2 * limits)
    speeds = trace.after(SETTLING).speeds()
    np.testing.assert_allclose(speeds[:, 0], SPEED, rtol=0.01)
    np.testing.assert_allclose(speeds[:, 1:], 0.0, atol=1e-6)
