"""Takeovers by an operator: the content of the memory afterwards, with the real engine."""

import dataclasses
import os
from types import SimpleNamespace

import numpy as np
import pytest
from support.scripted_robot import (
    PlainActionMap,
    PlayedClock,
    RecordedEvents,
    run_until,
    scripted_robot,
)
import torch

from lingbot_va_ros.motion.plan import MotionLimits
from lingbot_va_ros.motion.plan_slot import PlanSlot
from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.policy.runtime.camera_buffer import CameraBuffer
from lingbot_va_ros.policy.runtime.control_owner import ControlOwner
from lingbot_va_ros.policy.runtime.executed_log import ExecutedLog
from lingbot_va_ros.policy.runtime.requests import RequestQueue
from lingbot_va_ros.policy.runtime.robot_interface import RuntimeSettings
from lingbot_va_ros.policy.runtime.scheduler import Scheduler
from lingbot_va_ros.policy.runtime.schedules import SCHEDULES
from lingbot_va_ros.policy.runtime.status import PolicyMode
from lingbot_va_ros.policy.runtime.takeover_recorder import STILL
from lingbot_va_ros.policy.runtime.task import Outcome, Task
from lingbot_va_ros.robot.action_map import make_action_map
from lingbot_va_ros.specs.control_mode import ControlMode
from lingbot_va_ros.specs.embodiment import load_embodiment

TICK = 10_000_000  # ns between two commands of the played mux
SHOW = 20_000_000  # ns between two images
START = 1_700_000_000_000_000_000
ROBOT = load_embodiment('sim_left')
REST = np.array(ROBOT.home)
LIMITS = MotionLimits(
    np.full(7, -9.0), np.full(7, 9.0), np.full(7, 5.0), np.full(7, 10.0))


def ns(seconds):
    return round(seconds * NANOSECONDS)


class Stage:
    """The real engine, two cameras and an arm that a plan or a person's hand moves, in no time."""

    def __init__(self, engine, schedule='async', action_map=None, executed='log'):
        self.engine = engine
        self.now = START
        clock = PlayedClock(self)
        self.requests = RequestQueue(clock)
        self.slot = PlanSlot(clock.now_ns)
        self.slot.begin(LIMITS)
        self.buffer = CameraBuffer(engine.policy.cameras, 5.0)
        self.executed = ExecutedLog(60.0)
        self.mode = 'POLICY'
        self.control = ControlOwner()
        self.control.update(ControlMode.POLICY, START)
        self.hand = lambda time_ns: REST
        self.arm = REST
        self.cameras, self.camera_delay = True, 0
        self.not_ready = None
        self.memory = 'keep'
        self.told, self.commits, self.first_seen = [], [], []
        events = RecordedEvents(clock)
        self.chunks = events.chunks
        self.scheduler = Scheduler(self.slot, clock, events, self.requests)
        self._record(engine)
        self.scheduler.load(engine, 2)
        self.pass_time(0.1)
        robot = scripted_robot(
            clock, self, LIMITS, lambda: self.arm, action_map, self.picture, executed,
            max_camera_skew=0.05, takeover_memory=lambda: self.memory)
        self.scheduler.start(robot, RuntimeSettings(schedule=SCHEDULES[schedule]), 'go')

    def _record(self, engine):
        """Keep what the engine is told, to be told to another one."""
        self.seen = []
        begin_episode, see, commit = engine.begin_episode, engine.observe, engine.commit

        def record_first(images):
            self.first_seen.append(images)
            begin_episode(images)

        def record_see(images):
            self.seen.append(images)
            see(images)

        def record_commit(executed):
            commit(executed)
            frames = engine.session._last_chunk.latents.shape[2]
            self.commits.append((self.now, frames, executed))
            self.told.append((self.seen, executed))
            self.seen = []

        engine.begin_episode, engine.observe = record_first, record_see
        engine.commit = record_commit

    def picture(self, camera, stamp):
        seed = abs(stamp - START) // 1000 + len(camera)
        return np.random.default_rng(seed).integers(0, 255, (64, 64, 3), np.uint8)

    def pass_time(self, seconds):
        for _ in range(max(1, round(ns(seconds) / TICK))):
            self.now += TICK
            if self.cameras and self.now % SHOW == 0:
                for camera in self.engine.policy.cameras:
                    stamp = self.now - self.camera_delay
                    self.buffer.add(camera, stamp, stamp)
            plan, _ = self.slot.current()
            if self.mode == 'POLICY' and plan is not None:
                self.arm = plan.sample(self.now)[0]
            elif self.mode == 'TELEOP':
                self.arm = np.array(self.hand(self.now))
            if self.mode in ('POLICY', 'TELEOP'):
                self.executed.add(self.now, self.arm)

    def switch(self, mode, since_ns=None):
        self.mode = mode
        self.control.update(ControlMode[mode], self.now if since_ns is None else since_ns)

    def play(self, until, seconds=120.0):
        """Let the scheduler work until a condition holds."""
        run_until(self, until, ns(seconds))

    def play_for(self, seconds):
        end = self.now + ns(seconds)
        self.play(lambda: self.now >= end)

    def take(self, seconds, hand=None):
        """Let a person have the arm for some time."""
        self.hand = hand or swing(self.now, self.arm)
        self.switch('TELEOP')
        self.play_for(seconds)

    @property
    def frames(self):
        return self.engine.session.frame

    @property
    def frame_seconds(self):
        policy = self.engine.policy
        return policy.actions_per_frame * policy.action_period


