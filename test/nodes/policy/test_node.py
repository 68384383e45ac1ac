"""The policy node as a process over real DDS, with cameras and an arm that the test plays."""

import contextlib
import os
import shutil
import signal
import subprocess
import time

from action_msgs.msg import GoalStatus
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState
import numpy as np
import pytest
from rclpy.action import ActionClient
from rosgraph_msgs.msg import Clock
from safetensors.torch import load_file, save_file
from sensor_msgs.msg import JointState
from std_msgs.msg import Float32
from support import altered_policy
from support.messages import nanoseconds
from support.policy_world import CAMERAS, HOME, NODE, NS, policy_process, RELIABLE, ROBOT, World
from support.spinning import spinning_node
from support.waiting import DEADLINE, wait_for, wait_for_end
from visualization_msgs.msg import MarkerArray
import yaml

from lingbot_va_ros.action import RunTask
from lingbot_va_ros.motion.plan import Plan
from lingbot_va_ros.msg import ControlMode, PolicyStatus
from lingbot_va_ros.nodes import qos
from lingbot_va_ros.srv import LoadMemory, ResetMemory, SaveMemory

pytestmark = pytest.mark.timeout(600)


def is_stop(plan):
    return not any(plan.points[-1].velocities) and len(plan.points) <= 4


@pytest.fixture(scope='module')
def spinning():
    """A node of the test's own, spinning in a thread."""
    with spinning_node('test_world') as node:
        yield node


@pytest.fixture(scope='module')
def running(spinning, tmp_path_factory):
    """One policy process for all tests that leave it unconfigured."""
    with policy_process(
            tmp_path_factory.mktemp('policy'), '-p', 'executed_source:=plan') as (process, log):
        yield World(spinning), process, log


@pytest.fixture
def world(running):
    """The unconfigured policy; cleaned up after the test."""
    world, process, _ = running
    wait_for(lambda: world.statuses, 'a status')
    assert process.poll() is None
    yield world
    world.cameras, world.encoding, world.joints = set(CAMERAS), {}, True
    if world.state() == State.PRIMARY_STATE_ACTIVE:
        world.change(Transition.TRANSITION_DEACTIVATE)
    if world.state() == State.PRIMARY_STATE_INACTIVE:
        world.change(Transition.TRANSITION_CLEANUP)
    results = world.set(
        checkpoint='', policy_config='', embodiment='sim_left', instruction='',
        executed_source='plan', max_camera_age=0.5, max_camera_skew=0.1, schedule='sync',
        padded_latency=0.0, video_steps=0, action_steps=0)
    assert all(result.successful for result in results)
    assert world.state() == State.PRIMARY_STATE_UNCONFIGURED


@pytest.fixture
def configured(world, untrained_checkpoint):
    assert all(result.successful for result in world.set(checkpoint=str(untrained_checkpoint)))
    assert world.change(Transition.TRANSITION_CONFIGURE)
    return world


@pytest.fixture
def active(configured):
    """The policy at work on an instruction."""
    configured.instruct('wipe the plate')
    before = len(configured.chunks)
    assert configured.change(Transition.TRANSITION_ACTIVATE)
    wait_for(lambda: len(configured.chunks) > before, 'a chunk')
    return configured


def log_since(running, mark):
    return running[2]()[mark:]


def failing_configure(running, world, **parameters):
    """Configure with bad input; returns the error lines that were logged."""
    mark = len(running[2]())
    assert all(result.successful for result in world.set(**parameters))
    assert not world.change(Transition.TRANSITION_CONFIGURE)
    assert world.state() == State.PRIMARY_STATE_UNCONFIGURED
    wait_for(lambda: world.status.reason == 'unconfigured', 'the status unconfigured')
    return [line for line in log_since(running, mark).splitlines() if '[ERROR]' in line]


# Bad input


def test_without_a_checkpoint_configure_fails_and_names_the_parameter(running, world):
    lines = failing_configure(running, world)
    assert len(lines) == 1 and 'parameter checkpoint is empty' in lines[0]


def test_a_checkpoint_that_is_no_folder_is_named(running, world):
    lines = failing_configure(running, world, checkpoint='/nowhere/at/all')
    assert len(lines) == 1 and '/nowhere/at/all' in lines[0]


def test_a_missing_policy_file_is_named(running, world, untrained_checkpoint):
    lines = failing_configure(
        running, world, checkpoint=str(untrained_checkpoint), policy_config='nonesuch')
    assert len(lines) == 1 and 'nonesuch' in lines[0]


def test_an_unknown_embodiment_is_named(running, world, untrained_checkpoint):
    lines = failing_configure(
        running, world, checkpoint=str(untrained_checkpoint), embodiment='octopus')
    assert len(lines) == 1 and 'octopus' in lines[0]


def test_an_embodiment_with_other_joints_is_refused_by_their_names(
        running, world, untrained_checkpoint):
    lines = failing_configure(
        running, world, checkpoint=str(untrained_checkpoint), embodiment='sim_right')
    assert len(lines) == 1 and 'right_joint_1' in lines[0]


def damaged(checkpoint, folder, change):
    """Copy a checkpoint and change the transformer's tensors."""
    shutil.copytree(checkpoint, folder, dirs_exist_ok=True)
    path = folder / 'transformer' / 'diffusion_pytorch_model.safetensors'
    tensors = load_file(str(path))
    change(tensors)
    save_file(tensors, str(path))
    return str(folder)


