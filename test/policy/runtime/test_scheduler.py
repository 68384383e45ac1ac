"""The asynchronous schedules in simulated time: a scripted engine, cameras and an arm."""

from concurrent.futures import Future
import threading
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

from lingbot_va_ros.motion.plan import MotionLimits, resting_at
from lingbot_va_ros.motion.plan_slot import PlanSlot
from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.policy.errors import NotExecutable
from lingbot_va_ros.policy.runtime import latency as latency_module
from lingbot_va_ros.policy.runtime.camera_buffer import CameraBuffer, CameraFault
from lingbot_va_ros.policy.runtime.executed_log import ExecutedLog
from lingbot_va_ros.policy.runtime.instruction_text import at_once
from lingbot_va_ros.policy.runtime.requests import RequestQueue
from lingbot_va_ros.policy.runtime.robot_interface import RuntimeSettings
from lingbot_va_ros.policy.runtime.scheduler import Scheduler
from lingbot_va_ros.policy.runtime.schedules import SCHEDULES
from lingbot_va_ros.policy.runtime.status import PolicyMode
from lingbot_va_ros.policy.runtime.task import Outcome, Task

TICK = 5_000_000  # ns between two looks of the played world
SHOW = 20_000_000  # ns between two images
START = 1_700_000_000_000_000_000
JOINTS = 2
LIMITS = MotionLimits(
    np.full(JOINTS, -9.0), np.full(JOINTS, 9.0), np.full(JOINTS, 2.0), np.full(JOINTS, 10.0))
PERIOD = 0.1
FRAMES, ACTIONS = 2, 4
CHUNK = FRAMES * ACTIONS
POLICY = SimpleNamespace(
    frames_per_chunk=FRAMES, actions_per_frame=ACTIONS, action_period=PERIOD, images_every=1,
    cameras=('head',))


def ns(seconds):
    return round(seconds * NANOSECONDS)


class ScriptedEngine:
    """Predicts a motion that goes on at a speed; takes a scripted time in scripted steps."""

    def __init__(self, stage):
        self.stage = stage
        self.policy = POLICY
        self.seconds, self.steps = 0.2, 10
        self.speed = 0.3  # rad/s
        self.offset = 0.0  # rad, by which the next chunk is off where the last one ended
        self.graph_recordings = 0
        self.memory_capacity = 60
        self.instruction = ''
        self.text_seconds = None  # that the encoder takes; None: every text is known
        self.unreadable = None  # the text that cannot be encoded
        self.first_image = None
        self.chunks = 0  # committed
        self.seen = []
        self.calls = []

    @property
    def began(self):
        return self.chunks > 0

    @property
    def memory_frames(self):
        return self.chunks and self.chunks * FRAMES

    def called(self, name, **details):
        self.calls.append(SimpleNamespace(name=name, now=self.stage.now, **details))
        return self.calls[-1]

    def named(self, *names):
        return [call for call in self.calls if call.name in names]

    def knows_instruction(self, instruction):
        return instruction == self.instruction or self.text_seconds is None

    def keep_images(self, keeps):
        pass

    def prepare_instruction(self, instruction):
        self.called('encode', text=instruction)
        self.stage.pass_time(self.text_seconds)
        if instruction == self.unreadable:
            raise ValueError('no such text')

    def set_instruction(self, instruction):
        if self.text_seconds is None:
            self.called('encode', text=instruction)
        self.instruction = instruction

    def begin_episode(self, images):
        self.first_image, self.seen = images, []

    def observe(self, images):
        self.called('observe')
        self.stage.pass_time(0.01)
        self.seen.append(images)

    def _compute(self, interrupt, start):
        for _ in range(self.steps):
            self.stage.pass_time(self.seconds / self.steps)
            interrupt.check()
        count = CHUNK if self.began or self.seen_as_running else CHUNK - ACTIONS
        ways = PERIOD * self.speed * np.arange(1, count + 1)
        actions = start + self.offset + np.stack([ways, -ways], 1)
        return SimpleNamespace(actions=actions, grounded=True)

    seen_as_running = False

    def predict(self, interrupt):
        call = self.called('predict', instruction=self.instruction, ended=None)
        self.seen_as_running = False
        chunk = self._compute(interrupt, self.stage.slot.current()[0].positions[-1])
        call.ended = self.stage.now
        return chunk

    def predict_ahead(self, executing, grounded, interrupt):
        call = self.called(
            'ahead', instruction=self.instruction, executing=executing, seen=len(self.seen),
            grounded=grounded, ended=None)
        assert len(executing) == (CHUNK if self.began else CHUNK - ACTIONS)
        self.seen_as_running = True
        chunk = self._compute(interrupt, executing[-1])
        call.ended = self.stage.now
        chunk.grounded = grounded
        return chunk

    def commit(self, executed):
        assert len(executed) == len(self.seen) * ACTIONS
        self.called('commit', executed=executed, frames=len(self.seen))
        self.chunks += 1
        self.seen = []

    def drop_observed(self):
        self.called('drop_observed')
        self.seen = []

    def reset(self):
        forgotten, self.chunks, self.seen = self.memory_frames, 0, []
        return forgotten

    def rebuild_from_last_chunk(self):
        self.called('rebuild_from_last_chunk')

    def snapshot(self):
        return self.chunks, list(self.seen)

    def restore(self, snapshot):
        self.chunks, seen = snapshot
        self.seen = list(seen)


