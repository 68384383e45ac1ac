"""The inference thread with the untrained checkpoint and a scripted robot."""

import dataclasses
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from support.scripted_robot import PlainActionMap, RecordedEvents, scripted_robot
from support.waiting import wait_for

from lingbot_va_ros.motion.plan import MotionLimits
from lingbot_va_ros.motion.plan_slot import PlanSlot
from lingbot_va_ros.policy.errors import NotExecutable
from lingbot_va_ros.policy.inference.load import EngineConfig, load_engine
from lingbot_va_ros.policy.runtime import predictor as predictor_module
from lingbot_va_ros.policy.runtime.camera_buffer import CameraBuffer, CameraFault
from lingbot_va_ros.policy.runtime.clock import SystemClock
from lingbot_va_ros.policy.runtime.executed_log import ExecutedLog
from lingbot_va_ros.policy.runtime.inference_thread import InferenceThread
from lingbot_va_ros.policy.runtime.robot_interface import RuntimeSettings
from lingbot_va_ros.policy.runtime.schedules import SCHEDULES
from lingbot_va_ros.policy.runtime.status import PolicyMode
from lingbot_va_ros.robot.action_map import make_action_map
from lingbot_va_ros.specs.embodiment import load_embodiment
from lingbot_va_ros.specs.policy_file import load_policy_file

JOINTS = 7
REST = np.array([0.0, 0.0, 1.8, 0.0, 1.34, 0.0, 0.7])
LIMITS = MotionLimits(
    np.full(JOINTS, -3.0), np.full(JOINTS, 3.0), np.full(JOINTS, 5.0), np.full(JOINTS, 10.0))
DEADLINE = 60.0


class Stage:
    """Two cameras at 50 Hz and an arm whose executed commands follow the plan, in a thread."""

    def __init__(self, policy):
        self.policy = policy
        self.clock = SystemClock()
        self.slot = PlanSlot(self.clock.now_ns)
        self.slot.begin(LIMITS)
        self.buffer = CameraBuffer(policy.cameras, 5.0)
        self.executed = ExecutedLog(5.0)
        self.reports_executed = True
        self.shown = set(policy.cameras)
        self.not_ready = None
        self.taken_by = None
        self.control = SimpleNamespace(
            not_owner_reason=lambda: self.taken_by, person_since=lambda: None, since_ns=0)
        events = RecordedEvents(self.clock)
        self.chunks, self.faults = events.chunks, events.faults
        self.thread = InferenceThread(self.slot, self.clock, events)
        self._stop = threading.Event()
        self._picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
        self._player = threading.Thread(target=self._play, daemon=True)
        self._player.start()

    def _play(self):
        while not self._stop.wait(0.02):
            now = time.time_ns()
            for camera in list(self.shown):
                self.buffer.add(camera, now, self._picture)
            plan, now = self.slot.current()
            if plan is not None and self.reports_executed:
                self.executed.add(now, plan.sample(now)[0])

    @property
    def scheduler(self):
        return self.thread._scheduler

    @property
    def predictor(self):
        return self.scheduler._activation.predictor

    def start(self, schedule='sync', measured=lambda: REST, **parts):
        """Begin to work on an instruction, with other parts of the robot interface."""
        robot = scripted_robot(self.clock, self, LIMITS, measured, **parts)
        settings = RuntimeSettings(schedule=SCHEDULES[schedule], start_tolerance=10.0)
        self.thread.ask(lambda scheduler: scheduler.start(robot, settings, 'go')).result(DEADLINE)

    def set_instruction(self, instruction):
        return self.thread.ask(lambda scheduler: scheduler.set_instruction(instruction))

    def close(self):
        self._stop.set()
        self._player.join()
        assert self.thread.close(10.0)


@pytest.fixture(scope='module')
def policy(untrained_checkpoint):
    """The untrained policy, four times as fast: a chunk takes 0.4 s, a frame 0.2 s."""
    return dataclasses.replace(
        load_policy_file(untrained_checkpoint / 'policy.yaml'), action_rate=40.0)


@pytest.fixture
def stage(policy, untrained_checkpoint):
    yield from prepared(policy, untrained_checkpoint)