def swing(since_ns, q, until=60.0):
    """Return the motion of a hand that goes to and fro for some seconds and then rests."""
    def hand(time_ns):
        t = min((time_ns - since_ns) / NANOSECONDS, until)
        return q + 0.3 * np.sin(t * np.linspace(1.0, 2.0, 7))
    return hand


@pytest.fixture
def make_stage(make_short_engine):
    def make(schedule='async', action_map=None, **parts):
        return Stage(make_short_engine(memory_chunks=6), schedule, action_map, **parts)
    return make


def under_way(stage, chunks=2):
    stage.play(lambda: len(stage.chunks) >= chunks)
    stage.play(lambda: stage.now > stage.chunks[-1].first_due_ns + ns(0.3))
    return stage


def memory_of(engine):
    return engine.session.save().kv_cache


def assert_same_memory(one, other):
    one, other = vars(memory_of(one)), vars(memory_of(other))
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other[name]), name
        elif not isinstance(value, (list, tuple)):
            assert value == other[name], name
        else:
            for left, right in zip(value, other[name]):
                same = torch.equal(left, right) if isinstance(left, torch.Tensor) else (
                    left == right)
                assert same, name


def replayed(stage, engine):
    """Tell another engine what this one was told."""
    engine.set_instruction('go')
    engine.begin_episode(stage.first_seen[-1])
    for seen, executed in stage.told:
        for images in seen:
            engine.observe(images)
        engine.commit(executed)
    return engine


def test_an_operator_who_repeats_the_plan_leaves_the_same_memory(
        make_stage, make_short_engine):
    alone = under_way(make_stage(), 2)
    begun, trace = alone.now, {}
    pass_time = alone.pass_time

    def traced(seconds):
        for _ in range(max(1, round(ns(seconds) / TICK))):
            pass_time(TICK / NANOSECONDS)
            trace[alone.now] = alone.arm

    alone.pass_time = traced
    alone.play(lambda: len(alone.commits) >= 4)
    helped = under_way(make_stage(), 2)
    assert helped.now == begun
    helped.take(0.02, lambda time_ns: trace[time_ns])
    helped.play(lambda: len(helped.commits) >= 4)
    for (_, frames, executed), (_, by_hand, done) in zip(alone.commits, helped.commits):
        assert frames == by_hand
        np.testing.assert_array_equal(executed, done)
    assert len(alone.commits) == len(helped.commits) and alone.frames == helped.frames
    assert_same_memory(alone.engine, helped.engine)
    assert len(helped.chunks) == 2 and helped.slot.epoch == 1