class Stage:
    """A camera at 50 Hz and an arm that does what the plan says, in simulated time."""

    def __init__(
            self, schedule='async', action_map=None, padded_latency=0.0,
            measured=lambda: np.zeros(JOINTS), aside=at_once, **settings):
        self.now = START
        self.set_by = 0
        clock = PlayedClock(self)
        self.requests = RequestQueue(clock)
        self.slot = PlanSlot(clock.now_ns)
        self.slot.begin(LIMITS)
        self.buffer, self.executed = CameraBuffer(('head',), 5.0), ExecutedLog(30.0)
        self.camera, self.camera_delay = True, 0.0
        self.converted, self.refused = [], []  # stamps of images
        self.is_bad = lambda stamp: False  # whether the image of a stamp cannot be read
        self.not_ready = self.taken_by = None
        self.control = SimpleNamespace(
            not_owner_reason=lambda: self.taken_by, person_since=lambda: None, since_ns=0)
        self.clipped = 0.0  # what the arm is sent lies so much beside the plan
        self.trace = []
        self.starved = 0
        self.at = {}
        self.events = RecordedEvents(clock)
        self.scheduler = Scheduler(self.slot, clock, self.events, self.requests, aside)
        self.engine = ScriptedEngine(self)
        self.settings = RuntimeSettings(
            schedule=SCHEDULES[schedule], **{'start_tolerance': 99.0, **settings})
        self.scheduler.load(self.engine, 2)
        self.pass_time(0.1)
        robot = scripted_robot(
            clock, self, LIMITS, measured, action_map, to_rgb=self._to_rgb, max_camera_skew=0.05,
            padded_latency=padded_latency)
        self.scheduler.start(robot, self.settings, 'go')

    def _to_rgb(self, camera, stamp):
        if self.is_bad(stamp):
            self.refused.append(stamp)
            raise CameraFault(f'camera {camera}: cut off')
        self.converted.append(stamp)
        return stamp

    @property
    def chunks(self):
        """The chunks that began, with the time at which they did."""
        return list(zip(self.events.chunk_times, self.events.chunks))

    @property
    def modes(self):
        return self.events.modes

    def pass_time(self, seconds):
        for _ in range(max(1, round(seconds * NANOSECONDS / TICK))):
            self.now += TICK
            if self.now in self.at:
                self.at.pop(self.now)()
            if self.camera and self.now % SHOW == 0:
                stamp = self.now - ns(self.camera_delay)
                self.buffer.add('head', stamp, stamp)
            plan, _ = self.slot.current()
            if plan is not None:
                q, v = plan.sample(self.now)
                self.executed.add(self.now, q + self.clipped)
                self.trace.append((self.now, q, v))
                self.starved += self.scheduler.continuous and self.now > plan.end_ns

    def later(self, seconds, what):
        """Have something done while time passes, also within a prediction."""
        moment = self.now + ns(seconds)
        self.at[moment + -moment % TICK] = what

    def play(self, until, seconds=60.0):
        """Let the scheduler work until a condition holds."""
        run_until(self, until, ns(seconds))

    def play_chunks(self, count):
        self.play(lambda: len(self.chunks) >= count)
        return [chunk for _, chunk in self.chunks]

    def arm_at(self, time_ns):
        """Return where the arm was, and how fast."""
        return min(self.trace, key=lambda entry: abs(entry[0] - time_ns))[1:]


def end_of(chunk):
    return chunk.first_due_ns + ns((len(chunk.positions) - 1) * PERIOD)


@pytest.fixture(autouse=True)
def known_after_two(monkeypatch):
    monkeypatch.setattr(latency_module, 'ENOUGH', 2)


@pytest.mark.parametrize('schedule', ['async', 'async_ungrounded'])
def test_each_chunk_begins_one_period_after_the_last_action_of_the_one_before(schedule):
    stage = Stage(schedule)
    chunks = stage.play_chunks(6)
    assert [len(chunk.positions) for chunk in chunks] == [ACTIONS] + [CHUNK] * 5
    assert [chunk.chunk_id for chunk in chunks] == list(range(6))
    for before, after in zip(chunks, chunks[1:]):
        assert after.first_due_ns == end_of(before) + ns(PERIOD)
    assert stage.starved == 0


def test_every_action_is_passed_when_it_is_due():
    stage = Stage()
    stage.engine.speed = 0.7
    for chunk in stage.play_chunks(5)[:-1]:
        for index, action in enumerate(chunk.positions):
            found, _ = stage.arm_at(chunk.first_due_ns + ns(index * PERIOD))
            np.testing.assert_allclose(found, action, atol=0.7 * 1.5 * TICK / NANOSECONDS)


def test_the_seam_is_passed_at_speed_and_without_a_jump():
    stage = Stage()
    chunks = stage.play_chunks(5)
    for before in chunks[:-1]:
        _, speed = stage.arm_at(end_of(before))
        np.testing.assert_allclose(np.abs(speed), 0.3, atol=1e-6)
    speeds = np.stack([v for now, _, v in stage.trace if now < end_of(chunks[-2])])
    assert np.abs(np.diff(speeds, axis=0)).max() < 0.1  # from rest to 0.3 rad/s and no stop


def test_without_measurements_it_predicts_at_once_and_then_as_late_as_they_allow():
    stage = Stage()
    stage.engine.seconds = 0.15
    chunks = stage.play_chunks(6)
    ahead = stage.engine.named('ahead')
    assert ahead[0].now < chunks[0].first_due_ns
    assert [call.seen for call in ahead[3:5]] == [1, 1]
    for call, chunk in zip(ahead[3:5], chunks[3:5]):
        needed = end_of(chunk) - ns(PERIOD) - ns(stage.settings.reaction)
        assert 0 <= needed - call.ended < ns(0.06)