@pytest.fixture
def quick_stage(policy, untrained_checkpoint):
    """Predict a chunk of 0.8 s with one step, which takes less than that on a busy machine too."""
    quick = dataclasses.replace(
        policy, action_rate=20.0, video=dataclasses.replace(policy.video, steps=1),
        action=dataclasses.replace(policy.action, steps=1))
    yield from prepared(quick, untrained_checkpoint, imagine_steps=1)


def prepared(policy, checkpoint, **options):
    stage = Stage(policy)
    stage.thread.ask(lambda scheduler: scheduler.load(load_engine(
        EngineConfig.of_policy(checkpoint, policy, **options)), 0)).result(DEADLINE)
    yield stage
    stage.close()


def test_a_chunk_becomes_memory_when_it_has_been_executed(stage):
    stage.start()
    wait_for(lambda: len(stage.chunks) == 3, 'three chunks')
    assert [chunk.chunk_id for chunk in stage.chunks] == [0, 1, 2]
    assert stage.thread.status.memory_frames == 4
    assert stage.thread.status.mode == PolicyMode.RUNNING


def test_each_chunk_begins_after_the_one_before_has_ended(stage):
    stage.start()
    wait_for(lambda: len(stage.chunks) == 3, 'three chunks')
    for before, after in zip(stage.chunks, stage.chunks[1:]):
        end = before.first_due_ns + round(len(before.positions) * before.period * 1e9)
        assert after.first_due_ns > end


@pytest.mark.parametrize('schedule', ['async', 'async_ungrounded'])
def test_chunks_predicted_ahead_by_the_real_engine_join_and_are_committed(
        quick_stage, schedule):
    stage = quick_stage
    stage.start(schedule)

    def joined():
        chunks, count = list(stage.chunks), 0
        for before, after in zip(chunks, chunks[1:]):
            due = before.first_due_ns + round(len(before.positions) * before.period * 1e9)
            count = count + 1 if abs(after.first_due_ns - due) <= 10 else 0
        return count

    wait_for(lambda: joined() >= 3 or stage.faults, 'three chunks without a stop between them')
    assert not stage.faults
    assert all(chunk.grounded == (schedule == 'async') for chunk in stage.chunks[-3:])
    frames = stage.thread.status.memory_frames
    wait_for(lambda: stage.thread.status.memory_frames >= frames + 2, 'a chunk more')
    assert stage.thread.reset().result(DEADLINE) >= frames + 2
    wait_for(lambda: stage.chunks[-1].epoch == 2, 'a chunk of the new epoch')
    assert stage.thread.close(DEADLINE)


def test_an_obstacle_stops_the_arm_and_keeps_only_complete_frames(stage):
    stage.start()
    chunk = wait_for(lambda: stage.chunks[1:2], 'the second chunk')[0]
    one_frame = chunk.first_due_ns + round(0.3e9)  # of two frames of 0.2 s
    wait_for(lambda: time.time_ns() > one_frame, 'one frame and a half')
    stage.not_ready = 'a wall'
    wait_for(lambda: stage.thread.status.mode == PolicyMode.HOLDING, 'holding')
    assert stage.thread.status.reason == 'a wall'
    assert stage.thread.status.memory_frames == 3
    plan, now = stage.slot.current()
    assert plan.end_ns - now < 1e9 and not plan.velocities[-1].any()
    stage.not_ready = None
    wait_for(lambda: len(stage.chunks) == 3, 'the next chunk')


def test_executed_actions_are_committed_not_predicted_ones(stage):
    stage.start()
    engine = stage.scheduler.engine
    committed = []
    commit = engine.commit
    engine.commit = lambda actions: (committed.append(actions), commit(actions))
    wait_for(lambda: committed, 'a commit')
    chunk = stage.chunks[0]
    times = [chunk.first_due_ns + round(i * chunk.period * 1e9) for i in range(8)]
    np.testing.assert_allclose(committed[0], stage.executed.at(times), atol=0.02)
    assert np.abs(committed[0] - chunk.positions).max() > 0  # read back, not passed on


def test_a_chunk_without_executed_commands_is_not_committed(stage):
    stage.reports_executed = False
    stage.start()
    wait_for(lambda: len(stage.chunks) == 2, 'two chunks')
    assert stage.thread.status.memory_frames == 0


