"""
What the bridges of Gazebo and Isaac Sim put on the wire, and the policy driven through it.

Neither simulator runs here. The profiles below say what their bridges do, read in the sources of
ros_gz (image_bridge, parameter_bridge), gz-sim, gz_ros2_control and Isaac Sim's ROS 2 nodes; a
publisher does the same over real DDS, to a policy node in a process of its own.
"""

import contextlib
from dataclasses import dataclass
import os
import threading
import time

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
import numpy as np
import pytest
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from support.messages import nanoseconds
from support.node_processes import node_process
from support.services import Services
from support.spinning import spinning_node
from support.waiting import DEADLINE
from trajectory_msgs.msg import JointTrajectory

from lingbot_va_ros.msg import ActionChunk, PolicyStatus
from lingbot_va_ros.nodes import qos
from lingbot_va_ros.specs.embodiment import load_embodiment

NS = 1_000_000_000
ROBOT = load_embodiment('sim_left')
RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
CHANNELS = {
    'rgb8': [0, 1, 2], 'bgr8': [2, 1, 0], 'rgba8': [0, 1, 2, 0], 'bgra8': [2, 1, 0, 0]}

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Bridge:
    """
    How a simulator's bridge behaves.

    :param rate: images of each camera a second, in simulated time.
    :param padding: bytes at the end of each row that are no pixels.
    :param frames: frame_id of the head camera and of the wrist camera.
    :param clock_rate: messages on /clock a second.
    :param clock_in_pauses: whether /clock repeats its time while the simulation is paused.
    :param images_first: whether images of a step arrive before the step's time does.
    :param more_joints: joints beside those of the arm, before them in the message.
    """

    encoding: str
    reliability: ReliabilityPolicy
    rate: float
    padding: int
    frames: tuple
    clock_rate: float
    clock_in_pauses: bool
    images_first: bool
    joint_rate: float
    more_joints: tuple


OPTICAL = ('head_camera_optical_frame', 'left_wrist_camera_optical_frame')
BRIDGES = {
    # image_bridge and parameter_bridge: reliable, depth 10. gz-sim publishes its clock after each
    # step, paused or not. joint_state_broadcaster tells the fingers that mimic, too.
    'gazebo': Bridge(
        'rgb8', RELIABLE, 30.0, 0, OPTICAL, 200.0, True, False, 100.0, ('left_finger_2_joint',)),
    # image_bridge with its parameter qos:=sensor_data, slow cameras of format B8G8R8.
    'gazebo_sensor_data': Bridge(
        'bgr8', BEST_EFFORT, 15.0, 0, OPTICAL, 200.0, True, True, 100.0, ()),
    # Camera Helper and Publish Joint State as they come: reliable, depth 10, one publication a
    # rendered frame, the same frame_id for every camera; a pause silences everything.
    'isaac': Bridge(
        'rgb8', RELIABLE, 60.0, 0, ('sim_camera', 'sim_camera'), 60.0, False, True, 60.0,
        ('left_finger_2_joint',)),
    # QoS profile "Sensor Data" and rgba8. Rows are padded by what copies from a GPU with a pitch,
    # as camera pipelines behind a simulator do; the bridges themselves do not pad.
    'isaac_sensor_data': Bridge(
        'rgba8', BEST_EFFORT, 60.0, 32, OPTICAL, 60.0, False, False, 60.0, ()),
}
# Each takes a quarter of a minute: both simulators and both kinds of QoS are in these two.
NAMES = BRIDGES if os.environ.get('LINGBOT_VA_ALL_BRIDGES') else ('gazebo', 'isaac_sensor_data')