def test_actions_of_the_running_chunk_are_the_executed_then_the_planned_ones():
    stage = Stage()
    stage.play_chunks(4)
    stage.clipped = 0.05
    chunk = stage.play_chunks(5)[-1]
    stage.play(lambda: stage.engine.named('ahead')[-1].now > chunk.first_due_ns)
    call = stage.engine.named('ahead')[-1]
    beside = np.abs(call.executing - chunk.positions).max(1)
    done = [chunk.first_due_ns + ns(i * PERIOD) <= call.now for i in range(CHUNK)]
    assert 3 < sum(done) < CHUNK
    np.testing.assert_allclose(beside, np.where(done, 0.05, 0.0), atol=1e-3)


def test_committed_chunks_are_complete_with_the_executed_actions():
    stage = Stage()
    stage.clipped = 0.05
    chunks = stage.play_chunks(5)
    commits = stage.engine.named('commit')
    assert [call.frames for call in commits[:3]] == [FRAMES - 1, FRAMES, FRAMES]
    for call, chunk in zip(commits, chunks):
        assert call.now >= end_of(chunk)
        np.testing.assert_allclose(call.executed, chunk.positions + 0.05, atol=1e-6)


def test_images_that_come_late_are_those_of_their_time():
    stage = Stage()
    stage.camera_delay = 0.06
    seen, see = [], stage.engine.observe
    stage.engine.observe = lambda images: (seen.append(images['head']), see(images))
    chunks = stage.play_chunks(4)
    times = [end_of(chunk) - ns(i * PERIOD)
             for chunk in chunks[:2] for i in reversed(range(len(chunk.positions)))]
    found = [stamp for frame in seen for stamp in frame][:len(times)]
    assert np.abs(np.subtract(found, times)).max() <= SHOW / 2


def test_a_late_chunk_stops_the_arm_smoothly_and_begins_with_its_first_action():
    stage = Stage()
    stage.play_chunks(2)
    stage.engine.seconds = 1.5
    chunks = stage.play_chunks(4)
    for before, after in zip(chunks[1:], chunks[2:]):
        assert after.first_due_ns > end_of(before) + ns(PERIOD)
        rest = [entry for entry in stage.trace
                if end_of(before) <= entry[0] < after.first_due_ns - ns(PERIOD)]
        assert all(not v.any() for _, _, v in rest[1:])
        np.testing.assert_allclose(
            after.positions[0], before.positions[-1] + [0.03, -0.03], atol=1e-9)
    late = sum(after.first_due_ns - ns(PERIOD) - end_of(before)
               for before, after in zip(chunks[1:], chunks[2:]))
    assert abs(stage.starved * TICK - late) < 4 * TICK
    speeds = np.stack([v for _, _, v in stage.trace])
    assert np.abs(np.diff(speeds, axis=0)).max() < 0.1
    # What the cameras showed while the arm rested is in no frame.
    assert all(call.frames == FRAMES for call in stage.engine.named('commit')[1:])


def test_padding_is_measured_as_if_the_model_took_so_long():
    stage = Stage(padded_latency=0.6)
    chunks = stage.play_chunks(6)
    assert all(chunk.inference_seconds > 0.599 for chunk in chunks)
    assert chunks[5].first_due_ns == end_of(chunks[4]) + ns(PERIOD)


def test_a_latency_of_nine_tenths_of_a_chunk_is_hidden():
    stage = Stage(padded_latency=0.9 * CHUNK * PERIOD, reaction=0.035)
    chunks = stage.play_chunks(8)
    for before, after in zip(chunks[2:], chunks[3:]):
        assert after.first_due_ns == end_of(before) + ns(PERIOD)
        assert after.inference_seconds > 0.719


def test_a_first_action_far_off_is_approached_at_the_speed_limit():
    stage = Stage()
    stage.play_chunks(3)
    stage.engine.offset = 0.5
    chunks = stage.play_chunks(5)
    assert chunks[4].first_due_ns == end_of(chunks[3]) + ns(PERIOD)
    speeds = np.stack([v for _, _, v in stage.trace])
    assert np.abs(speeds).max() <= 2.0 + 1e-6
    np.testing.assert_allclose(  # and reached
        chunks[4].positions[-1, 0], chunks[3].positions[-1, 0] + 0.5 + CHUNK * 0.03, atol=1e-6)


def test_a_new_instruction_withdraws_the_chunk_of_the_old_one():
    stage = Stage()
    stage.engine.seconds = 0.1
    stage.play_chunks(1)
    stage.play(lambda: stage.scheduler.episode.following is not None)
    assert stage.engine.named('ahead')[-1].instruction == 'go'
    running = stage.chunks[-1][1]
    stage.scheduler.set_instruction('stop')
    plan, _ = stage.slot.current()
    assert plan.end_ns == end_of(running) and not plan.velocities[-1].any()
    stage.play_chunks(2)
    assert stage.engine.named('ahead')[-1].instruction == 'stop'
    assert stage.chunks[-1][1].first_due_ns == end_of(running) + ns(PERIOD)


def test_an_instruction_stops_a_prediction_ahead_and_it_is_made_again():
    stage = Stage()
    stage.play_chunks(1)
    stage.later(0.1, lambda: stage.requests.ask(
        lambda: stage.scheduler.set_instruction('another')))
    stage.play_chunks(2)
    first, again = stage.engine.named('ahead')[:2]
    assert (first.instruction, first.ended) == ('go', None)
    assert again.instruction == 'another' and again.ended is not None