def test_a_missing_key_is_named(running, world, untrained_checkpoint, tmp_path):
    folder = damaged(
        untrained_checkpoint, tmp_path, lambda tensors: tensors.pop('proj_out.bias'))
    lines = failing_configure(running, world, checkpoint=folder)
    assert len(lines) == 1 and 'missing proj_out.bias' in lines[0]


def test_a_wrong_shape_is_named_with_both_shapes(running, world, untrained_checkpoint, tmp_path):
    def cut(tensors):
        tensors['action_embedder.bias'] = tensors['action_embedder.bias'][:-1].clone()
    lines = failing_configure(
        running, world, checkpoint=damaged(untrained_checkpoint, tmp_path, cut))
    assert len(lines) == 1 and 'action_embedder.bias' in lines[0]
    assert '[95]' in lines[0] and '[96]' in lines[0]


def test_an_unknown_choice_is_refused_with_the_choices(world):
    result, = world.set(schedule='sometimes')
    assert not result.successful and 'sync' in result.reason


def test_async_without_trained_forward_dynamics_is_a_warning(
        running, world, untrained_checkpoint, tmp_path):
    policy = yaml.safe_load((untrained_checkpoint / 'policy.yaml').read_text())
    path = tmp_path / 'policy.yaml'
    path.write_text(yaml.safe_dump({**policy, 'forward_dynamics': False}))
    mark = len(running[2]())
    world.set(checkpoint=str(untrained_checkpoint), policy_config=str(path), schedule='async')
    assert world.change(Transition.TRANSITION_CONFIGURE)
    line, = [line for line in log_since(running, mark).splitlines() if 'forward_dynamics' in line]
    assert '[WARN]' in line and 'async_ungrounded' in line


def test_actions_that_are_not_finite_are_a_fault_and_leave_the_node_inactive(
        running, world, untrained_checkpoint, tmp_path):
    def spoil(tensors):
        tensors['action_proj_out.bias'].fill_(float('nan'))
    world.set(checkpoint=damaged(untrained_checkpoint, tmp_path, spoil), instruction='go')
    assert world.change(Transition.TRANSITION_CONFIGURE)
    before = len(world.chunks)
    world.change(Transition.TRANSITION_ACTIVATE)
    world.wait_mode(PolicyStatus.FAULT, 'not finite')
    wait_for(lambda: world.state() == State.PRIMARY_STATE_INACTIVE, 'the state inactive')
    assert world.status.mode == PolicyStatus.FAULT
    assert len(world.chunks) == before


# End-effector actions


def end_effector_policy(untrained_checkpoint, tmp_path, frame, low, high):
    policy = yaml.safe_load((untrained_checkpoint / 'policy.yaml').read_text())
    policy.update(
        action_frame=frame, used_channels=[0, 1, 2, 3, 4, 5, 6, 28],
        quantiles={'q01': low, 'q99': high})
    path = tmp_path / 'policy.yaml'
    path.write_text(yaml.safe_dump(policy))
    return str(path)


def test_relative_poses_move_the_arm_around_where_it_was(world, untrained_checkpoint, tmp_path):
    path = end_effector_policy(
        untrained_checkpoint, tmp_path, 'eef_relative',
        [-0.01] * 6 + [0.9, 0.0], [0.01] * 6 + [1.0, 1.0])
    world.set(checkpoint=str(untrained_checkpoint), policy_config=path, instruction='go')
    assert world.change(Transition.TRANSITION_CONFIGURE)
    before = len(world.chunks)
    assert world.change(Transition.TRANSITION_ACTIVATE)
    wait_for(lambda: len(world.chunks) >= before + 2, 'two chunks')
    points = [point for chunk in world.chunks[before:] for point in chunk.trajectory.points]
    moved = np.array([point.positions for point in points])[:, :6] - HOME[:6]
    assert 1e-3 < np.abs(moved).max() < 0.5
    diagnostics = []
    world.node.create_subscription(
        DiagnosticArray, '/diagnostics', diagnostics.append, qos.EVENTS)

    def errors():
        return [{each.key: each.value for each in status.values if 'pose_error' in each.key}
                for message in diagnostics for status in message.status
                if status.name.endswith('policy')]
    wait_for(lambda: any(errors()), 'the error of the poses in /diagnostics')
    assert 0 <= float(errors()[-1]['pose_error_m']) <= 1e-3
    assert 0 <= float(errors()[-1]['pose_error_rad']) <= 1e-2


def test_a_pose_out_of_reach_is_named_and_no_fault(world, untrained_checkpoint, tmp_path):
    path = end_effector_policy(
        untrained_checkpoint, tmp_path, 'eef_absolute',
        [3.0, -0.1, 0.1, -0.1, 0.9, -0.1, -0.1, 0.0], [3.2, 0.1, 0.2, 0.1, 1.0, 0.1, 0.1, 1.0])
    world.set(checkpoint=str(untrained_checkpoint), policy_config=path, instruction='go')
    assert world.change(Transition.TRANSITION_CONFIGURE)
    before = len(world.chunks)
    assert world.change(Transition.TRANSITION_ACTIVATE)
    world.wait_mode(PolicyStatus.HOLDING, 'left arm, action 1 of 8: the pose xyz (')
    assert 'out of reach' in world.status.reason and len(world.chunks) == before
    assert world.state() == State.PRIMARY_STATE_ACTIVE
    for plan in world.new_plans():
        np.testing.assert_allclose(plan.points[-1].positions, HOME, atol=1e-6)