@pytest.mark.parametrize('schedule', ['sync', 'async', 'async_ungrounded'])
def test_the_policy_continues_from_the_operators_motion(make_stage, make_short_engine, schedule):
    stage = under_way(make_stage(schedule))
    before, told = stage.frames, len(stage.chunks)
    frames = stage.engine.policy.frames_per_chunk
    stage.take(3.3 * frames * stage.frame_seconds)
    assert stage.scheduler.status.mode == PolicyMode.HOLDING
    assert 'TELEOP; what the person does is remembered' in stage.scheduler.status.reason
    assert stage.frames >= before + 3 * frames
    assert stage.scheduler.status.memory_frames == stage.engine.memory_frames
    assert {count for _, count, _ in stage.commits[1:]} == {frames}
    assert len(stage.chunks) == told
    given_back = stage.now
    stage.switch('POLICY')
    stage.play(lambda: len(stage.chunks) > told)
    chunk = stage.chunks[-1]
    assert (chunk.epoch, chunk.chunk_id) == (1, told)
    assert 0 <= given_back - chunk.observation_ns <= ns(stage.frame_seconds) + SHOW
    assert stage.now - given_back < ns(0.3)
    # It is the chunk of an engine that knows nothing but what was committed here.
    expected = replayed(stage, make_short_engine(memory_chunks=6)).predict().actions
    np.testing.assert_array_equal(chunk.positions, expected.astype(chunk.positions.dtype))


def test_short_chunks_stand_at_their_own_frames_and_times(make_stage):
    stage = make_stage()
    stage.take(0.02, lambda time_ns: REST)
    moving = 1.5 * stage.frame_seconds
    for _ in range(5):  # a motion of a frame and a half, then a rest
        stage.hand = swing(stage.now, stage.arm, moving)
        stage.play_for(moving + 2.5 * stage.frame_seconds)
    counts = [count for _, count, _ in stage.commits]
    assert counts[0] >= 2 and set(counts[1:]) <= {1, 2} and 1 in counts
    assert stage.frames == sum(counts)
    for _, count, executed in stage.commits[1:]:
        per_frame = stage.engine.policy.actions_per_frame
        assert len(executed) == count * per_frame
        for frame in executed.reshape(count, per_frame, 7):
            assert np.ptp(frame, axis=0).max() > STILL / 2


def test_who_stands_still_for_a_minute_pushes_nothing_out(make_stage):
    stage = under_way(make_stage())
    at = stage.arm
    stage.take(3.0, lambda time_ns: at)  # the frame in which the policy still moved is complete
    frames = stage.frames
    stage.play_for(60.0)
    assert stage.frames == frames
    begins = stage.now
    stage.hand = swing(begins, at)
    stage.play(lambda: stage.frames > frames)
    executed = stage.commits[-1][2]
    period = stage.engine.policy.action_period
    for row, wanted in zip(executed, np.arange(1, len(executed) + 1) * period):
        np.testing.assert_allclose(row, stage.hand(begins + ns(wanted)), atol=0.02)


def test_a_hold_freezes_the_grid_and_motion_during_it_is_not_committed(make_stage):
    stage = under_way(make_stage())
    stage.take(2.3 * stage.frame_seconds)
    stage.switch('HOLD')
    stage.play_for(0.5)
    frames, told = stage.frames, len(stage.told)
    assert stage.scheduler.status.reason == 'control_mode is HOLD'
    stage.arm = stage.arm + 0.5  # somebody else moves it, over another way
    stage.play_for(30.0)
    stage.take(0.5, lambda time_ns, at=stage.arm: at)
    assert (stage.frames, len(stage.told)) == (frames, told)
    chunks = len(stage.chunks)
    stage.switch('POLICY')
    stage.play(lambda: len(stage.chunks) > chunks)
    np.testing.assert_allclose(stage.slot.current()[0].positions[0], stage.arm, atol=0.06)
    assert stage.slot.epoch == 1


@pytest.mark.parametrize('mode', ['HOLD', 'POLICY', 'STOPPED'])
def test_frames_that_were_complete_when_the_arm_was_given_back_count_and_no_others(
        make_stage, mode):
    stage = make_stage()
    stage.camera_delay = 60_000_000  # complete they are before their images come
    stage.take(0.02)
    stage.play(lambda: stage.scheduler.episode.running is not None)
    run = stage.scheduler.episode.running
    per_frame = stage.engine.policy.actions_per_frame
    end = run.action_times[per_frame - 1]
    stage.play(lambda: stage.now >= end + ns(0.02))
    assert stage.frames == 0 and run.seen_frames == 0
    stage.switch(mode)
    stage.play_for(0.4)
    assert [count for _, count, _ in stage.commits] == [2]  # with the first image
    np.testing.assert_array_equal(stage.commits[0][2][-1], stage.executed.at([end])[0])


