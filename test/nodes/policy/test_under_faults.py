"""
The policy node while cameras, clocks and callers misbehave at random.

Everything that it says is recorded with stamps and judged afterwards. Runs for some seconds; set
LINGBOT_VA_FAULT_SECONDS for longer.
"""

import os
import time
from types import SimpleNamespace

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
import numpy as np
import pytest
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from support.messages import nanoseconds, stamped
from support.node_processes import node_process
from support.services import Services
from support.spinning import spinning_node
from support.waiting import wait_for
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from lingbot_va_ros.msg import ActionChunk, ControlMode, PolicyStatus
from lingbot_va_ros.nodes import qos
from lingbot_va_ros.nodes.images.conversion import from_rgb
from lingbot_va_ros.specs.embodiment import load_embodiment
from lingbot_va_ros.srv import ResetMemory, SetInstruction

NS = 1_000_000_000
SECONDS = float(os.environ.get('LINGBOT_VA_FAULT_SECONDS', '5'))
SEED = int(os.environ.get('LINGBOT_VA_FAULT_SEED', '1'))
POLICY = 'lingbot_va_policy'
ROBOT = load_embodiment('sim_left')
CAMERAS = ('head', 'left_wrist')
EVERYTHING = QoSProfile(depth=500, reliability=ReliabilityPolicy.RELIABLE)
STEP = 0.02  # seconds between two commands of the played mux
# Between two plans or statuses, in commands of the played mux, which a busy machine delays too.
LONGEST_SILENCE = round(3.0 / STEP)
LONGEST_ANSWER = round(5.0 / STEP)  # to a reset
RECORDS = (
    'plans', 'statuses', 'chunks', 'resets', 'replies', 'jumps', 'silences', 'modes', 'steps')
MAX_CAMERA_AGE = 0.5

pytestmark = pytest.mark.timeout(SECONDS + 600)


def seconds(duration):
    return duration.sec + duration.nanosec / NS


def position_at(plan, time_ns):
    """Where a controller is that follows a plan linearly from point to point."""
    start = nanoseconds(plan.header.stamp)
    times = [start + seconds(point.time_from_start) * NS for point in plan.points]
    rows = np.array([point.positions for point in plan.points])
    return np.array([np.interp(time_ns, times, column) for column in rows.T])