@pytest.mark.parametrize('reason', ['not_ready', 'taken_by'])
def test_another_owner_of_the_arm_aborts_within_a_denoising_step(reason):
    stage = Stage()
    stage.engine.seconds, stage.engine.steps = 0.5, 10
    chunk = stage.play_chunks(3)[-1]
    stage.play(lambda: stage.now > chunk.first_due_ns)
    starved = stage.starved
    stage.later(0.5, lambda: setattr(stage, reason, 'a wall'))
    stage.play(lambda: stage.scheduler.status.mode == PolicyMode.HOLDING)
    assert stage.scheduler.status.reason == 'a wall'
    assert stage.now - chunk.first_due_ns < ns(0.5 + 0.06 + 0.03)
    commit = stage.engine.named('commit')[-1]
    assert commit.frames == 1 and commit.now == stage.engine.calls[-1].now
    plan, _ = stage.slot.current()
    assert not plan.velocities[-1].any() and plan.end_ns - stage.now < ns(0.2)
    before = len(stage.chunks)
    stage.play(lambda: stage.now > end_of(chunk) + ns(1.0))
    assert len(stage.chunks) == before  # what was predicted ahead never begins
    setattr(stage, reason, None)
    assert stage.starved == starved
    stage.play_chunks(before + 2)


def test_a_camera_that_skips_is_named_and_work_goes_on_when_it_is_back():
    stage = Stage()
    chunk = stage.play_chunks(3)[-1]
    stage.later(0.2, lambda: setattr(stage, 'camera', False))
    stage.later(0.45, lambda: setattr(stage, 'camera', True))
    stage.play(lambda: PolicyMode.HOLDING in stage.modes)
    assert 'camera head' in stage.scheduler.status.reason
    assert stage.now < end_of(chunk)
    stage.play_chunks(5)


@pytest.mark.parametrize('schedule', ['sync', 'async'])
def test_the_neighbor_of_a_bad_image_stands_in_for_it(schedule):
    stage = Stage(schedule)
    stage.is_bad = lambda stamp: stamp // SHOW % 7 == 3
    chunks = stage.play_chunks(12)
    assert PolicyMode.HOLDING not in stage.modes
    assert stage.starved == 0
    due = [chunk.first_due_ns + ns(i * PERIOD) for chunk in chunks[:10]
           for i in range(len(chunk.positions))]
    shown = np.array(stage.converted[1:len(due) + 1])  # the first image begins the episode
    assert not [stamp for stamp in shown if stage.is_bad(stamp)]
    assert np.abs(shown - due).max() <= SHOW
    assert len(stage.refused) > len(due) / 10


def test_where_no_neighbor_is_good_the_arm_rests_and_does_not_tremble():
    stage = Stage('sync')
    # For 0.3 s of every second all images are bad: each chunk of 0.8 s is cut.
    stage.is_bad = lambda stamp: stamp % ns(1.0) < ns(0.3)
    stage.play_chunks(1)
    since, before = stage.now, len(stage.chunks)
    stage.play(lambda: stage.now > since + ns(20.0))
    assert len(stage.chunks) - before <= 12
    reasons = [status.reason for status in stage.events.statuses
               if status.mode == PolicyMode.HOLDING]
    assert any(reason.startswith('camera head: cut off; the arm rests for ') for reason in reasons)
    stage.is_bad = lambda stamp: False
    stage.play_chunks(len(stage.chunks) + 3)


def test_a_request_ends_the_pause_after_a_cut():
    stage = Stage('sync')
    stage.play_chunks(2)
    stage.is_bad = lambda stamp: True
    stage.play(lambda: 'the arm rests' in stage.scheduler.status.reason)
    stage.is_bad = lambda stamp: False
    stage.requests.ask(lambda: stage.scheduler.reset(''))
    asked, before = stage.now, len(stage.chunks)
    stage.play_chunks(before + 1)
    assert stage.chunks[-1][0] < asked + ns(0.4)


def test_after_a_reset_no_chunk_of_the_old_epoch_begins():
    stage = Stage()
    stage.play_chunks(3)
    stage.play(lambda: stage.scheduler.episode.following is not None)
    stage.requests.ask(
        lambda: stage.scheduler.reset(''), first=lambda: stage.slot.stop(new_epoch=True))
    asked = stage.now
    stage.play_chunks(5)
    assert [chunk.epoch for now, chunk in stage.chunks if now > asked] == [2, 2]
    assert [chunk.chunk_id for now, chunk in stage.chunks if now > asked] == [0, 1]


@pytest.mark.parametrize('schedule', ['sync', 'async'])
@pytest.mark.parametrize('moment', np.linspace(0.0, 0.9, 7))
def test_a_storm_of_resets_stops_an_arm_that_trails_at_one_position(schedule, moment):
    stages = []

    def measured():
        """Return where an arm is that trails its commands by 0.25 s: 0.1 rad at 0.4 rad/s."""
        if not stages or not stages[0].trace:
            return np.zeros(JOINTS)
        return stages[0].arm_at(stages[0].now - ns(0.25))[0]

    stage = Stage(schedule, measured=measured, start_tolerance=0.05)
    stages.append(stage)
    stage.engine.speed = 0.4
    stage.play_chunks(3)
    stage.play(lambda: stage.scheduler.episode.running is not None)
    stage.pass_time(moment)
    chunks = len(stage.chunks)
    stage.engine.seconds = 0.4  # no new chunk begins before all has come to rest

    def reset():
        stage.requests.ask(
            lambda: stage.scheduler.reset(''), first=lambda: stage.slot.stop(new_epoch=True))

    reset()
    stop, asked = stage.slot.current()
    for delay in (0.006, 0.012, 0.02, 0.026):
        stage.later(delay, reset)
    end = stage.now + ns(0.03)
    stage.play(lambda: stage.now >= end)
    stage.play(lambda: len(stage.chunks) > chunks)
    began = stage.chunks[chunks][0]
    for now, q, _v in stage.trace:
        if asked <= now < began:
            np.testing.assert_allclose(q, stop.sample(now)[0], atol=1e-3)
    # It brakes within its limits, and rests from the moment that these allow.
    fastest = float(np.max(np.abs(stop.velocities[0]) / LIMITS.acceleration))
    assert stop.end_ns <= asked + ns(fastest) + TICK