def test_the_word_that_the_arm_was_given_back_may_come_late(make_stage):
    stage = make_stage()
    stage.take(0.02)
    stage.play(lambda: stage.scheduler.episode.running is not None)
    run = stage.scheduler.episode.running
    end = run.action_times[stage.engine.policy.actions_per_frame - 1]
    stage.play(lambda: stage.now >= end - ns(0.05))
    since = stage.now
    stage.pass_time(0.1)
    stage.switch('HOLD', since)
    stage.play_for(1.0)
    assert not stage.commits and stage.scheduler.episode.running is None


def test_with_an_instruction_a_person_begins_the_episode_and_without_one_nothing_begins(
        make_stage):
    stage = make_stage()
    stage.scheduler.set_instruction('')
    stage.take(5.0)
    assert stage.scheduler.status.mode == PolicyMode.WAITING and not stage.first_seen
    instructed = stage.now
    stage.scheduler.set_instruction('go')
    stage.play(lambda: stage.frames > 0)
    assert len(stage.first_seen) == 1
    assert stage.executed.after(instructed) and stage.slot.epoch == 1
    assert stage.commits[0][1] == stage.engine.policy.frames_per_chunk


def test_who_takes_over_right_after_the_start_begins_the_episode_with_the_motion(make_stage):
    stage = make_stage('sync')
    stage.play(lambda: stage.scheduler.episode.running is not None)
    stage.take(0.5, lambda time_ns: REST)  # on the way to the first action
    assert stage.scheduler.episode.running is None
    stage.hand = swing(stage.now, REST)
    stage.play(lambda: stage.frames > 0)
    assert len(stage.first_seen) == 2


def test_forget_begins_a_new_epoch_with_a_takeover(make_stage):
    stage = under_way(make_stage(), 3)
    stage.memory = 'forget'
    assert stage.frames > 0
    told = len(stage.chunks)
    stage.take(5.0)
    assert stage.slot.epoch == 2 and stage.frames == 0
    assert stage.scheduler.status.memory_frames == 0
    assert stage.scheduler.status.reason == 'control_mode is TELEOP'
    stage.switch('POLICY')
    stage.play(lambda: len(stage.chunks) > told)
    assert (stage.chunks[-1].epoch, stage.chunks[-1].chunk_id) == (2, 0)
    assert stage.now - stage.chunks[-1].observation_ns < ns(1.0)
    stage.switch('HOLD')
    stage.play_for(0.5)
    assert stage.slot.epoch == 2


def test_a_prediction_is_given_up_when_a_person_takes_the_arm(make_stage):
    stage = make_stage('sync')
    predict, steps = stage.engine.predict, []

    def interrupted(interrupt):
        def step():
            steps.append(stage.mode)
            stage.switch('TELEOP')
            interrupt.check()
        return predict(SimpleNamespace(check=step))

    stage.engine.predict = interrupted
    stage.play(lambda: stage.scheduler.status.mode == PolicyMode.HOLDING)
    assert steps == ['POLICY'] and not stage.chunks


def test_a_lost_camera_freezes_the_grid_and_complete_frames_are_kept(make_stage):
    stage = under_way(make_stage())
    stage.take(1.5 * stage.frame_seconds)
    stage.not_ready = 'camera head: no image'
    stage.cameras = False
    stage.play_for(5.0)
    assert stage.scheduler.status.reason == stage.not_ready
    frames = stage.frames
    stage.not_ready, stage.cameras = None, True
    stage.play(lambda: stage.frames > frames)


def test_images_that_do_not_come_leave_frames_out_and_are_named(make_stage):
    stage = under_way(make_stage())
    stage.take(1.5 * stage.frame_seconds)
    stage.cameras = False
    stage.play_for(0.4)
    stage.cameras = True
    reasons = []
    stage.play(lambda: reasons.append(stage.scheduler.status.reason) or any(
        'nearest image' in reason for reason in reasons))
    frames = stage.frames
    stage.play(lambda: stage.frames > frames)
    assert stage.slot.epoch == 1


