"""
Policy and mux over real DDS while a person takes the arm and gives it back, again and again.

Runs for some seconds; set LINGBOT_VA_TAKEOVER_SECONDS for longer.
"""

import os
import time

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
import numpy as np
import pytest
from rcl_interfaces.srv import SetParameters
import rclpy
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, JointState
from support.messages import nanoseconds, stamped
from support.node_processes import node_process
from support.services import Services
from support.spinning import spinning
from support.waiting import DEADLINE, wait_for
from trajectory_msgs.msg import JointTrajectory
import yaml

from lingbot_va_ros.motion.plan import Plan, resting_at
from lingbot_va_ros.msg import ActionChunk, ControlMode, PolicyStatus
from lingbot_va_ros.nodes import qos
from lingbot_va_ros.nodes.images.conversion import from_rgb
from lingbot_va_ros.specs.embodiment import load_embodiment
from lingbot_va_ros.srv import SetControlMode, SetInstruction

NS = 1_000_000_000
SECONDS = float(os.environ.get('LINGBOT_VA_TAKEOVER_SECONDS', '1'))
SEED = int(os.environ.get('LINGBOT_VA_FAULT_SEED', '1'))
NAMESPACE = '/takeovers'
POLICY, MUX = f'{NAMESPACE}/lingbot_va_policy', f'{NAMESPACE}/command_mux'
ROBOT = load_embodiment('sim_left')
CAMERAS = ('head', 'left_wrist')
SWING = np.array([0.3, 0.2, 0.2, 0.3, 0.2, 0.2, 0.0])
# A busy machine may deliver late, which is not what is tested here.
PATIENT = ('source_timeout:=3.0', 'joint_state_timeout:=3.0')

pytestmark = pytest.mark.timeout(SECONDS + 600)


class World:
    """Cameras, an arm that goes where the mux sends it, a leader arm, and what both nodes say."""

    def __init__(self, node):
        self.node = node
        self.arm = resting_at(0, ROBOT.home)
        self.leader = lambda time_ns: ROBOT.home
        self.statuses, self.chunks, self.executed, self.modes = [], [], [], []
        self._picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
        self.call = Services(node).call
        for kind, name, callback, profile in (
                (JointTrajectory, 'joint_trajectory_controller/joint_trajectory',
                 self._on_command, qos.EVENTS),
                (JointTrajectory, 'executed', self.executed.append, qos.EXECUTED),
                (ControlMode, 'command_mux/mode', self.modes.append, qos.LATCHED),
                (PolicyStatus, 'lingbot_va_policy/status', self.statuses.append, qos.LATCHED),
                (ActionChunk, 'lingbot_va_policy/action_chunk', self.chunks.append, qos.EVENTS)):
            node.create_subscription(kind, f'{NAMESPACE}/{name}', callback, profile)
        self._images = {
            name: node.create_publisher(Image, f'{NAMESPACE}/camera/{name}/image_raw', qos.SENSOR)
            for name in CAMERAS}
        self._joints, self._leader = (
            node.create_publisher(JointState, f'{NAMESPACE}/{name}', qos.JOINT_STATES)
            for name in ('joint_states', 'teleop/joint_states'))
        node.create_timer(0.02, self._tell)
        node.create_timer(0.04, self._show)

    def _on_command(self, message):
        begin = nanoseconds(message.header.stamp)
        q, v = self.arm.sample(begin)
        self.arm = Plan(
            np.array([begin] + [begin + nanoseconds(p.time_from_start) for p in message.points]),
            np.array([q] + [p.positions for p in message.points]),
            np.array([v] + [p.velocities for p in message.points]))

    def _tell(self):
        now = time.time_ns()
        q, v = self.arm.sample(now)
        names = list(ROBOT.joints)
        self._joints.publish(stamped(
            JointState(name=names, position=q.tolist(), velocity=v.tolist()), now))
        self._leader.publish(stamped(
            JointState(name=names, position=list(self.leader(now))), now))

    def _show(self):
        for publisher in self._images.values():
            publisher.publish(stamped(from_rgb(self._picture), time.time_ns()))

    @property
    def status(self):
        return self.statuses[-1] if self.statuses else PolicyStatus()

    @property
    def mode(self):
        return self.modes[-1].mode if self.modes else None

    def change(self, transition):
        return self.call(ChangeState, f'{POLICY}/change_state', ChangeState.Request(
            transition=Transition(id=transition)), 300.0).success

    def choose(self, mode):
        end = time.monotonic() + DEADLINE
        while not (answer := self.call(
                SetControlMode, f'{MUX}/set_mode', SetControlMode.Request(mode=mode))).success:
            assert time.monotonic() < end, answer.message
            time.sleep(0.05)
        wait_for(lambda: self.mode == mode, f'the word of mode {mode}')

    def swing(self):
        """Let the leader go to and fro from where the arm is."""
        begin, q = time.time_ns(), self.arm.positions[-1]
        self.leader = lambda time_ns: q + SWING * np.sin(
            1.5 * max(0.0, (time_ns - begin) / NS))

    def set(self, **values):
        answers = self.call(SetParameters, f'{POLICY}/set_parameters', SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()
                        for name, value in values.items()])).results
        assert all(answer.successful for answer in answers), answers