# Lifecycle


def test_the_status_follows_the_lifecycle(configured):
    world = configured
    assert world.state() == State.PRIMARY_STATE_INACTIVE
    wait_for(lambda: (world.status.mode, world.status.reason) == (PolicyStatus.IDLE, 'inactive'),
             'idle, inactive')
    assert world.status.epoch == 1 and world.status.memory_capacity == 60
    assert world.change(Transition.TRANSITION_ACTIVATE)
    world.wait_mode(PolicyStatus.WAITING)
    assert world.change(Transition.TRANSITION_DEACTIVATE)
    world.wait_mode(PolicyStatus.IDLE, 'inactive')
    assert world.change(Transition.TRANSITION_CLEANUP)
    world.wait_mode(PolicyStatus.IDLE, 'unconfigured')
    assert world.state() == State.PRIMARY_STATE_UNCONFIGURED


def test_receiving_threads_have_priority_over_computing_ones(running, active):
    _, process, _ = running
    try:
        probe = subprocess.run(
            ['chrt', '-f', '1', 'true'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError as error:
        pytest.skip(f'no chrt to ask for a real-time priority with: {error}')
    if probe.returncode:
        pytest.skip('the system grants no real-time priority')
    ordinary, first = [], []
    for thread in map(int, os.listdir(f'/proc/{process.pid}/task')):
        with contextlib.suppress(ProcessLookupError):  # it has ended since it was listed
            is_first = os.sched_getscheduler(thread) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO
            (first if is_first else ordinary).append(os.sched_getparam(thread).sched_priority)
    assert os.sched_getscheduler(process.pid) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO
    assert {30, 40} == set(first), 'what receives, and the control thread'
    assert ordinary, 'the inference thread'


def test_an_impossible_transition_is_refused_and_the_node_lives(world):
    assert not world.change(Transition.TRANSITION_ACTIVATE)
    assert world.state() == State.PRIMARY_STATE_UNCONFIGURED


def test_reset_before_configure_is_refused_with_a_reason(world):
    answer = world.reset()
    assert not answer.success and 'configure' in answer.message


def test_parameters_that_cannot_change_while_configured_say_so(configured):
    fixed, free = configured.set(seed=3)[0], configured.set(max_camera_age=0.4)[0]
    assert not fixed.successful and 'seed' in fixed.reason
    assert free.successful


# At work


def test_every_plan_is_a_trajectory_that_ends_in_a_stop(active):
    plans = active.new_plans(60)
    for plan in plans:
        times = [p.time_from_start.sec + p.time_from_start.nanosec / NS for p in plan.points]
        assert list(plan.joint_names) == list(ROBOT.joints)
        assert times[0] > 0 and all(b > a for a, b in zip(times, times[1:]))
        assert all(len(p.positions) == len(p.velocities) == len(HOME) for p in plan.points)
        assert not any(plan.points[-1].velocities)
    stamps = [nanoseconds(plan.header.stamp) for plan in plans]
    rate = (len(stamps) - 1) / ((stamps[-1] - stamps[0]) / NS)
    assert all(b > a for a, b in zip(stamps, stamps[1:])) and 40 < rate < 60


def test_chunks_are_numbered_and_hold_one_point_an_action(active):
    first = len(active.chunks) - 1
    wait_for(lambda: len(active.chunks) >= first + 2, 'a second chunk')
    zero, one = active.chunks[first:first + 2]
    assert (zero.epoch, zero.chunk_id, len(zero.trajectory.points)) == (1, 0, 8)
    assert (one.epoch, one.chunk_id, len(one.trajectory.points)) == (1, 1, 16)
    start = zero.trajectory.points[0].time_from_start
    assert (start.sec, start.nanosec) == (0, 0)
    assert zero.trajectory.header.stamp == zero.header.stamp
    assert nanoseconds(one.observation_stamp) > nanoseconds(zero.header.stamp)
    wait_for(lambda: active.status.memory_frames >= 2, 'two remembered frames')
    assert active.status.starved_ticks == 0


def test_with_an_empty_instruction_it_waits_at_the_measured_position(configured):
    assert configured.change(Transition.TRANSITION_ACTIVATE)
    configured.wait_mode(PolicyStatus.WAITING)
    for plan in configured.new_plans():
        for point in plan.points:
            np.testing.assert_allclose(point.positions, HOME, atol=1e-9)
            assert not any(point.velocities)


def test_an_emptied_instruction_stops_the_arm_and_a_new_one_goes_on(active):
    active.instruct('')
    active.wait_mode(PolicyStatus.WAITING)
    wait_for(lambda: not any(any(point.velocities) for point in active.new_plans(1)[0].points),
             'rest')
    before = len(active.chunks)
    active.instruct('go on')
    wait_for(lambda: len(active.chunks) > before, 'a chunk')
    wait_for(lambda: active.status.instruction == 'go on', 'the new instruction')
    assert active.chunks[-1].epoch == 1


def test_after_a_reset_no_old_chunk_and_only_a_stop_until_a_new_one(active):
    wait_for(lambda: active.status.memory_frames > 0, 'something to forget')
    answer = active.reset('another task')
    assert answer.success and answer.epoch == 2 and answer.forgotten_frames > 0
    stamp = nanoseconds(answer.stamp)
    new = wait_for(lambda: [c for c in active.chunks if c.epoch == 2], 'a new chunk')[0]
    assert new.chunk_id == 0 and nanoseconds(new.header.stamp) > stamp
    assert all(nanoseconds(c.header.stamp) <= stamp for c in active.chunks if c.epoch == 1)
    swapped = nanoseconds(new.header.stamp) - 2 * NS  # the way to the first action comes first
    between = [plan for plan in active.plans
               if stamp < nanoseconds(plan.header.stamp) < swapped]
    limits = ROBOT.limits
    for plan in between:  # braking or at rest, never on to further actions
        fastest = np.abs(plan.points[0].velocities)
        reach = fastest * fastest / (2 * limits.acceleration) + fastest * 0.04 + 1e-6
        way = np.abs(np.subtract(plan.points[-1].positions, plan.points[0].positions))
        assert (way <= reach + 1e-3).all()
    wait_for(lambda: active.status.instruction == 'another task', 'the new instruction')


def test_resets_from_several_callers_at_once_are_all_answered(active):
    client = active.node.create_client(ResetMemory, f'{NODE}/reset_memory')
    assert client.wait_for_service(DEADLINE)
    futures = [client.call_async(ResetMemory.Request()) for _ in range(4)]
    wait_for(lambda: all(future.done() for future in futures), 'four answers', 5.0)
    assert all(future.result().success for future in futures)
    wait_for(lambda: active.status.epoch == 5, 'epoch 5')


def test_a_lost_camera_stops_the_arm_and_is_named_and_comes_back(active):
    active.cameras.discard('left_wrist')
    active.wait_mode(PolicyStatus.HOLDING, 'left_wrist')
    assert 'head' not in active.status.reason
    wait_for(lambda: not any(any(p.velocities) for p in active.new_plans(1)[0].points), 'rest')
    active.cameras.add('left_wrist')
    before = len(active.chunks)
    wait_for(lambda: len(active.chunks) > before, 'a chunk after the camera came back')


def test_a_camera_without_images_is_named(configured):
    configured.cameras.discard('head')
    configured.instruct('go')
    assert configured.change(Transition.TRANSITION_ACTIVATE)
    configured.wait_mode(PolicyStatus.HOLDING, 'camera head')


def test_an_unknown_encoding_is_refused_by_name(configured):
    configured.encoding['head'] = '32FC1'
    configured.instruct('go')
    assert configured.change(Transition.TRANSITION_ACTIVATE)
    configured.wait_mode(PolicyStatus.HOLDING, "camera head: encoding '32FC1'")
    configured.encoding.clear()
    configured.wait_mode(PolicyStatus.RUNNING)


@pytest.mark.parametrize('offset_ns, words', [
    (None, 'camera head: stamp is 0'),
    (NS * 8 // 10, 'camera head: stamped 0.80 s ahead: clocks are not synchronized'),
    (NS * 3 // 10, 'camera head: stamped 0.30 s ahead: clocks are not synchronized'),
    (-NS * 1_000_000_000, 'camera head: stamped by another clock: '),
    (-NS * 3, 'camera head: stamped 3.0'),
])
def test_the_fault_of_a_stamp_is_named(configured, offset_ns, words):
    configured.offset_ns['head'] = offset_ns
    configured.instruct('go')
    begin = time.monotonic()
    wait_for(lambda: time.monotonic() > begin + 0.6, 'old images')
    assert configured.change(Transition.TRANSITION_ACTIVATE)
    configured.wait_mode(PolicyStatus.HOLDING, words)
    configured.offset_ns.clear()
    configured.wait_mode(PolicyStatus.RUNNING)


def test_zeros_of_a_second_publisher_are_named_and_no_observation(configured):
    diagnostics = []
    configured.node.create_subscription(
        DiagnosticArray, '/diagnostics', diagnostics.append, qos.EVENTS)
    zeros = configured.node.create_publisher(JointState, 'joint_states', RELIABLE)

    def publish():
        message = JointState(name=list(ROBOT.joints), position=[0.0] * len(ROBOT.joints))
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(configured.clock(), NS)
        zeros.publish(message)
    timer = configured.node.create_timer(0.05, publish)
    try:
        configured.instruct('go')
        assert configured.change(Transition.TRANSITION_ACTIVATE)
        configured.wait_mode(PolicyStatus.RUNNING)
        plan = configured.plans[-1].points[0].positions
        np.testing.assert_allclose(plan, HOME, atol=0.3)

        def named():
            values = [{each.key: each.value for each in status.values}
                      for message in diagnostics for status in message.status
                      if status.name.endswith('policy')]
            return values and 'come from several publishers' in (
                values[-1].get('joint_state_conflict', '')) and (
                    abs(float(values[-1]['clock_offset_ms'])) < 1000)
        wait_for(named, 'two publishers in /diagnostics')
    finally:
        configured.node.destroy_timer(timer)
        configured.node.destroy_publisher(zeros)


def test_missing_joint_states_are_named_and_nothing_moves(configured):
    configured.joints = False
    time_of_silence = time.monotonic()
    wait_for(lambda: time.monotonic() > time_of_silence + 0.6, 'old joint states')
    configured.instruct('go')
    assert configured.change(Transition.TRANSITION_ACTIVATE)
    configured.wait_mode(PolicyStatus.HOLDING, 'joint_states')


def test_without_a_publisher_of_executed_it_holds_with_that_reason(world, untrained_checkpoint):
    world.set(checkpoint=str(untrained_checkpoint), executed_source='topic', instruction='go')
    assert world.change(Transition.TRANSITION_CONFIGURE)
    assert world.change(Transition.TRANSITION_ACTIVATE)
    world.wait_mode(PolicyStatus.HOLDING, 'executed')


def test_while_the_mux_holds_the_plan_stays_where_the_arm_is(configured):
    mode = configured.node.create_publisher(ControlMode, 'control_mode', qos.LATCHED)
    mode.publish(ControlMode(mode=ControlMode.HOLD))
    configured.instruct('go')
    before = len(configured.chunks)
    assert configured.change(Transition.TRANSITION_ACTIVATE)
    configured.wait_mode(PolicyStatus.HOLDING, 'control_mode is HOLD')
    for plan in configured.new_plans(10):
        assert all(np.allclose(p.positions, HOME) for p in plan.points)
    assert len(configured.chunks) == before
    mode.publish(ControlMode(mode=ControlMode.POLICY))
    wait_for(lambda: len(configured.chunks) > before, 'a chunk')
    configured.node.destroy_publisher(mode)


def test_deactivate_sends_a_stop_and_keeps_the_memory(active):
    wait_for(lambda: active.status.memory_frames > 0, 'a memory')
    assert active.change(Transition.TRANSITION_DEACTIVATE)
    frames = active.status.memory_frames
    wait_for(lambda: is_stop(active.plans[-1]), 'a stop')
    quiet = len(active.plans)
    assert active.change(Transition.TRANSITION_ACTIVATE)
    assert len(active.plans) - quiet < 25, 'it went on publishing while inactive'
    wait_for(lambda: active.status.mode == PolicyStatus.RUNNING, 'running again')
    assert active.status.memory_frames >= frames > 0


# The speed scale


def times_of(trajectory):
    """Return the due times of the points of a trajectory, ns."""
    stamp = nanoseconds(trajectory.header.stamp)
    return np.array([stamp + point.time_from_start.sec * NS + point.time_from_start.nanosec
                     for point in trajectory.points])


def motion_of(plan):
    """Return a published plan as one that can be sampled."""
    return Plan(times_of(plan), np.array([p.positions for p in plan.points]),
                np.array([p.velocities for p in plan.points]))


@pytest.fixture
def set_speed(world):
    """Return a function that publishes a speed scale as the mux does."""
    publisher = world.node.create_publisher(Float32, 'speed_scale', qos.LATCHED)
    yield lambda scale: publisher.publish(Float32(data=scale))
    world.node.destroy_publisher(publisher)


def test_plans_images_and_memory_are_stretched_by_the_speed_scale(running, active, set_speed):
    active.set(max_camera_skew=0.5, max_camera_age=5.0)  # however busy this machine is

    def steps(chunk):
        return np.diff(times_of(chunk.trajectory)) / NS

    np.testing.assert_allclose(steps(active.chunks[-1]), 0.1, atol=1e-6)
    set_speed(0.5)
    wait_for(lambda: steps(active.chunks[-1]).min() > 0.199, 'a chunk at half the speed')
    index, frames = len(active.chunks) - 1, active.status.memory_frames
    slow = active.chunks[index]
    np.testing.assert_allclose(steps(slow), 0.2, atol=1e-6)
    due = times_of(slow.trajectory)
    for plan in active.new_plans(20):
        motion = motion_of(plan)
        assert not motion.velocities[-1].any()
        for time_ns, point in zip(due, slow.trajectory.points):
            if motion.times_ns[1] <= time_ns <= motion.end_ns:  # a knot of the message
                position, velocity = motion.sample(time_ns)
                np.testing.assert_allclose(position, point.positions, atol=1e-3)
                np.testing.assert_allclose(velocity, point.velocities, atol=1e-2)
    for wrong in (0.0, 2.0, float('nan')):  # refused, and the scale stays
        mark = len(log_since(running, 0))
        wait_for(lambda: set_speed(wrong) or f'speed_scale is {wrong:g}' in log_since(
            running, mark), 'a line about the scale')
    wait_for(lambda: len(active.chunks) > index + 1, 'the next chunk')
    np.testing.assert_allclose(steps(active.chunks[index + 1]), 0.2, atol=1e-6)
    # Its newest image is the one due after the last action before it.
    seen_ns = nanoseconds(active.chunks[index + 1].observation_stamp)
    assert abs(seen_ns - due[-1]) < 0.5 * NS
    wait_for(lambda: active.status.memory_frames > frames, 'remembered frames')
    set_speed(1.0)
    wait_for(lambda: steps(active.chunks[-1]).max() < 0.101, 'a chunk at full speed')


# Asynchronous


@pytest.mark.parametrize('schedule', ['async', 'async_ungrounded'])
def test_an_asynchronous_policy_never_stops_between_chunks(
        world, untrained_checkpoint, schedule):
    # However busy this machine is: few steps, so that a prediction takes less than a chunk.
    world.set(checkpoint=str(untrained_checkpoint), schedule=schedule, instruction='go',
              max_camera_age=5.0, max_camera_skew=1.0, video_steps=1, action_steps=1)
    assert world.change(Transition.TRANSITION_CONFIGURE)
    before = len(world.chunks)
    assert world.change(Transition.TRANSITION_ACTIVATE)

    def joined():
        """Count the newest chunks that began one period after the one before them."""
        count = 0
        for one, next_one in zip(world.chunks[before:], world.chunks[before + 1:]):
            due = nanoseconds(one.header.stamp) + len(one.trajectory.points) * NS // 10
            count = count + 1 if nanoseconds(next_one.header.stamp) == due else 0
        return count

    wait_for(lambda: joined() >= 3, 'three chunks without a stop between them')
    oldest, newest = world.chunks[-4], world.chunks[-1]
    # The played arm stands still: a plan that has ended would begin again from there.
    plans = [plan for plan in world.plans if nanoseconds(oldest.header.stamp) <= nanoseconds(
        plan.header.stamp) <= nanoseconds(newest.header.stamp)]
    assert len(plans) > 50
    assert newest.grounded == (schedule == 'async') and world.status.memory_frames > 0
    # It was predicted before the chunk before it was over.
    assert nanoseconds(newest.observation_stamp) < nanoseconds(newest.header.stamp) - NS // 2
    # A plan that replaces another goes on where that one would have.
    for one, next_one in zip(plans, plans[1:]):
        stamp = nanoseconds(next_one.header.stamp)
        if stamp - nanoseconds(one.header.stamp) > 3 * NS // 100:
            continue  # the machine was busy: nobody would have followed the older one so long
        due = stamp + next_one.points[0].time_from_start.nanosec
        before, after = (motion_of(plan).sample(due)[0] for plan in (one, next_one))
        np.testing.assert_allclose(after, before, atol=0.05)


def test_a_prediction_that_is_late_is_counted_and_leaves_no_action_out(
        world, untrained_checkpoint):
    world.set(checkpoint=str(untrained_checkpoint), schedule='async', instruction='go')
    assert world.change(Transition.TRANSITION_CONFIGURE)
    assert world.set(padded_latency=2.0)[0].successful
    before = len(world.chunks)
    assert world.change(Transition.TRANSITION_ACTIVATE)
    wait_for(lambda: len(world.chunks) >= before + 2, 'two chunks')
    one, late = world.chunks[before:before + 2]
    end = nanoseconds(one.header.stamp) + (len(one.trajectory.points) - 1) * NS // 10
    assert nanoseconds(late.header.stamp) > end + NS // 2 and late.inference_seconds > 1.9
    wait_for(lambda: world.status.starved_ticks > 20, 'starved ticks')
    resting = [motion_of(plan) for plan in world.plans
               if end + NS // 10 < nanoseconds(plan.header.stamp) < end + NS // 2]
    assert resting and all(not plan.velocities.any() for plan in resting)
    np.testing.assert_allclose(
        resting[0].positions[-1], one.trajectory.points[-1].positions, atol=1e-6)


# Instructions


@pytest.mark.parametrize('blank', [' ', ' \n\t'])
def test_an_instruction_of_blanks_alone_waits_as_an_empty_one(active, tasks, blank):
    answer = active.instruct(blank)
    assert answer.success and answer.message == 'no instruction: the policy waits for one'
    active.wait_mode(PolicyStatus.WAITING, 'no instruction')
    assert active.status.instruction == ''
    assert not tasks.send(instruction=blank).accepted
    active.instruct('wipe')
    active.wait_mode(PolicyStatus.RUNNING)
    assert active.set(instruction=blank)[0].successful
    active.wait_mode(PolicyStatus.WAITING, 'no instruction')


# Snapshots of the memory


@pytest.fixture
def modes(world):
    """Publish who has the arm."""
    publisher = world.node.create_publisher(ControlMode, 'control_mode', qos.LATCHED)
    yield lambda mode: publisher.publish(ControlMode(mode=mode))
    world.node.destroy_publisher(publisher)


def save(world, name):
    return world.call(SaveMemory, 'save_memory', SaveMemory.Request(name=name))


def load(world, name):
    return world.call(LoadMemory, 'load_memory', LoadMemory.Request(name=name))


def test_a_loaded_memory_gives_the_chunk_that_the_saved_one_gave(modes, configured):
    world = configured
    modes(ControlMode.POLICY)
    world.instruct('go')
    assert world.change(Transition.TRANSITION_ACTIVATE)
    wait_for(lambda: world.status.memory_frames > 0, 'a memory')
    refused = load(world, 'here')
    assert not refused.success and 'control_mode is POLICY' in refused.message
    modes(ControlMode.HOLD)
    world.wait_mode(PolicyStatus.HOLDING, 'HOLD')
    saved = save(world, 'here')
    assert saved.success and saved.frames == world.status.memory_frames > 0
    before = len(world.chunks)
    modes(ControlMode.POLICY)
    wait_for(lambda: len(world.chunks) >= before + 2, 'two more chunks')
    modes(ControlMode.HOLD)
    world.wait_mode(PolicyStatus.HOLDING, 'HOLD')
    world.instruct('something else')
    loaded = load(world, 'here')
    assert loaded.success and (loaded.frames, loaded.epoch) == (saved.frames, 2)
    wait_for(lambda: (world.status.epoch, world.status.instruction) == (2, 'go'), 'the epoch')
    told = len(world.chunks)
    modes(ControlMode.POLICY)
    again = wait_for(lambda: world.chunks[told:], 'a chunk')[0]
    assert (again.epoch, again.chunk_id) == (2, 0)
    np.testing.assert_array_equal(
        [point.positions for point in again.trajectory.points],
        [point.positions for point in world.chunks[before].trajectory.points])


def test_memories_are_saved_while_a_chunk_is_computed_for_several_callers_at_once(active):
    active.set(padded_latency=20.0)
    wait_for(lambda: active.status.memory_frames > 0, 'a memory')
    client = active.node.create_client(SaveMemory, f'{NODE}/save_memory')
    assert client.wait_for_service(DEADLINE)
    asked = time.monotonic()
    futures = [client.call_async(SaveMemory.Request(name=f'memory_{i % 3}')) for i in range(6)]
    wait_for(lambda: all(future.done() for future in futures), 'six answers', 5.0)
    assert time.monotonic() - asked < 5.0 < 20.0
    assert all(future.result().success for future in futures)
    assert all(future.result().frames == active.status.memory_frames for future in futures)
    refused = save(active, 'no name')
    assert not refused.success and "name 'no name'" in refused.message
    active.set(padded_latency=0.0)
    active.node.destroy_client(client)


def test_without_a_configuration_there_is_no_memory_to_save_or_load(world):
    for answer in (save(world, 'here'), load(world, 'here')):
        assert not answer.success and 'unconfigured' in answer.message


def test_an_inactive_policy_saves_and_loads(configured):
    saved, loaded = save(configured, 'empty'), load(configured, 'empty')
    assert saved.success and saved.frames == 0
    assert loaded.success and (loaded.frames, loaded.epoch) == (0, 2)
    missing = load(configured, 'nothing')
    assert not missing.success and missing.epoch == 2
    assert "no snapshot 'nothing'; there are: empty" in missing.message


# Tasks


@pytest.fixture
def tasks(world):
    """A client of run_task that collects the feedback."""
    client = ActionClient(world.node, RunTask, f'{NODE}/run_task')
    assert client.wait_for_server(DEADLINE)
    client.heard = []

    def send(**goal):
        return answer_of(world, lambda: client.send_goal_async(
            RunTask.Goal(**goal), feedback_callback=lambda m: client.heard.append(m.feedback)))

    client.send = send
    yield client
    client.destroy()


def answer_of(world, ask):
    """
    Ask an action server in the thread that spins, and return its answer.

    From another thread rclpy's client fails where the answer is there before it has noted that it
    asked (waitable.remove_future).
    """
    asked = []
    world.node.executor.create_task(lambda: asked.append(ask()))
    wait_for(lambda: asked and asked[0].done(), 'an answer of the action server')
    return asked[0].result()


def result_of(world, handle):
    answer = answer_of(world, handle.get_result_async)
    return answer.status, answer.result


def test_a_goal_while_inactive_is_rejected(configured, tasks):
    assert not tasks.send(instruction='go').accepted


def test_a_task_runs_so_many_chunks_from_a_new_epoch_and_then_the_policy_rests(active, tasks):
    before = len(active.chunks)
    handle = tasks.send(instruction='open the box', max_chunks=2)
    assert handle.accepted
    status, result = result_of(active, handle)
    assert (status, result.outcome) == (GoalStatus.STATUS_SUCCEEDED, RunTask.Result.CHUNK_LIMIT)
    assert result.chunks == 2 and result.seconds > 2.0
    assert [c.chunk_id for c in active.chunks[before:] if c.epoch == 2] == [0, 1]
    told = [(f.chunks, f.memory_frames) for f in tasks.heard]
    assert told == sorted(told) and {0, 1} <= {chunks for chunks, _ in told}
    active.wait_mode(PolicyStatus.IDLE, 'CHUNK_LIMIT')
    before = len(active.chunks)
    for plan in active.new_plans(60):
        assert is_stop(plan)
    assert len(active.chunks) == before
    active.instruct('go on')
    wait_for(lambda: len(active.chunks) > before, 'a chunk')
    assert active.status.epoch == 2 and active.status.instruction == 'go on'


def test_a_task_ends_by_timeout_by_a_newer_goal_and_by_cancel(active, tasks):
    handle = tasks.send(instruction='one', keep_memory=True, timeout_seconds=0.5)
    status, result = result_of(active, handle)
    assert (status, result.outcome) == (GoalStatus.STATUS_SUCCEEDED, RunTask.Result.TIMEOUT)
    assert 0.5 <= result.seconds < 5.0 and active.status.epoch == 1
    older = tasks.send(instruction='two')
    newer = tasks.send(instruction='three')
    status, result = result_of(active, older)
    assert (status, result.outcome) == (GoalStatus.STATUS_ABORTED, RunTask.Result.PREEMPTED)
    wait_for(lambda: active.status.instruction == 'three', 'the newer instruction')
    answer_of(active, newer.cancel_goal_async)
    status, result = result_of(active, newer)
    assert (status, result.outcome) == (GoalStatus.STATUS_CANCELED, RunTask.Result.CANCELED)
    active.wait_mode(PolicyStatus.IDLE, 'CANCELED')


@pytest.mark.parametrize('how', ['mode', 'deactivate'])
def test_a_task_is_aborted_when_the_arm_is_taken_away(active, modes, tasks, how):
    # A goal ends where who has the arm is told by somebody, but was not heard yet.
    modes(ControlMode.HOLD)
    active.wait_mode(PolicyStatus.HOLDING, 'control_mode is HOLD')
    modes(ControlMode.POLICY)
    active.wait_mode(PolicyStatus.RUNNING)
    before = len(active.chunks)
    handle = tasks.send(instruction='go')
    wait_for(lambda: len(active.chunks) > before, 'a chunk')
    if how == 'mode':
        modes(ControlMode.STOPPED)
    else:
        assert active.change(Transition.TRANSITION_DEACTIVATE)
    status, result = result_of(active, handle)
    assert (status, result.outcome) == (GoalStatus.STATUS_ABORTED, RunTask.Result.STOPPED)
    assert ('STOPPED' if how == 'mode' else 'inactive') in result.message


# The process


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_loading_ends_it_within_five_seconds(
        spinning, tmp_path, untrained_checkpoint, number):
    with policy_process(
            tmp_path, '-r', f'__ns:=/loading{number:d}', '-p',
            f'checkpoint:={untrained_checkpoint}', warm=False) as (process, log):
        client = spinning.create_client(ChangeState, f'/loading{number:d}/{NODE}/change_state')
        assert client.wait_for_service(DEADLINE)
        client.call_async(ChangeState.Request(
            transition=Transition(id=Transition.TRANSITION_CONFIGURE)))
        wait_for(lambda: 'loading libraries' in log(), 'loading')
        process.send_signal(number)
        assert wait_for_end(process, 5.0) == 0
        assert 'Traceback' not in log()


@contextlib.contextmanager
def own_policy(spinning, tmp_path, namespace, checkpoint, *arguments, program=None):
    """Run a policy of a test's own, active in a namespace."""
    with policy_process(
            tmp_path, '-r', f'__ns:={namespace}', '-p', 'executed_source:=plan', '-p',
            f'checkpoint:={checkpoint}', '-p', 'instruction:=go', *arguments,
            program=program) as (process, log):
        world = World(spinning, namespace)
        wait_for(lambda: world.statuses, 'a status')
        yield world, process, log
        world.cameras, world.joints = set(), False


def test_sigint_while_active_sends_a_stop_and_ends(spinning, tmp_path, untrained_checkpoint):
    with own_policy(spinning, tmp_path, '/ending', untrained_checkpoint) as (
            world, process, log):
        assert world.change(Transition.TRANSITION_CONFIGURE)
        assert world.change(Transition.TRANSITION_ACTIVATE)
        wait_for(lambda: world.plans and any(any(p.velocities) for p in world.plans[-1].points),
                 'motion')
        process.send_signal(signal.SIGINT)
        assert wait_for_end(process, 5.0) == 0
        wait_for(lambda: is_stop(world.plans[-1]), 'a stop')
        assert 'Traceback' not in log()


def test_a_clock_that_jumps_back_begins_a_new_epoch(spinning, tmp_path, untrained_checkpoint):
    started = time.monotonic_ns()
    origin = [100 * NS]
    with own_policy(spinning, tmp_path, '/jumping', untrained_checkpoint,
                    '-p', 'use_sim_time:=true') as (world, process, log):
        world.clock = lambda: origin[0] + time.monotonic_ns() - started
        publisher = spinning.create_publisher(Clock, '/clock', RELIABLE)

        def tell():
            message = Clock()
            message.clock.sec, message.clock.nanosec = divmod(world.clock(), NS)
            publisher.publish(message)

        timer = spinning.create_timer(0.01, tell)
        assert world.change(Transition.TRANSITION_CONFIGURE)
        assert world.change(Transition.TRANSITION_ACTIVATE)
        wait_for(lambda: world.status.memory_frames > 0, 'a memory')
        origin[0] -= 90 * NS
        wait_for(lambda: world.status.epoch == 2, 'epoch 2')
        wait_for(lambda: [c for c in world.chunks if c.epoch == 2], 'a chunk after the jump')
        # The two topics need not arrive in the order in which they were sent.
        wait_for(lambda: nanoseconds(world.plans[-1].header.stamp) < 100 * NS,
                 'a plan stamped after the jump')
        spinning.destroy_timer(timer)
        spinning.destroy_publisher(publisher)


def test_services_answer_while_the_checkpoint_loads(
        spinning, tmp_path, untrained_checkpoint, monkeypatch):
    sign = tmp_path / 'load'
    monkeypatch.setenv('LINGBOT_VA_TEST_LOADING_FILE', str(sign))
    with own_policy(spinning, tmp_path, '/slow', untrained_checkpoint,
                    program=altered_policy.__file__) as (world, _, _log):
        client = world.node.create_client(ChangeState, f'{world.name}/change_state')
        assert client.wait_for_service(DEADLINE)
        loading = client.call_async(ChangeState.Request(
            transition=Transition(id=Transition.TRANSITION_CONFIGURE)))
        world.wait_mode(PolicyStatus.LOADING)
        state = world.state()
        refused = save(world, 'early')
        answer = world.reset()
        assert not loading.done()
        sign.touch()
        assert state == State.TRANSITION_STATE_CONFIGURING
        assert answer.success and answer.forgotten_frames == 0 and answer.epoch == 2
        assert not refused.success and 'configuring' in refused.message
        wait_for(loading.done, 'configure')
        assert loading.result().success


def test_markers_draw_the_plan_and_the_status_for_who_looks(active):
    heard = []
    subscription = active.node.create_subscription(
        MarkerArray, f'{NODE}/markers', heard.append, qos.LATCHED)
    wait_for(lambda: heard and len(heard[-1].markers) == 2, 'a line and a text')
    line, text = heard[-1].markers
    assert line.header.frame_id == text.header.frame_id == 'left_base_link'
    assert len(line.points) in (8, 16) and 'wipe the plate' in text.text
    away = np.linalg.norm([[p.x, p.y, p.z] for p in line.points], axis=1)
    assert (away > 0.1).all() and (away < 1.0).all()  # within the arm's reach, m
    active.node.destroy_subscription(subscription)