def test_a_mux_that_falls_silent_leaves_a_gap_and_no_frame_across_it(make_stage):
    stage = under_way(make_stage())
    stage.take(1.5 * stage.frame_seconds)
    add, stage.executed.add = stage.executed.add, lambda stamp, row: None
    stage.play_for(5.0)
    frames = stage.frames
    assert stage.scheduler.episode.running is None
    stage.executed.add = add
    resumed = stage.now
    stage.play(lambda: stage.frames > frames)
    assert stage.commits[-1][0] > resumed
    np.testing.assert_allclose(
        stage.commits[-1][2][0], stage.hand(resumed + ns(stage.engine.policy.action_period)),
        atol=0.05)


def test_without_executed_commands_a_takeover_is_not_recorded(make_stage):
    stage = make_stage('sync', executed=None)
    stage.play(lambda: stage.frames > 0)
    frames = stage.frames
    stage.take(6 * stage.frame_seconds)
    assert stage.frames <= frames + 1  # what was complete of the policy's own chunk
    assert stage.scheduler.status.reason == 'control_mode is TELEOP'


def test_another_instruction_during_a_takeover_holds_from_the_next_frame_written(make_stage):
    stage = under_way(make_stage())
    stage.take(1.0)
    stage.scheduler.set_instruction('something else')
    frames = stage.frames
    stage.play(lambda: stage.frames > frames)
    assert stage.engine.instruction == 'something else'
    stage.scheduler.set_instruction('')
    frames = stage.frames
    stage.play_for(5.0)
    assert stage.frames == frames and stage.scheduler.status.mode == PolicyMode.WAITING


def test_a_reset_during_a_takeover_begins_the_episode_anew_from_there(make_stage):
    stage = under_way(make_stage())
    stage.take(3.0)
    asked = stage.now
    stage.requests.ask(
        lambda: stage.scheduler.reset(''), first=lambda: stage.slot.stop(new_epoch=True))
    stage.play(lambda: len(stage.first_seen) == 2)
    assert stage.frames == 0 and stage.slot.epoch == 2
    stage.play(lambda: stage.frames > 0)
    assert stage.commits[-1][0] >= asked + ns(
        (stage.engine.policy.frames_per_chunk - 1) * stage.frame_seconds)


def test_a_snapshot_of_a_takeover_can_be_restored(make_stage):
    stage = under_way(make_stage())
    stage.take(1.2 * stage.frame_seconds)
    stage.play(lambda: stage.engine._uncommitted_latents)
    saved = stage.scheduler.save('here')
    assert saved > stage.engine.memory_frames
    stage.play_for(3.0)
    stage.switch('HOLD')
    stage.play_for(0.5)
    assert stage.scheduler.restore('here') == saved
    assert stage.slot.epoch == 2
    told = len(stage.chunks)
    stage.switch('POLICY')
    stage.play(lambda: len(stage.chunks) > told)
    assert (stage.chunks[-1].epoch, stage.chunks[-1].chunk_id) == (2, 0)


def begin(stage, **goal):
    task = Task('wipe', **goal)
    stage.requests.ask(
        lambda: stage.scheduler.begin_task(task), first=lambda: stage.slot.stop(new_epoch=True))
    stage.play(lambda: stage.scheduler._assignment.task is task)
    return task


def test_a_task_goes_on_over_a_takeover_and_ends_at_a_hold(make_stage):
    stage = make_stage()
    task = begin(stage, max_chunks=3)
    under_way(stage)
    stage.take(6.0)
    assert not task.result.done() and task.chunks <= 2
    stage.switch('POLICY')
    stage.play(task.result.done)
    assert task.result.result()[0] == Outcome.CHUNK_LIMIT and task.chunks == 3
    assert sum(count for _, count, _ in stage.commits) > (
        3 * stage.engine.policy.frames_per_chunk)
    other = begin(stage)
    under_way(stage, len(stage.chunks) + 1)
    stage.take(1.0)
    stage.switch('HOLD')
    stage.play(other.result.done)
    assert other.result.result() == (Outcome.STOPPED, 'control_mode is HOLD')


def test_a_takeover_ends_a_task_under_forget(make_stage):
    stage = make_stage()
    stage.memory = 'forget'
    task = begin(stage)
    under_way(stage)
    stage.take(1.0)
    assert task.result.result() == (Outcome.STOPPED, 'control_mode is TELEOP')