def test_an_arm_that_stays_away_from_its_plan_counts_as_moved():
    stage = Stage('sync', measured=lambda: np.full(JOINTS, 0.2), start_tolerance=0.05)
    stage.engine.speed = 0.0
    stage.scheduler.set_instruction('')
    stage.play(lambda: stage.slot.current()[0] is not None)
    stage.slot.put(resting_at(stage.now, np.zeros(JOINTS)), stage.slot.epoch)
    asked = stage.now
    stage.play(lambda: stage.slot.current()[0].positions[-1][0] == 0.2)
    assert ns(0.5) <= stage.now - asked < ns(0.6)
    stage.slot.put(resting_at(stage.now, np.zeros(JOINTS)), stage.slot.epoch)
    stage.taken_by = 'control_mode is TELEOP'
    asked = stage.now
    stage.play(lambda: stage.slot.current()[0].positions[-1][0] == 0.2)
    assert stage.now - asked < ns(0.1)


def test_a_pose_that_cannot_be_taken_ahead_is_decided_when_the_chunk_has_been_seen():
    refusing = []

    def to_joints(actions, start):
        if refusing:
            raise NotExecutable('too far')
        return actions

    stage = Stage(action_map=PlainActionMap(to_joints=to_joints))
    stage.play_chunks(2)
    refusing.append(True)
    commits = len(stage.engine.named('commit'))
    stage.play(lambda: stage.scheduler.status.mode == PolicyMode.HOLDING)
    assert stage.scheduler.status.reason == 'too far'
    assert len(stage.engine.named('commit')) >= commits + 1
    assert stage.engine.calls[-1].name == 'predict'


def test_without_executed_commands_the_chunk_ahead_is_truncated_too():
    stage = Stage()
    stage.play_chunks(3)
    stage.executed.add = lambda stamp, row: None
    stage.play(lambda: stage.engine.calls[-1].name == 'drop_observed')
    plan, _ = stage.slot.current()
    assert not plan.velocities[-1].any() and plan.end_ns - stage.now < ns(0.2)


def test_the_ablation_keeps_the_last_chunk_after_every_commit():
    stage = Stage(last_chunk_only=True)
    stage.play_chunks(4)
    names = [call.name for call in stage.engine.named('commit', 'rebuild_from_last_chunk')]
    assert names[:4] == ['commit', 'rebuild_from_last_chunk'] * 2


def test_in_the_schedule_sync_nothing_is_predicted_ahead():
    stage = Stage('sync')
    chunks = stage.play_chunks(3)
    assert not stage.engine.named('ahead') and stage.starved == 0
    assert all(after.first_due_ns > end_of(before) + ns(PERIOD)
               for before, after in zip(chunks, chunks[1:]))


# Snapshots


def test_saving_leaves_a_prediction_to_go_on():
    stage = Stage()
    stage.play_chunks(3)
    frames = []
    stage.later(0.1, lambda: frames.append(
        stage.requests.ask(lambda: stage.scheduler.save('here'), interrupts=False)))
    before = len(stage.engine.named('ahead', 'predict'))
    stage.play(lambda: frames and frames[0].done())
    stage.play_chunks(5)
    assert frames[0].result() > 0
    calls = stage.engine.named('ahead', 'predict')[before:]
    assert all(call.ended is not None for call in calls[:-1])


def test_a_snapshot_has_the_observed_frames_of_the_running_chunk():
    stage = Stage()
    stage.play_chunks(3)
    stage.play(lambda: len(stage.engine.seen) == 1)
    chunks, frames = stage.engine.chunks, stage.scheduler.save('here')
    assert frames == stage.engine.memory_frames + 1
    stage.play_chunks(5)
    stage.taken_by = 'HOLD'
    stage.play(lambda: stage.scheduler.status.mode == PolicyMode.HOLDING)
    stage.scheduler.restore('here')
    assert stage.slot.epoch == 2
    assert stage.engine.calls[-1].name == 'commit' and stage.engine.calls[-1].frames == 1
    assert stage.engine.chunks == chunks + 1
    stage.taken_by = None
    told = len(stage.chunks)
    assert stage.play_chunks(told + 1)[-1].chunk_id == 0


@pytest.mark.parametrize('name, words', [
    ('', 'expected 1 to 64'), ('a b', "name 'a b'"), ('x' * 65, 'expected 1 to 64')])
def test_a_name_that_is_none_is_refused(name, words):
    with pytest.raises(ValueError, match=words):
        Stage().scheduler.save(name)


def test_one_snapshot_too_many_is_rejected_with_the_saved_names():
    stage = Stage()
    stage.scheduler.save('one')
    stage.scheduler.save('two')
    stage.scheduler.save('one')
    with pytest.raises(ValueError, match='max_snapshots 2.*one, two'):
        stage.scheduler.save('three')
    with pytest.raises(ValueError, match='no snapshot .*one, two'):
        stage.scheduler.restore('three')
    assert stage.slot.epoch == 1


# Tasks


def begin(stage, **goal):
    task = Task('wipe', **goal)
    stage.requests.ask(
        lambda: stage.scheduler.begin_task(task),
        first=(lambda: None) if task.keep_memory else (lambda: stage.slot.stop(new_epoch=True)))
    stage.play(lambda: stage.scheduler._assignment.task is task)
    return task


def ended(stage, task):
    stage.play(task.result.done)
    outcome, _ = task.result.result()
    assert stage.scheduler.status.mode == PolicyMode.IDLE
    assert outcome.name in stage.scheduler.status.reason
    assert not stage.slot.current()[0].velocities[-1].any()
    return outcome