class FaultyWorld:
    """Cameras, a clock, an arm with its mux, and a caller: all of them can go wrong."""

    def __init__(self, node, namespace):
        self.node = node
        self.namespace = namespace
        self.services = Services(node)
        self.started = time.monotonic_ns()
        self.origin = 1000 * NS
        self.silent, self.skewed = set(), {}
        self.delayed = 0.0
        self.mode = ControlMode.POLICY
        self.arm = np.array(ROBOT.home)
        self._waiting = []
        self.begin()
        self._picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
        self._clock = node.create_publisher(Clock, '/clock', 10)
        self._images = {
            name: node.create_publisher(Image, f'{namespace}/camera/{name}/image_raw', 10)
            for name in CAMERAS}
        self._joints = node.create_publisher(JointState, f'{namespace}/joint_states', 10)
        self._executed = node.create_publisher(
            JointTrajectory, f'{namespace}/executed', qos.EXECUTED)
        self._mode = node.create_publisher(ControlMode, f'{namespace}/control_mode', qos.LATCHED)
        self.set_mode(ControlMode.POLICY)
        for kind, name, record, profile in (
                (JointTrajectory, 'joint_trajectory', 'plans', EVERYTHING),
                (ActionChunk, 'action_chunk', 'chunks', EVERYTHING),
                (PolicyStatus, 'status', 'statuses', qos.LATCHED)):
            node.create_subscription(
                kind, f'{namespace}/{POLICY}/{name}',
                lambda message, record=record: getattr(self, record).append(
                    (time.monotonic(), self.now(), message)), profile)
        node.create_timer(0.01, self._tell_time)
        node.create_timer(STEP, self._move)
        node.create_timer(0.04, self._show)

    def begin(self):
        """Forget what was recorded."""
        for name in RECORDS:
            setattr(self, name, [])

    def now(self):
        return self.origin + time.monotonic_ns() - self.started

    def set_mode(self, mode):
        self.mode = mode
        self.modes.append((time.monotonic(), mode))
        self._mode.publish(stamped(ControlMode(mode=mode), self.now()))

    def _tell_time(self):
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(self.now(), NS)
        self._clock.publish(message)

    def _move(self):
        now = self.now()
        self.steps.append(time.monotonic())
        if self.mode == ControlMode.POLICY and self.plans:
            plan = self.plans[-1][2]
            if nanoseconds(plan.header.stamp) <= now:
                self.arm = position_at(plan, now)
                self._execute(now)
        elif self.mode == ControlMode.TELEOP:  # a person swings the first joint
            self.arm = self.arm + np.eye(len(self.arm))[0] * 0.3 * STEP * np.cos(now / NS)
            self._execute(now)
        self._joints.publish(stamped(
            JointState(name=list(ROBOT.joints), position=self.arm.tolist()), now))

    def _execute(self, now):
        point = JointTrajectoryPoint(positions=self.arm.tolist())
        self._executed.publish(stamped(
            JointTrajectory(joint_names=list(ROBOT.joints), points=[point]), now))

    def _show(self):
        now = self.now()
        for name in CAMERAS:
            if name not in self.silent:
                self._waiting.append((now + self.delayed * NS, name, stamped(
                    from_rgb(self._picture), now - round(self.skewed.get(name, 0.0) * NS))))
        for entry in [entry for entry in self._waiting if entry[0] <= now]:
            self._waiting.remove(entry)
            self._images[entry[1]].publish(entry[2])

    # What goes wrong

    def lose_camera(self, rng):
        name = str(rng.choice(CAMERAS))
        if name in self.silent:
            return 0.0, lambda: None
        self.silent.add(name)
        began = time.monotonic()

        def mend():
            self.silent.discard(name)
            self.silences.append((name, began, time.monotonic()))
        return rng.uniform(0.2, 2.5), mend

    def skew_camera(self, rng):
        name = str(rng.choice(CAMERAS))
        self.skewed[name] = rng.uniform(0.0, 0.4)
        return rng.uniform(0.5, 2.0), lambda: self.skewed.pop(name, None)

    def delay_images(self, rng):
        self.delayed = rng.uniform(0.05, 0.7)
        return rng.uniform(0.5, 2.0), lambda: setattr(self, 'delayed', 0.0)

    def clock_back(self, rng):
        before = self.now()
        self.origin -= round(rng.uniform(2.0, 20.0) * NS)
        self._waiting.clear()
        self.jumps.append((time.monotonic(), before, self.now()))
        return 0.0, lambda: None

    def take_over(self, rng):
        self.set_mode(int(rng.choice([ControlMode.HOLD, ControlMode.TELEOP])))
        return rng.uniform(0.2, 2.0), lambda: self.set_mode(ControlMode.POLICY)

    def reset(self, rng):
        for _ in range(rng.integers(1, 4)):
            future = self._reset.call_async(ResetMemory.Request())
            asked = time.monotonic()
            self.resets.append(asked)
            future.add_done_callback(lambda done, asked=asked: self.replies.append(
                (asked, time.monotonic(), self.now(), done.result())))
        return 0.0, lambda: None

    def instruct(self, rng):
        self._instruct.call_async(SetInstruction.Request(
            instruction=str(rng.choice(['wipe the plate', 'open the box', 'rest']))))
        return 0.0, lambda: None

    def change(self, transition, log):
        """Ask for a transition of the policy's lifecycle."""
        answer = self.services.call(
            ChangeState, f'{self.namespace}/{POLICY}/change_state',
            ChangeState.Request(transition=Transition(id=transition)), 300.0)
        assert answer.success, log.read_text()

    def set_parameter(self, name, value):
        """Set a parameter of the policy."""
        answer = self.services.call(
            SetParameters, f'{self.namespace}/{POLICY}/set_parameters', SetParameters.Request(
                parameters=[Parameter(name, value=value).to_parameter_msg()]), 300.0)
        assert answer.results[0].successful, answer.results[0].reason

    def connect(self):
        self._reset = self.services.client(
            ResetMemory, f'{self.namespace}/{POLICY}/reset_memory')
        self._instruct = self.services.client(
            SetInstruction, f'{self.namespace}/{POLICY}/set_instruction')

    def misbehave(self, rng, for_seconds):
        """Let things go wrong one after the other, now and then two at once; memory is reset."""
        end = time.monotonic() + for_seconds
        mending = []
        kinds = (self.lose_camera, self.skew_camera, self.delay_images, self.take_over,
                 self.reset, self.reset, self.instruct, self.clock_back)
        while time.monotonic() < end or not self.resets:
            lasts, mend = kinds[rng.integers(len(kinds))](rng)
            mending.append((time.monotonic() + lasts, mend))
            pause = time.monotonic() + rng.uniform(0.05, 1.5)
            while time.monotonic() < pause:
                time.sleep(0.01)
                for entry in [entry for entry in mending if entry[0] < time.monotonic()]:
                    mending.remove(entry)
                    entry[1]()
        for _, mend in mending:
            mend()


@pytest.fixture(scope='module')
def running(untrained_checkpoint, tmp_path_factory):
    """One policy process for all schedules: the process, its world and its log."""
    namespace = '/faults'
    log = tmp_path_factory.mktemp('faults') / 'policy.log'
    with spinning_node('faulty_world') as node, node_process(
            'policy_node', log, '-r', f'__ns:={namespace}',
            '-p', f'checkpoint:={untrained_checkpoint}', '-p', 'use_sim_time:=true',
            '-p', 'instruction:=wipe the plate', '-p', f'max_camera_age:={MAX_CAMERA_AGE}',
            '-p', 'max_camera_skew:=0.08') as process:
        yield process, FaultyWorld(node, namespace), log