@pytest.fixture(scope='module')
def graph(untrained_checkpoint, tmp_path_factory):
    """A world with the mux and an active policy that has the arm."""
    rclpy.init()
    node = rclpy.create_node('takeover_world')
    world = World(node)
    folder = tmp_path_factory.mktemp('takeovers')
    policy_file = yaml.safe_load((untrained_checkpoint / 'policy.yaml').read_text())
    policy_file['action_rate'] *= 2.5  # shorter chunks: more of them
    (folder / 'policy.yaml').write_text(yaml.safe_dump(policy_file))
    here = '-r', f'__ns:={NAMESPACE}'
    patient = [word for parameter in PATIENT for word in ('-p', parameter)]
    try:
        with spinning(node), \
                node_process(
                    'command_mux', folder / 'mux.log', *here, *patient, '-r',
                    'policy/joint_trajectory:=lingbot_va_policy/joint_trajectory') as mux, \
                node_process(
                    'policy_node', folder / 'policy.log', *here, '-r',
                    'control_mode:=command_mux/mode', '-p', 'schedule:=async',
                    '-p', f'checkpoint:={untrained_checkpoint}',
                    '-p', f'policy_config:={folder / "policy.yaml"}',
                    '-p', 'max_camera_skew:=0.3') as policy:
            assert world.change(Transition.TRANSITION_CONFIGURE)
            assert world.change(Transition.TRANSITION_ACTIVATE)
            world.processes = (mux, policy)
            yield world
            for running, name in ((mux, 'mux'), (policy, 'policy')):
                assert running.poll() is None, (folder / f'{name}.log').read_text()[-3000:]
                assert 'Traceback' not in (folder / f'{name}.log').read_text()
    finally:
        rclpy.shutdown()


def assert_inside_limits(world):
    """What was executed is one motion inside the limits of velocity and acceleration."""
    limits, period = ROBOT.limits, 0.01
    points = [(nanoseconds(m.header.stamp), np.array(m.points[0].positions),
               np.array(m.points[0].velocities)) for m in list(world.executed)]
    assert len(points) > 100
    for (before_ns, q, v), (due_ns, q_next, v_next) in zip(points, points[1:]):
        assert due_ns > before_ns
        assert np.all((q_next >= limits.lower - 1e-9) & (q_next <= limits.upper + 1e-9))
        assert np.all(np.abs(v_next) <= limits.velocity + 1e-9)
        if due_ns - before_ns > 1.5 * period * NS:  # after a rest, or after a lost message
            way = limits.velocity * (period if not v.any() else (due_ns - before_ns) / NS)
            assert np.all(np.abs(q_next - q) <= 0.05 + way)
            continue
        assert np.all(np.abs(v_next - v) <= limits.acceleration * period + 1e-7)
        assert np.all(np.abs(q_next - q) <= limits.velocity * period + 1e-9)