@pytest.mark.parametrize('schedule', ['sync', 'async'])
def test_a_task_ends_after_its_chunks_and_the_policy_rests(schedule):
    stage = Stage(schedule)
    stage.play_chunks(2)
    before = len(stage.chunks)
    task = begin(stage, max_chunks=3)
    assert stage.slot.epoch == 2
    assert ended(stage, task) == Outcome.CHUNK_LIMIT
    told = [chunk for _, chunk in stage.chunks if chunk.epoch == 2]
    assert task.chunks == 3 and [chunk.chunk_id for chunk in told] == [0, 1, 2]
    assert stage.starved == 0 and len(stage.chunks) - before in (3, 4)
    stage.play(lambda: stage.now > end_of(told[-1]) + ns(3.0))
    assert stage.chunks[-1][1] is told[-1]
    stage.scheduler.set_instruction('go on')
    stage.play_chunks(len(stage.chunks) + 1)
    assert stage.chunks[-1][1].epoch == 2  # remembered


def test_a_task_ends_when_its_time_is_over_also_within_a_prediction():
    stage = Stage('sync')
    stage.engine.seconds, stage.engine.steps = 20.0, 200
    began = stage.now
    task = begin(stage, timeout=2.0)
    assert ended(stage, task) == Outcome.TIMEOUT
    assert 2.0 <= task.seconds < 2.3 and stage.now - began < ns(2.5)


def test_a_clock_that_jumps_back_takes_no_time_from_a_task():
    task = Task('wipe', timeout=2.0)
    assert task.update(ns(100.0), None) is None and task.update(ns(101.5), None) is None
    assert task.update(ns(10.0), None) is None and task.seconds == 1.5
    assert task.update(ns(10.5), None)[0] == Outcome.TIMEOUT


def test_a_newer_task_replaces_one_and_both_get_results():
    stage = Stage()
    first = begin(stage)
    stage.play_chunks(2)
    second = begin(stage, keep_memory=True, max_chunks=1)
    assert first.result.result()[0] == Outcome.PREEMPTED
    assert stage.engine.named('commit') and stage.slot.epoch == 2
    assert ended(stage, second) == Outcome.CHUNK_LIMIT


def test_a_task_waits_for_the_arm_and_ends_when_it_is_taken_away():
    stage = Stage()
    stage.taken_by = 'control_mode is HOLD'
    task = begin(stage)
    stage.play(lambda: stage.scheduler.status.reason == stage.taken_by)
    stage.taken_by = None
    stage.play_chunks(2)
    stage.taken_by = 'control_mode is STOPPED'
    assert ended(stage, task) == Outcome.STOPPED
    assert 'STOPPED' in task.result.result()[1]


def test_a_cancelled_task_stops_and_keeps_complete_chunks():
    stage = Stage()
    task = begin(stage)
    chunk = stage.play_chunks(2)[-1]
    stage.play(lambda: stage.now > chunk.first_due_ns + ns(0.5))
    stage.requests.ask(lambda: stage.scheduler.cancel_task(task))
    assert ended(stage, task) == Outcome.CANCELED
    assert stage.engine.named('commit')[-1].frames == 1


def test_after_a_task_neither_a_reset_nor_a_load_begins_motion():
    stage = Stage()
    stage.scheduler.save('here')
    ended(stage, begin(stage, max_chunks=1))
    told = len(stage.chunks)
    stage.scheduler.restore('here')
    stage.requests.ask(lambda: stage.scheduler.reset('go on'))
    until = stage.now + ns(3.0)
    stage.play(lambda: stage.now > until)
    assert len(stage.chunks) == told and stage.scheduler.status.mode == PolicyMode.IDLE


def test_a_set_instruction_takes_the_place_of_a_task():
    stage = Stage()
    task = begin(stage)
    stage.play_chunks(1)
    stage.scheduler.set_instruction('something else')
    assert task.result.result()[0] == Outcome.PREEMPTED
    stage.play_chunks(2)
    assert stage.scheduler.status.instruction == 'something else'


def test_a_task_ends_with_the_activity():
    stage = Stage()
    task = begin(stage)
    stage.play_chunks(1)
    stage.scheduler.stop('inactive')
    assert task.result.result() == (Outcome.STOPPED, 'inactive')
    with pytest.raises(ValueError, match='inactive'):
        stage.scheduler.begin_task(Task('more'))


# Instructions without a word


@pytest.mark.parametrize('blank', ['', ' ', '\n', ' \t\r\n ', '\u3000'])
def test_an_instruction_of_blanks_alone_is_an_empty_one(blank):
    stage = Stage()
    stage.play_chunks(1)
    stage.scheduler.set_instruction(blank)
    stage.play(lambda: stage.scheduler.status.mode == PolicyMode.WAITING)
    assert stage.scheduler.status.instruction == '' and stage.engine.instruction == 'go'
    with pytest.raises(ValueError, match='no instruction'):
        stage.scheduler.begin_task(Task(blank))
    stage.scheduler.set_instruction('wipe')
    stage.scheduler.reset(blank)
    assert stage.scheduler.status.instruction == 'wipe'
    task = Task(blank, keep_memory=True)
    stage.scheduler.begin_task(task)
    assert task.instruction == 'wipe'
    stage.scheduler.stop('inactive')
    stage.scheduler.start(stage.scheduler.episode.robot, stage.settings, blank)
    stage.play(lambda: stage.scheduler.status.mode == PolicyMode.WAITING)


def test_blanks_around_words_stay():
    stage = Stage()
    stage.scheduler.set_instruction(' wipe\n')
    assert stage.scheduler.status.instruction == ' wipe\n'