def test_a_reset_during_a_prediction_is_answered_between_two_steps(stage):
    stage.start()
    wait_for(lambda: stage.thread.status.memory_frames >= 2, 'a memory')
    engine, waiting = stage.scheduler.engine, threading.Event()
    predict = engine.predict

    def slow(interrupt):
        def step():
            waiting.set()
            time.sleep(0.2)
            interrupt.check()
        return predict(SimpleNamespace(check=step))

    engine.predict = slow
    assert waiting.wait(DEADLINE)
    asked = time.monotonic()
    forgotten = stage.thread.reset().result(DEADLINE)
    assert time.monotonic() - asked < 0.5  # a whole prediction would take 13 steps of 0.2 s
    assert forgotten >= 2 and stage.slot.epoch == 2
    engine.predict = predict
    wait_for(lambda: [chunk for chunk in stage.chunks if chunk.epoch == 2], 'a new chunk')


def test_an_aborted_prediction_gives_the_same_chunk_again(stage):
    engine = stage.scheduler.engine
    picture = dict.fromkeys(stage.policy.cameras, stage._picture)

    def both():
        engine.set_instruction('go')
        engine.begin_episode(picture)
        return engine.predict().actions
    first = stage.thread.ask(lambda scheduler: both()).result(DEADLINE)
    stage.taken_by = 'somebody else'  # predicted, and kept waiting
    stage.start()
    wait_for(lambda: stage.predictor.ready is not None, 'a chunk that waits')
    stage.set_instruction('stop that').result(DEADLINE)
    stage.set_instruction('go').result(DEADLINE)
    wait_for(lambda: stage.predictor.ready is not None, 'the chunk again')
    np.testing.assert_array_equal(stage.predictor.ready.chunk.actions, first)


def test_an_image_that_cannot_be_read_holds_and_names_the_camera(stage):
    def refuse(camera, image):
        raise CameraFault(f'camera {camera}: upside down')
    stage.start(to_rgb=refuse)
    wait_for(lambda: stage.thread.status.reason == 'camera head: upside down', 'the reason')
    assert stage.thread.status.mode == PolicyMode.HOLDING and not stage.chunks


def counting(engine):
    """Return a list that grows by one with each prediction."""
    predictions, predict = [], engine.predict

    def count(interrupt):
        predictions.append(time.monotonic())
        return predict(interrupt)
    engine.predict = count
    return predictions


def test_a_chunk_that_cannot_be_executed_holds_and_is_not_predicted_again(stage):
    refusing = threading.Event()

    def to_joints(actions, start):
        if refusing.is_set() and len(stage.chunks) == 1:
            raise NotExecutable('left arm: too far')
        return actions
    refusing.set()
    predictions = counting(stage.scheduler.engine)
    stage.start(action_map=PlainActionMap(to_joints=to_joints))
    wait_for(lambda: stage.thread.status.reason == 'left arm: too far', 'the reason')
    assert stage.thread.status.mode == PolicyMode.HOLDING and len(stage.chunks) == 1
    plan, now = stage.slot.current()
    assert now >= plan.end_ns  # the arm rests
    done = len(predictions)
    time.sleep(0.3)
    assert len(predictions) == done and not stage.faults
    assert stage.thread.status.reason == 'left arm: too far'
    refusing.clear()
    stage.set_instruction('another way')
    wait_for(lambda: len(stage.chunks) == 2, 'the next chunk')


def test_a_rejected_chunk_is_retried_after_another_owner_of_the_arm(stage):
    refusing = True

    def to_joints(actions, start):
        if refusing and len(stage.chunks) == 1:
            raise NotExecutable('left arm: too far')
        return actions
    stage.start(action_map=PlainActionMap(to_joints=to_joints))
    wait_for(lambda: stage.thread.status.reason == 'left arm: too far', 'the reason')
    refusing, stage.taken_by = False, 'control_mode is TELEOP'
    wait_for(lambda: stage.thread.status.reason == stage.taken_by, 'the other reason')
    stage.taken_by = None
    wait_for(lambda: len(stage.chunks) == 2, 'the next chunk')