class Simulation:
    """A simulator's side of the bridge: its clock, two cameras, an arm that stands at home."""

    def __init__(self, node, namespace, bridge):
        self._bridge = bridge
        self.joints = False
        self.time_ns = 0
        self.playing = False
        self.lock = threading.Lock()
        profile = QoSProfile(depth=10, reliability=bridge.reliability)
        reliable = QoSProfile(depth=10, reliability=RELIABLE)
        self._clock = node.create_publisher(Clock, '/clock', reliable)
        self._cameras = [
            (frame, node.create_publisher(Image, f'/{namespace}/camera/{name}/image_raw', profile))
            for name, frame in zip(('head', 'left_wrist'), bridge.frames)]
        self._states = node.create_publisher(JointState, f'/{namespace}/joint_states', reliable)
        self._entities = [self._clock, self._states, *(out for _, out in self._cameras)]
        self._node, self._due = node, {}
        self._picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
        self._ticked = time.monotonic_ns()
        self._timer = node.create_timer(1 / bridge.clock_rate, self._tick)

    def close(self):
        with self.lock:
            self._node.destroy_timer(self._timer)
            for entity in self._entities:
                self._node.destroy_publisher(entity)

    def play(self):
        with self.lock:
            self.playing, self._ticked = True, time.monotonic_ns()

    def pause(self):
        with self.lock:
            self.playing = False
            return self.time_ns

    def rewind(self):
        """
        Start again at 0, as a reset does; return the time before.

        Images come by another process than the clock: one from before is still on its way.
        """
        with self.lock:
            old, self.time_ns = self.time_ns, 0
            self._due.clear()
            self._tell_time()
            time.sleep(0.1)
            self._show(old)
            self._ticked = time.monotonic_ns()
            return old

    def _tick(self):
        with self.lock:
            now = time.monotonic_ns()
            if self.playing:
                self._step()
                self.time_ns += now - self._ticked
            elif self._bridge.clock_in_pauses and self._due:
                self._tell_time()
            self._ticked = now

    def _step(self):
        images = self._is_due('images', self._bridge.rate)
        if images and self._bridge.images_first:
            self._show(self.time_ns)
        self._tell_time()
        if images and not self._bridge.images_first:
            self._show(self.time_ns)
        if self.joints and self._is_due('joints', self._bridge.joint_rate):
            names = [*self._bridge.more_joints, *ROBOT.joints]
            message = JointState(
                name=names, position=[0.0] * len(self._bridge.more_joints) + ROBOT.home.tolist())
            self._stamp(message, self.time_ns, '')
            self._states.publish(message)

    def _is_due(self, what, rate):
        if self.time_ns < self._due.get(what, 0):
            return False
        self._due[what] = max(self._due.get(what, 0) + round(NS / rate), self.time_ns + 1)
        return True

    def _tell_time(self):
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(self.time_ns, NS)
        self._clock.publish(message)

    def _show(self, stamp_ns):
        for frame, out in self._cameras:
            pixels = self._picture[..., CHANNELS[self._bridge.encoding]]
            rows = pixels.reshape(len(pixels), -1)
            rows = np.pad(rows, ((0, 0), (0, self._bridge.padding)), constant_values=255)
            message = Image(
                height=pixels.shape[0], width=pixels.shape[1], encoding=self._bridge.encoding,
                step=rows.shape[1])
            message.data.frombytes(rows.tobytes())
            self._stamp(message, stamp_ns, frame)
            out.publish(message)

    @staticmethod
    def _stamp(message, stamp_ns, frame):
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, NS)
        message.header.frame_id = frame


class Policy:
    """The policy node's process, asked and watched over DDS."""

    def __init__(self, node, namespace, process, log):
        self.node, self.process, self.log = node, process, log
        self._name = f'/{namespace}/lingbot_va_policy'
        self._services = Services(node)
        self.statuses, self.chunks, self.plans = [], [], []
        self._entities = [
            node.create_subscription(kind, f'{self._name}/{name}', record.append, profile)
            for kind, name, record, profile in (
                (PolicyStatus, 'status', self.statuses, qos.LATCHED),
                (ActionChunk, 'action_chunk', self.chunks, qos.EVENTS),
                (JointTrajectory, 'joint_trajectory', self.plans, qos.EVENTS))]

    def close(self):
        self._services.close()
        for entity in self._entities:
            self.node.destroy_subscription(entity)

    @property
    def status(self):
        return self.statuses[-1] if self.statuses else PolicyStatus()

    def wait_for(self, condition, what, seconds=DEADLINE):
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < end, (
                f'{what} did not happen within {seconds} s (mode {self.status.mode}, '
                f'{self.status.reason!r})\n{self.log()}')
            time.sleep(0.01)

    def wait_reason(self, words):
        self.wait_for(
            lambda: self.status.mode == PolicyStatus.HOLDING and words in self.status.reason,
            f'HOLDING with {words!r}')

    def call(self, kind, name, request, seconds=DEADLINE):
        return self._services.call(kind, f'{self._name}/{name}', request, seconds)

    def change(self, transition):
        return self.call(
            ChangeState, 'change_state',
            ChangeState.Request(transition=Transition(id=transition)), 300.0).success

    def state(self):
        return self.call(GetState, 'get_state', GetState.Request()).current_state.id


@pytest.fixture(scope='module')
def node():
    """A node of the test's own, spinning in a thread."""
    with spinning_node('simulator') as made:
        yield made