@pytest.fixture(scope='module', params=['sync', 'async', 'async_ungrounded'])
def recorded(request, running):
    """A run with faults until it has recovered: all records, the log, the schedule."""
    process, world, log = running
    mark = len(log.read_text())
    world.set_parameter('schedule', request.param)
    world.change(Transition.TRANSITION_CONFIGURE, log)
    world.begin()
    world.set_mode(ControlMode.POLICY)
    world.change(Transition.TRANSITION_ACTIVATE, log)
    world.connect()
    wait_for(lambda: len(world.chunks) >= 2, 'two chunks')
    world.misbehave(np.random.default_rng(SEED), SECONDS)
    wait_for(lambda: len(world.replies) == len(world.resets), 'an answer to every reset')
    chunks = len(world.chunks)
    wait_for(lambda: len(world.chunks) >= chunks + 2 and
             world.statuses[-1][2].mode == PolicyStatus.RUNNING, 'work after the last fault')
    yield SimpleNamespace(
        schedule=request.param, lasted=process.poll() is None, log=log.read_text()[mark:],
        **{name: list(getattr(world, name)) for name in RECORDS})
    world.change(Transition.TRANSITION_DEACTIVATE, log)
    world.change(Transition.TRANSITION_CLEANUP, log)


def test_it_lives_without_a_fault_of_its_own(recorded):
    assert recorded.lasted
    assert 'Traceback' not in recorded.log
    assert not any(status.mode == PolicyStatus.FAULT for _, _, status in recorded.statuses)


def test_it_is_never_silent(recorded):
    for record, what in ((recorded.plans, 'plans'), (recorded.statuses, 'statuses')):
        steps = np.searchsorted(recorded.steps, [at for at, _, _ in record])
        longest = np.diff(steps).max()
        assert longest < LONGEST_SILENCE, f'no {what} for {longest} commands of the mux'


def test_every_plan_lies_ahead_and_ends_in_a_stop(recorded):
    for _, _, plan in recorded.plans:
        times = [seconds(point.time_from_start) for point in plan.points]
        assert times[0] > 0 and all(b > a for a, b in zip(times, times[1:]))
        assert not any(plan.points[-1].velocities)
        assert np.isfinite([point.positions for point in plan.points]).all()


def test_no_plan_jumps(recorded):
    """Two plans in a row agree about where the arm is, but for what it can do between them."""
    steps = np.array(recorded.steps)
    for (_, _, before), (at, _, after) in zip(recorded.plans, recorded.plans[1:]):
        since, mode = [entry for entry in recorded.modes if entry[0] < at][-1]
        if mode != ControlMode.POLICY or at < since + 0.3:
            continue  # somebody else moves the arm, and the plan follows it
        gap = nanoseconds(after.header.stamp) - nanoseconds(before.header.stamp)
        if not 0 < gap < 0.2 * NS:
            continue  # the clock jumped
        due = nanoseconds(after.header.stamp) + seconds(after.points[0].time_from_start) * NS
        off = np.abs(position_at(before, due) - np.array(after.points[0].positions))
        # A busy machine publishes late, and moves the arm in larger steps.
        newest = np.searchsorted(steps, at)
        late = np.diff(steps[max(0, newest - 25):newest + 1]).max(initial=STEP)
        between = max(STEP + late, gap / NS)
        assert (off <= ROBOT.limits.velocity * between + 0.01).all(), (off, due)


def test_every_reset_is_answered_and_clears_the_memory(recorded):
    assert len(recorded.replies) == len(recorded.resets)
    for asked, answered, _, reply in recorded.replies:
        assert reply.success
        assert np.diff(np.searchsorted(recorded.steps, [asked, answered])) < LONGEST_ANSWER
        stamp = nanoseconds(reply.stamp)
        next_jump = min(
            [at for at, _, _ in recorded.jumps if at > asked], default=float('inf'))
        late = [chunk for at, _, chunk in recorded.chunks
                if chunk.epoch < reply.epoch and answered < at < next_jump
                and nanoseconds(chunk.header.stamp) > stamp]
        assert not late, f'a chunk of epoch {late[0].epoch} after the reset to {reply.epoch}'


def test_epochs_count_resets_and_clock_jumps(recorded):
    epochs = [status.epoch for _, _, status in recorded.statuses]
    assert epochs == sorted(epochs)
    assert epochs[-1] == 1 + len(recorded.replies) + len(recorded.jumps)
    numbers = {}
    for _, _, chunk in recorded.chunks:
        assert chunk.chunk_id == numbers.get(chunk.epoch, -1) + 1
        numbers[chunk.epoch] = chunk.chunk_id


def test_a_camera_that_is_lost_is_named(recorded):
    for name, began, ended in recorded.silences:
        if ended - began > MAX_CAMERA_AGE + 1.0:
            assert any(
                status.mode == PolicyStatus.HOLDING and name in status.reason
                for at, _, status in recorded.statuses if began < at < ended + 0.5), (
                    name, began, ended)


def test_only_a_schedule_that_predicts_ahead_can_starve(recorded):
    if recorded.schedule == 'sync':
        assert all(status.starved_ticks == 0 for _, _, status in recorded.statuses)