# Text that takes a while to be encoded


def slow_text(stage, seconds=40.0):
    stage.engine.text_seconds = seconds
    return stage


def reported(stage, part):
    return [status for status in stage.events.statuses if part in status.reason]


@pytest.mark.parametrize('schedule', ['sync', 'async'])
def test_a_text_is_encoded_at_rest_and_the_status_says_so(schedule):
    stage = slow_text(Stage(schedule))
    stage.play_chunks(3)
    frames, epoch = stage.engine.memory_frames, stage.slot.epoch
    stage.scheduler.set_instruction('another')
    answer = stage.scheduler.encoded()
    assert stage.scheduler.status.instruction == 'another' and not answer.done()
    stage.play(lambda: stage.engine.instruction == 'another')
    said, = reported(stage, "encoding the instruction 'another'")
    assert said.mode == PolicyMode.WAITING and answer.result(0) is None
    encoded = stage.engine.named('encode')[-1]
    began, chunk = [entry for entry in stage.chunks if entry[0] < encoded.now][-1]
    assert encoded.now >= end_of(chunk)  # every chunk on its way was seen and committed before
    assert stage.engine.memory_frames > frames and stage.slot.epoch == epoch
    stage.play_chunks(len(stage.chunks) + 2)
    assert not stage.starved
    assert {call.instruction for call in stage.engine.named('predict', 'ahead')
            if call.now > encoded.now} == {'another'}
    assert all(PolicyMode.HOLDING != mode for mode in stage.modes)


def test_a_text_is_encoded_in_hold_and_the_status_says_both():
    stage = slow_text(Stage())
    stage.play_chunks(1)
    stage.taken_by = 'control_mode is HOLD'
    stage.play(lambda: stage.scheduler.status.mode == PolicyMode.HOLDING)
    stage.scheduler.set_instruction('another')
    stage.play(lambda: stage.engine.instruction == 'another')
    said, = reported(stage, "'another'")
    assert said.mode == PolicyMode.HOLDING
    assert said.reason == "control_mode is HOLD; encoding the instruction 'another'"


def test_of_several_texts_only_the_last_is_encoded_and_all_are_answered():
    stage = slow_text(Stage())
    stage.play_chunks(1)
    answers = []
    for text in ('one', 'two', 'three'):
        stage.scheduler.set_instruction(text)
        answers.append(stage.scheduler.encoded())
    stage.play(lambda: stage.engine.instruction == 'three')
    assert [call.text for call in stage.engine.named('encode')] == ['go', 'three']
    assert all(answer.result(0) is None for answer in answers)


def test_a_text_that_cannot_be_encoded_leaves_the_one_before():
    stage = slow_text(Stage())
    stage.play_chunks(1)
    stage.engine.unreadable = 'bad'
    stage.scheduler.set_instruction('bad')
    answer = stage.scheduler.encoded()
    stage.play(answer.done)
    assert isinstance(answer.exception(0), ValueError)
    assert stage.scheduler.status.instruction == 'go'
    stage.play_chunks(len(stage.chunks) + 1)
    assert stage.engine.named('predict')[-1].instruction == 'go'


def test_an_unreadable_text_does_not_bring_a_finished_task_back():
    stage = slow_text(Stage())
    stage.play_chunks(1)
    stage.scheduler.set_instruction('')
    stage.play(lambda: stage.scheduler.status.mode == PolicyMode.WAITING)
    stage.engine.unreadable = 'bad'
    stage.scheduler.set_instruction('bad')
    stage.play(stage.scheduler.encoded().done)
    assert stage.scheduler.status.instruction == ''
    chunks = len(stage.chunks)
    stage.play(lambda: stage.scheduler.status.reason == 'no instruction')
    assert len(stage.chunks) == chunks


def test_a_task_whose_text_cannot_be_encoded_ends_with_a_fault():
    stage = slow_text(Stage())
    stage.play_chunks(1)
    stage.engine.unreadable = 'bad'
    task = Task('bad')
    stage.scheduler.begin_task(task)
    assert ended(stage, task) == Outcome.FAULT
    _, message = task.result.result()
    assert 'cannot be encoded: no such text' in message
    assert stage.scheduler.status.mode == PolicyMode.IDLE


def test_once_encoding_was_quick_a_text_is_encoded_while_the_arm_moves():
    stage = slow_text(Stage(), 0.1)
    stage.play_chunks(2)
    stage.scheduler.set_instruction('first')
    stage.play(lambda: stage.engine.instruction == 'first')
    stage.play_chunks(len(stage.chunks) + 2)
    stage.scheduler.set_instruction('second')
    asked = stage.now
    stage.play(lambda: stage.engine.instruction == 'second')
    assert stage.now < asked + ns(0.3)
    assert not reported(stage, "'second'")


def test_an_inactive_policy_encodes_its_text_too():
    stage = slow_text(Stage())
    stage.play_chunks(1)
    stage.scheduler.stop('inactive')
    stage.scheduler.set_instruction('another')
    assert stage.scheduler.encode_waiting() and not stage.scheduler.encode_waiting()
    assert stage.engine.instruction == 'another'


class Deferred:
    """Keeps work until `finish`, as if another thread took that long."""

    def __init__(self):
        self.texts = []

    def __call__(self, work):
        self.texts.append((work, Future()))
        return self.texts[-1][1]

    def finish(self):
        work, future = self.texts[-1]
        work()
        future.set_result(None)


def encoding_another(chunks):
    """Return a stage after so many chunks that encodes the text 'another', and the encodings."""
    aside = Deferred()
    stage = Stage(aside=aside)
    stage.play_chunks(chunks)
    slow_text(stage)
    stage.scheduler.set_instruction('another')
    stage.play(lambda: aside.texts)
    return stage, aside