def test_an_episode_whose_first_chunk_is_refused_begins_anew_after_a_while(stage, monkeypatch):
    monkeypatch.setattr(predictor_module, 'BEGIN_AGAIN', 0.2)
    begun = []

    def to_joints(actions, start):
        if len(begun) < 3:
            raise NotExecutable('left arm: too far')
        return actions
    predictions = counting(stage.scheduler.engine)
    stage.start(action_map=PlainActionMap(to_joints=to_joints, begin=begun.append))
    wait_for(lambda: stage.chunks, 'a chunk')
    assert len(predictions) >= 3 and (np.diff(predictions[:3]) > 0.2).all()
    np.testing.assert_array_equal(begun[0], REST)


@pytest.mark.parametrize('frame', ['eef_delta', 'eef_relative'])
def test_an_end_effector_policy_moves_an_arm_and_commits_its_actions(
        frame, policy, untrained_checkpoint):
    embodiment = load_embodiment('sim_left')
    channels = (0, 1, 2, 3, 4, 5, 6) + ((28,) if frame == 'eef_relative' else ())
    low, high = np.full(30, -0.01, np.float32), np.full(30, 0.01, np.float32)
    if frame == 'eef_relative':
        low[6], high[6] = 0.9, 1.0
    policy = dataclasses.replace(
        policy, action_frame=frame, used_channels=channels, q01=low, q99=high)
    action_map = make_action_map(embodiment, policy)
    stage = Stage(policy)
    stage.thread.ask(lambda scheduler: scheduler.load(load_engine(
        EngineConfig.of_policy(untrained_checkpoint, policy)), 0)).result(60)
    engine = stage.scheduler.engine
    predicted, committed, commit, predict = [], [], engine.commit, engine.predict

    def keep(interrupt):
        predicted.append(predict(interrupt))
        return predicted[-1]
    engine.predict = keep
    engine.commit = lambda actions: (committed.append(actions), commit(actions))
    try:
        stage.start(action_map=action_map, executed=None, measured=lambda: embodiment.home)
        wait_for(lambda: len(committed) == 2 or stage.faults, 'two commits')
        assert not stage.faults
        for chunk, actions in zip(predicted, committed):
            expected = chunk.actions.astype(np.float64)
            if frame == 'eef_relative':
                expected[:, 3:7] /= np.linalg.norm(expected[:, 3:7], axis=1)[:, None]
            np.testing.assert_allclose(actions, expected, rtol=0, atol=1e-3)
    finally:
        stage.close()


def test_an_exception_while_working_is_reported_once_and_stops_the_work(stage):
    stage.scheduler.engine.predict = lambda interrupt: 1 / 0
    stage.start()
    wait_for(lambda: stage.faults, 'a fault')
    assert 'ZeroDivisionError' in stage.faults[0]
    assert not stage.scheduler.active
    assert stage.set_instruction('still answering').result(DEADLINE) is None


def test_statistics_hold_no_warm_up(stage):
    assert stage.thread.status.inference_seconds == 0.0
    stage.start()
    wait_for(lambda: stage.chunks, 'a chunk')
    assert stage.thread.status.inference_seconds == pytest.approx(
        stage.chunks[0].inference_seconds)


def test_faults_during_a_prediction_are_checked_before_any_motion(stage):
    engine = stage.scheduler.engine
    predict = engine.predict

    def slow(interrupt):
        chunk = predict(interrupt)
        stage.not_ready = 'a wall'
        return chunk

    engine.predict = slow
    stage.start()
    wait_for(lambda: stage.thread.status.reason == 'a wall', 'holding')
    assert not stage.chunks


def test_with_another_owner_of_the_arm_it_predicts_once(stage):
    engine, count = stage.scheduler.engine, []
    predict = engine.predict
    engine.predict = lambda interrupt: (count.append(1), predict(interrupt))[1]
    stage.taken_by = 'somebody else'
    stage.start()
    wait_for(lambda: stage.predictor.ready is not None, 'a chunk that waits')
    wait_for(stage.predictor.is_stale, 'the image to grow old')
    until = time.monotonic() + 0.3
    wait_for(lambda: time.monotonic() > until, 'some more rounds')
    assert len(count) == 1
    stage.taken_by = None
    wait_for(lambda: stage.chunks, 'a chunk')
    assert len(count) == 2  # from an image that is true