def test_the_policy_remembers_a_takeover_and_goes_on_from_there(graph):
    world = graph
    world.choose(ControlMode.HOLD)
    world.call(SetInstruction, f'{POLICY}/set_instruction', SetInstruction.Request(
        instruction='wipe the plate'))
    world.choose(ControlMode.POLICY)
    wait_for(lambda: len(world.chunks) >= 2, 'two chunks')
    world.swing()
    world.choose(ControlMode.TELEOP)
    wait_for(lambda: 'is remembered' in world.status.reason, 'the word that it observes')
    assert world.status.mode == PolicyStatus.HOLDING
    before, told = world.status.memory_frames, len(world.chunks)
    wait_for(lambda: world.status.memory_frames >= before + 4, 'more memory')
    assert len(world.chunks) == told
    world.choose(ControlMode.HOLD)
    wait_for(lambda: world.status.reason == 'control_mode is HOLD', 'the word of HOLD')
    frames, said = world.status.memory_frames, len(world.statuses)
    wait_for(lambda: len(world.statuses) >= said + 3, 'time to pass')
    assert world.status.memory_frames == frames
    world.choose(ControlMode.POLICY)
    given_back = nanoseconds(world.modes[-1].header.stamp)
    chunk = wait_for(lambda: world.chunks[told:], 'a chunk of the policy')[0]
    assert chunk.epoch == world.status.epoch == 1 and chunk.chunk_id == told
    assert nanoseconds(chunk.observation_stamp) <= given_back
    assert world.status.memory_frames >= frames
    assert_inside_limits(world)


def test_takeovers_one_after_the_other_leave_one_episode(graph):
    world, rng = graph, np.random.default_rng(SEED)
    end, takeovers = time.monotonic() + SECONDS, 0
    statuses = len(world.statuses)
    while time.monotonic() < end or takeovers < 1:
        world.choose(ControlMode.POLICY)
        told = len(world.chunks)
        wait_for(lambda: len(world.chunks) > told, 'a chunk')
        time.sleep(rng.uniform(0.0, 1.2))
        world.swing()
        world.choose(ControlMode.TELEOP)
        time.sleep(rng.uniform(0.0, 1.5))
        if rng.random() < 0.3:
            world.choose(ControlMode.HOLD)
        takeovers += 1
    world.choose(ControlMode.POLICY)
    told = len(world.chunks)
    wait_for(lambda: len(world.chunks) >= told + 2, 'chunks after the last takeover')
    assert all(chunk.epoch == 1 for chunk in world.chunks)
    assert [chunk.chunk_id for chunk in world.chunks] == list(range(len(world.chunks)))
    frames = [status.memory_frames for status in world.statuses[statuses:]]
    # A short chunk takes as much room as a whole one: a full memory then lacks some frames.
    full = world.status.memory_capacity - 4
    assert all(after >= min(before, full) for before, after in zip(frames, frames[1:]))
    assert frames[-1] > frames[0] or frames[-1] >= full
    assert not any(status.mode == PolicyStatus.FAULT for status in world.statuses)
    assert_inside_limits(world)


def test_a_takeover_that_is_to_be_forgotten_begins_a_new_epoch(graph):
    world = graph
    world.set(takeover_memory='forget')
    try:
        world.choose(ControlMode.POLICY)
        told = len(world.chunks)
        wait_for(lambda: len(world.chunks) > told, 'a chunk')
        epoch = world.status.epoch
        world.swing()
        world.choose(ControlMode.TELEOP)
        wait_for(lambda: world.status.epoch == epoch + 1, 'a new epoch')
        wait_for(lambda: world.status.memory_frames == 0, 'an empty memory')
        told = len(world.chunks)
        world.choose(ControlMode.POLICY)
        chunk = wait_for(lambda: world.chunks[told:], 'a chunk')[0]
        assert (chunk.epoch, chunk.chunk_id) == (epoch + 1, 0)
    finally:
        world.set(takeover_memory='keep')