def test_while_a_text_is_encoded_requests_are_served_and_nothing_is_predicted():
    stage, aside = encoding_another(2)
    predicted, now = len(stage.engine.named('predict', 'ahead')), stage.now
    stage.play(lambda: stage.now > now + ns(2.0))
    assert stage.scheduler.status.reason == "encoding the instruction 'another'"
    assert stage.scheduler.reset('') > 0 and stage.engine.memory_frames == 0
    stage.scheduler.set_instruction('go')  # whose text is known, but the device is in use
    now = stage.now
    stage.play(lambda: stage.now > now + ns(1.0))
    stage.scheduler.stop('inactive')
    assert stage.scheduler.status.reason == 'inactive'
    stage.scheduler.set_instruction('third')
    assert stage.scheduler.encode_waiting() and len(aside.texts) == 1
    assert len(stage.engine.named('predict', 'ahead')) == predicted
    aside.finish()
    assert stage.engine.instruction == 'go'
    assert stage.scheduler.encode_waiting()  # the end of the first is noticed
    assert stage.scheduler.encode_waiting() and len(aside.texts) == 2
    aside.finish()
    assert stage.scheduler.encode_waiting() and not stage.scheduler.encode_waiting()
    assert stage.engine.instruction == 'third'


def test_a_chunk_on_its_way_is_followed_while_a_text_that_should_be_quick_is_not():
    aside = Deferred()
    stage = Stage(aside=aside)
    stage.play_chunks(2)
    slow_text(stage, 0.1)
    stage.scheduler.set_instruction('first')
    stage.play(lambda: aside.texts)
    aside.finish()  # in no time
    stage.play_chunks(len(stage.chunks) + 2)
    assert stage.engine.instruction == 'first'
    stage.play(lambda: stage.scheduler.episode.running is not None)
    stage.scheduler.set_instruction('second')
    stage.play(lambda: len(aside.texts) == 2)
    frames, chunks = stage.engine.memory_frames, len(stage.chunks)
    stage.play(lambda: reported(stage, "encoding the instruction 'second'"))
    assert stage.engine.memory_frames > frames and len(stage.chunks) == chunks
    aside.finish()
    stage.play_chunks(chunks + 1)
    assert stage.engine.named('predict')[-1].instruction == 'second'
    assert not [status for status in stage.events.statuses if 'camera' in status.reason]


def test_an_engine_that_is_released_is_not_in_use_by_an_encoding():
    stage, aside = encoding_another(1)
    threading.Timer(0.05, aside.finish).start()
    stage.scheduler.unload()
    assert aside.texts[0][1].done() and stage.scheduler.engine is None


# A clock that steps


def step_clock(stage, seconds):
    """Set the clock, and do what the node does when it notices."""
    stage.now += ns(seconds)
    stage.set_by += ns(seconds)
    stage.buffer.clear()
    stage.executed.clear()
    stage.slot.clear()

    def restart():
        stage.scheduler.restart_time(ns(seconds))
        if seconds < 0:
            stage.scheduler.reset('')

    stage.requests.ask(
        restart, first=lambda: seconds < 0 and stage.slot.stop(new_epoch=True))


@pytest.mark.parametrize('schedule', ['sync', 'async', 'async_ungrounded'])
@pytest.mark.parametrize('steps', [
    (-600.0,), (-8.0,), (-1.5,), (5.0,), (-8.0, -8.0), (5.0, 5.0), (-1.5, 5.0), (5.0, -1.5)])
def test_after_a_step_of_the_clock_chunks_begin_with_images_of_the_new_time(schedule, steps):
    stage = Stage(schedule)
    stage.play_chunks(3)
    stage.play(lambda: stage.scheduler.episode.running is not None)
    stage.pass_time(0.05)
    frames = stage.engine.memory_frames
    for step in steps:
        step_clock(stage, step)
        stepped = stage.now
        stage.pass_time(0.01)
    before = len(stage.chunks)
    stage.play(lambda: len(stage.chunks) >= before + 3, 10.0)
    back = sum(step < 0 for step in steps)
    assert stage.slot.epoch == 1 + back
    for began, chunk in stage.chunks[before:]:
        assert chunk.epoch == stage.slot.epoch
        assert stepped <= chunk.first_due_ns and chunk.observation_ns <= began
        assert chunk.inference_seconds < 1.0
        assert began - chunk.observation_ns < ns(3.0)  # by the clock of now
    # After a clock that went forward the memory holds; else an image begins the episode.
    seen = [chunk.observation_ns >= stepped for _, chunk in stage.chunks[before:]]
    assert seen == ([True] * 3 if back else [False, True, True])
    assert stage.chunks[before][1].chunk_id == (0 if back else 3)
    assert not [status for status in stage.events.statuses if 'nearest image' in status.reason]
    if not back:
        assert stage.engine.memory_frames >= frames


@pytest.mark.parametrize('step', [-8.0, 5.0])
def test_a_step_during_a_prediction_lets_no_chunk_of_the_old_time_begin(step):
    stage = Stage('async')
    stage.engine.seconds = 1.0
    stage.play_chunks(2)
    stage.play(lambda: stage.engine.named('ahead') and stage.engine.named('ahead')[-1].ended)
    stage.later(0.5, lambda: step_clock(stage, step))
    stage.play(lambda: stage.set_by)
    before = len(stage.chunks)
    stage.play(lambda: len(stage.chunks) >= before + 3, 20.0)
    for began, chunk in stage.chunks[before:]:
        assert abs(chunk.first_due_ns - began) < ns(1.0)
        assert chunk.epoch == stage.slot.epoch or step > 0