@pytest.mark.parametrize('seed', range(int(os.environ.get('LINGBOT_VA_TAKEOVER_SEEDS', '2'))))
def test_whatever_happens_the_memory_is_whole_and_work_goes_on(make_stage, seed):
    rng = np.random.default_rng(seed)
    stage = make_stage(str(rng.choice(['sync', 'async', 'async_ungrounded'])))
    add, names = stage.executed.add, []

    def still():
        stage.hand = lambda time_ns, at=stage.arm: at

    def save():
        names.append(stage.scheduler.save('here'))

    def restore():
        if names:
            stage.switch('HOLD')
            stage.scheduler.restore('here')

    def clock_back():  # what the node does then
        stage.now -= ns(rng.uniform(2.0, 60.0)) // SHOW * SHOW
        stage.buffer.clear()
        stage.executed.clear()
        stage.slot.clear()
        reset()

    def reset():
        stage.requests.ask(
            lambda: stage.scheduler.reset(''), first=lambda: stage.slot.stop(new_epoch=True))

    happenings = (
        *3 * [lambda: stage.switch('TELEOP')], *2 * [lambda: stage.switch('POLICY')],
        lambda: stage.switch('HOLD'), lambda: stage.switch('STOPPED'),
        *3 * [lambda: setattr(stage, 'hand', swing(stage.now, stage.arm))], still,
        lambda: setattr(stage, 'cameras', not stage.cameras),
        lambda: setattr(stage, 'camera_delay', int(rng.integers(0, 6)) * TICK),
        lambda: setattr(stage, 'not_ready', rng.choice(['', 'a wall']) or None),
        lambda: setattr(stage, 'memory', str(rng.choice(['keep', 'keep', 'forget']))),
        lambda: setattr(stage.executed, 'add', lambda stamp, row: None),
        lambda: setattr(stage.executed, 'add', add),
        lambda: stage.scheduler.set_instruction(str(rng.choice(['', 'go', 'stay']))),
        lambda: stage.scheduler.begin_task(Task('wipe', keep_memory=True, max_chunks=2)),
        save, restore, reset, clock_back)
    for _ in range(60):
        happenings[rng.integers(len(happenings))]()
        stage.play_for(rng.uniform(0.02, 1.5))
        engine = stage.engine
        assert engine.memory_frames <= engine.memory_capacity
        assert engine.memory_frames <= engine.session.frame or not engine.began
        run = stage.scheduler.episode.running
        assert len(engine._uncommitted_latents) == (run.seen_frames if run else 0)
    stage.cameras, stage.not_ready, stage.executed.add = True, None, add
    stage.scheduler.set_instruction('go on')
    stage.switch('POLICY')
    told = len(stage.chunks)
    stage.play(lambda: len(stage.chunks) >= told + 2)
    assert all(np.isfinite(executed).all() for _, _, executed in stage.commits)


def test_relative_poses_begin_where_the_person_began(make_stage, make_short_engine):
    policy = make_short_engine().policy
    channels = (*range(7), 28)
    relative = dataclasses.replace(
        policy, action_frame='eef_relative', used_channels=channels)
    action_map, fresh = make_action_map(ROBOT, relative), make_action_map(ROBOT, relative)
    # The memory of this checkpoint has joints: columns are left out to make room for them.
    stage = make_stage(
        'sync', PlainActionMap(
            begin=action_map.begin, state=action_map.state, restore=action_map.restore,
            from_joints=lambda joints, before: action_map.from_joints(joints, before)[:, :7]))
    stage.take(0.05, lambda time_ns: REST)
    began = stage.now
    stage.hand = swing(began, REST)
    stage.play(lambda: stage.frames > 0)
    stage.scheduler.save('here')
    stage.play(lambda: len(stage.commits) >= 2)
    fresh.begin(stage.hand(began))
    period = stage.engine.policy.action_period
    count = sum(len(executed) for _, _, executed in stage.commits)
    times = [began + ns(i * period) for i in range(count + 1)]
    wanted = fresh.from_joints(stage.executed.at(times)[1:])[:, :7]
    np.testing.assert_allclose(
        np.concatenate([executed for _, _, executed in stage.commits]), wanted, atol=0.02)