@contextlib.contextmanager
def running_policy(node, namespace, folder, checkpoint):
    """
    Run a policy with simulated time; an instruction is given, so that it works when it can.

    A namespace of its own: DDS goes on to show the services of a killed process for a while.
    """
    log = folder / 'policy.log'
    with node_process(
            'policy_node', log, '-r', f'__ns:=/{namespace}', '-p', 'use_sim_time:=true',
            '-p', 'executed_source:=plan', '-p', f'checkpoint:={checkpoint}',
            '-p', 'instruction:=go') as process:
        policy = Policy(node, namespace, process, log.read_text)
        try:
            yield policy
        finally:
            policy.close()


@pytest.mark.parametrize('name', NAMES)
def test_the_policy_works_through_the_bridge(node, tmp_path, untrained_checkpoint, name):
    simulation = Simulation(node, name, BRIDGES[name])
    try:
        with running_policy(node, name, tmp_path, untrained_checkpoint) as policy:
            comes_up_before_the_simulation(policy)
            names_what_is_missing(policy, simulation)
            works_in_simulated_time(policy, simulation)
            rests_in_a_pause(policy, simulation)
            starts_again_after_a_reset(policy, simulation)
            assert 'Traceback' not in policy.log()
    finally:
        simulation.close()


def comes_up_before_the_simulation(policy):
    assert policy.change(Transition.TRANSITION_CONFIGURE), policy.log()
    assert policy.change(Transition.TRANSITION_ACTIVATE), policy.log()
    policy.wait_reason('/clock')


def names_what_is_missing(policy, simulation):
    """Cameras come as soon as the simulation plays, joint states when controllers are loaded."""
    simulation.play()
    policy.wait_reason('joint_states')
    assert not policy.chunks and not policy.plans


def works_in_simulated_time(policy, simulation):
    simulation.joints = True
    policy.wait_for(lambda: len(policy.chunks) >= 2, 'a second chunk')
    first, second = policy.chunks[:2]
    assert (first.epoch, first.chunk_id, second.chunk_id) == (1, 0, 1)
    assert 0 < nanoseconds(first.header.stamp) < nanoseconds(second.header.stamp)
    assert nanoseconds(first.header.stamp) < simulation.time_ns + NS
    assert nanoseconds(second.observation_stamp) <= simulation.time_ns
    policy.wait_for(lambda: policy.status.memory_frames >= 2, 'two remembered frames')
    for plan in policy.plans:
        assert 0 <= nanoseconds(plan.header.stamp) <= simulation.time_ns
        assert plan.points[0].time_from_start.sec + plan.points[0].time_from_start.nanosec > 0
        assert not any(plan.points[-1].velocities)


def rests_in_a_pause(policy, simulation):
    stopped_at = simulation.pause()
    before = len(policy.statuses)  # at 2 Hz: by the second one, what was on its way has come
    policy.wait_for(lambda: len(policy.statuses) >= before + 2, 'statuses in the pause')
    statuses, plans, chunks = len(policy.statuses), len(policy.plans), len(policy.chunks)
    frames = policy.status.memory_frames
    policy.wait_for(lambda: len(policy.statuses) >= statuses + 3, 'statuses in the pause')
    assert all(status.mode == PolicyStatus.RUNNING for status in policy.statuses[statuses:])
    assert all(nanoseconds(plan.header.stamp) <= stopped_at for plan in policy.plans[plans:])
    assert len(policy.plans) <= plans + 1 and len(policy.chunks) <= chunks + 1
    assert policy.state() == State.PRIMARY_STATE_ACTIVE
    simulation.play()
    policy.wait_for(lambda: len(policy.chunks) >= chunks + 2, 'chunks after the pause')
    policy.wait_for(lambda: policy.status.memory_frames > frames, 'more remembered frames')
    assert policy.chunks[-1].epoch == 1


def starts_again_after_a_reset(policy, simulation):
    old = simulation.rewind()
    policy.wait_for(lambda: policy.status.epoch == 2, 'epoch 2')
    policy.wait_for(
        lambda: sum(chunk.epoch == 2 for chunk in policy.chunks) >= 2, 'chunks after the reset')
    new = [chunk for chunk in policy.chunks if chunk.epoch == 2]
    assert [chunk.chunk_id for chunk in new[:2]] == [0, 1]
    assert all(nanoseconds(chunk.header.stamp) < old for chunk in new[:2]), policy.log()
    assert nanoseconds(new[0].observation_stamp) < nanoseconds(new[0].header.stamp)
    assert policy.state() == State.PRIMARY_STATE_ACTIVE
    assert not any(status.mode == PolicyStatus.FAULT for status in policy.statuses)
