"""A closed-loop episode in virtual time, with random weights on the table."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lingbot_va_ros.evaluation import rollout, tasks
from lingbot_va_ros.evaluation.rollout import run_episode
from lingbot_va_ros.evaluation.smoothness import CONTROL_PERIOD, Smoothness
from lingbot_va_ros.policy.inference.engine import Chunk
from lingbot_va_ros.policy.inference.load import EngineConfig, load_engine
from lingbot_va_ros.robot.action_map import JointActionMap, make_action_map
from lingbot_va_ros.robot.poses import PoseError
from lingbot_va_ros.sim.experts import drive, make_expert
from lingbot_va_ros.sim.simulation import Simulation
from lingbot_va_ros.specs.policy_file import load_policy_file

torch.set_num_threads(1)
CHECKOUT = Path(__file__).resolve().parents[2]
CHUNK = 1.6  # seconds of a chunk of the untrained policy; its first one has half of that


@pytest.fixture(scope='module')
def engine(untrained_checkpoint):
    policy = load_policy_file(untrained_checkpoint / 'policy.yaml')
    # One step each: what is predicted means nothing anyway.
    return load_engine(EngineConfig.of_policy(
        untrained_checkpoint, policy, video=replace(policy.video, steps=1),
        action=replace(policy.action, steps=1), warm_up=False, imagine_steps=1))


@pytest.fixture(scope='module')
def table():
    simulation = Simulation('table', 'left', 0, 64, 64)
    yield simulation
    simulation.close()


def episode(engine, table, seed=3, max_chunks=3, **options):
    return run_episode(
        engine, 'table', seed, max_chunks=max_chunks, simulation=table, **options)


def test_consecutive_chunks_are_all_committed(engine, table):
    result = episode(engine, table)
    assert (result.chunks, result.ended_by) == (3, 'chunk limit')
    # The first way is a long one: from home to random positions.
    assert 2.5 * CHUNK <= result.seconds + 1e-9 < 2.5 * CHUNK + 0.5
    assert engine.session.frame == 6
    assert len(result.inference_seconds) == 3 and min(result.inference_seconds) > 0
    assert result.starved_ticks == 0


def test_the_same_seed_gives_the_same_memory_and_another_seed_another(engine, table):
    def memory(seed):
        episode(engine, table, seed, max_chunks=2)
        memory = engine.session.kv_cache
        return memory.keys[:, :, memory.start:memory.end].clone()

    first, again, other = memory(3), memory(3), memory(4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_arm_rests_for_the_latency_before_every_chunk(engine, table):
    without, with_latency = episode(engine, table), episode(engine, table, latency_chunks=0.5)
    assert with_latency.seconds - without.seconds == pytest.approx(3 * 0.5 * CHUNK, abs=0.07)


def test_a_task_has_a_limit_of_its_own(engine, table, monkeypatch):
    monkeypatch.setitem(tasks.MOTION_LIMITS, 'table', 1.5 * CHUNK)
    assert episode(engine, table, max_chunks=None).chunks == 2


def test_the_time_limit_ends_an_episode(engine, table):
    result = episode(engine, table, max_chunks=None, time_limit=0.6)
    assert (result.chunks, result.ended_by) == (1, 'time limit')
    assert result.seconds == pytest.approx(0.6, abs=0.021)
    assert not result.success and not result.done


def test_a_reset_midway_clears_the_memory(engine, table):
    episode(engine, table, max_chunks=6, memory='reset_midway')
    assert engine.session.frame == 2  # after five chunks the sixth began anew


def test_last_chunk_keeps_no_more(engine, table):
    episode(engine, table, max_chunks=3, memory='last_chunk')
    assert (engine.session.frame, engine.memory_frames) == (6, 2)


@pytest.mark.parametrize('schedule', ['async', 'async_ungrounded'])
def test_an_asynchronous_chunk_begins_where_the_one_before_ends(engine, table, schedule):
    result = episode(engine, table, schedule=schedule, latency_chunks=0.4)
    assert (result.chunks, result.starved_ticks, engine.session.frame) == (3, 0, 6)
    without_latency = result.seconds - 0.4 * CHUNK  # before the first motion it has to wait
    assert 2.5 * CHUNK <= without_latency + 1e-9 < 2.5 * CHUNK + 0.5


def test_the_arm_rests_between_chunks_in_sync_only(engine, table, monkeypatch):
    rests = []

    def longest_rest(times, positions, seams):
        """Return as step the longest time that no joint is sent anywhere within a seam."""
        still = np.append(np.abs(np.diff(positions, axis=0)).max(1) < 1e-9, False)
        inside = np.array([any(begin < time < end for begin, end in seams) for time in times])
        runs = ''.join('x' if rest else ' ' for rest in still & inside).split()
        rests.append(max(map(len, runs), default=0) * 0.02)
        return Smoothness()

    monkeypatch.setattr(rollout, 'measure_smoothness', longest_rest)
    for schedule in ('sync', 'async'):
        episode(engine, table, schedule=schedule, latency_chunks=0.4)
    seams_of_sync, _, seams_of_async, _ = rests  # the others are those of the whole motion
    assert seams_of_sync > 0.2
    assert seams_of_async <= 0.021


def test_a_latency_beyond_a_chunk_starves_the_arm(engine, table):
    result = episode(engine, table, schedule='async', latency_chunks=1.5)
    # Three predictions, one after the other, and the last chunk's motion.
    assert result.seconds == pytest.approx((3 * 1.5 + 1) * CHUNK, abs=0.06)
    assert result.starved_ticks * 0.02 > 0.9 * CHUNK


def test_a_whole_chunk_of_latency_starves_nothing_behind_the_first_chunk(engine, table):
    """The first one has half of the actions, and so starves the arm for up to half a chunk."""
    shorter, longer = (episode(
        engine, table, schedule='async', latency_chunks=1.0, max_chunks=count)
        for count in (2, 5))
    assert shorter.starved_ticks == longer.starved_ticks
    assert 0 < shorter.starved_ticks * 0.02 < 0.5 * CHUNK + 0.03
    assert longer.seconds == pytest.approx(6 * CHUNK, abs=0.2)


def test_asynchronous_is_much_faster_where_predictions_take_long(engine, table):
    """N chunks take (1.9 N - 0.5) chunk lengths in turns and (N + 0.8) ahead."""
    seconds = {
        schedule: episode(
            engine, table, schedule=schedule, latency_chunks=0.9, max_chunks=8).seconds
        for schedule in ('sync', 'async')}
    assert seconds['sync'] == pytest.approx((1.9 * 8 - 0.5) * CHUNK, abs=0.5)
    assert seconds['async'] == pytest.approx(8.8 * CHUNK, abs=0.1)


@pytest.mark.parametrize('memory', ['last_chunk', 'reset_midway'])
def test_ablations_go_with_the_asynchronous_schedule(engine, table, memory):
    result = episode(engine, table, schedule='async', memory=memory, max_chunks=6)
    assert result.chunks == 6
    assert engine.memory_frames == 2


@pytest.mark.parametrize('schedule', ['sync', 'async'])
def test_an_episode_can_be_repeated(engine, table, schedule):
    first, again = (episode(
        engine, table, schedule=schedule, latency_chunks=0.3, max_chunks=2) for _ in range(2))
    assert (first.seconds, first.seams) == (again.seconds, again.seams)


class Replay:
    """Stands for an engine that knows what to do: it predicts what the expert does."""

    def __init__(self, task, seed):
        self.policy = load_policy_file(CHECKOUT / 'config' / 'policies' / 'tiny.yaml')
        self.keep_images, self.instruction = (lambda keeps: None), None
        self.knows_instruction = lambda instruction: True
        self.graph_recordings = 0
        self.began = False
        self.memory_frames = self.memory_capacity = 0
        self._done = 0
        with closing(Simulation(task, 'left', seed, 64, 64)) as simulation:
            expert = make_expert(simulation, np.random.default_rng(seed))
            commands = []
            while not expert.finished:
                commands.append(np.array(expert.act()))
                drive(simulation, commands[-1])
            actions = make_action_map(simulation.embodiment, self.policy)
        self._actions = actions.from_joints(np.array(commands))

    def set_instruction(self, instruction):
        assert instruction
        self.instruction = instruction

    def reset(self):
        self.began, self._done = False, 0

    def begin_episode(self, images):
        assert set(images) == set(self.policy.cameras)

    def observe(self, images):
        assert all(len(four) == 4 for four in images.values())

    def predict(self, interrupt):
        interrupt.check()
        count = self.policy.actions_per_frame * (
            self.policy.frames_per_chunk - (self._done == 0))
        wanted = np.arange(self._done, self._done + count).clip(max=len(self._actions) - 1)
        self._done += count
        return Chunk(self._actions[wanted], None)

    def predict_ahead(self, executing, grounded, interrupt):
        assert np.isfinite(executing).all()
        return self.predict(interrupt)

    def commit(self, executed):
        self.began = True


@pytest.mark.parametrize('task, schedule, latency', [
    ('wipe_plate', 'sync', 0.0), ('open_boxes', 'async', 0.6)])
def test_a_policy_that_repeats_the_expert_succeeds(task, schedule, latency):
    result = run_episode(Replay(task, 5), task, 5, schedule, latency_chunks=latency)
    assert result.success and result.done, result.detail
    assert result.ended_by == 'done'
    assert result.detail


@pytest.mark.parametrize('task, schedule, speed', [
    ('wipe_plate', 'sync', 0.25), ('open_boxes', 'async', 0.5)])
def test_a_slower_path_is_the_same_path(task, schedule, speed):
    full, slow = (
        run_episode(Replay(task, 5), task, 5, schedule, speed=scale) for scale in (1.0, speed))
    assert slow.success and slow.counts == full.counts
    assert abs(slow.chunks - full.chunks) <= 1
    assert slow.motion.step < 1.1 * speed * full.motion.step
    assert slow.seconds > 0.8 * full.seconds / speed


@pytest.mark.parametrize('speed', [0.0, 1.5, float('nan')])
def test_a_speed_that_is_no_scale_is_refused(engine, table, speed):
    with pytest.raises(ValueError, match='above 0 and at most 1'):
        episode(engine, table, speed=speed)


def test_chunks_beyond_the_velocity_limits_are_slowed_down_as_a_whole():
    task = 'wipe_plate'
    policy = Replay(task, 5)
    simulation = Simulation(task, 'left', 5, 64, 64)
    try:
        limits = simulation.embodiment.limits
        grippers = np.isin(simulation.joints, [
            arm.gripper.joint for arm in simulation.embodiment.arms if arm.gripper])
        low = np.where(grippers, limits.velocity, 0.1 * limits.velocity)
        simulation.embodiment = replace(
            simulation.embodiment, limits=replace(limits, velocity=low))
        result = run_episode(policy, task, 5, simulation=simulation)
    finally:
        simulation.close()
    assert result.success, result.detail
    assert result.motion.step <= low[~grippers].max() * CONTROL_PERIOD * 1.001


@pytest.fixture
def refuse(monkeypatch):
    """Let the arm refuse some of the chunks, counted from 0 in the order of their conversion."""
    to_joints, calls = JointActionMap.to_joints, []

    def refuse(refused):
        def convert(self, actions, start=None):
            calls.append(actions)
            if refused(len(calls) - 1):
                raise PoseError('out of reach')
            return to_joints(self, actions, start)

        monkeypatch.setattr(JointActionMap, 'to_joints', convert)

    return refuse


@pytest.mark.parametrize('schedule', ['sync', 'async'])
def test_a_chunk_that_the_arm_cannot_take_ends_the_episode(engine, table, refuse, schedule):
    refuse(lambda number: number > 0)
    result = episode(engine, table, schedule=schedule)
    assert (result.chunks, result.ended_by) == (1, 'not executable: out of reach')


def test_a_refused_chunk_that_was_predicted_ahead_is_predicted_again_from_rest(
    engine, table, refuse,
):
    refuse(lambda number: number == 1)
    result = episode(engine, table, schedule='async')
    assert (result.chunks, result.ended_by) == (3, 'chunk limit')
    assert len(result.inference_seconds) == 4


@pytest.mark.parametrize('options, named', [
    ({'schedule': 'later'}, 'schedule'), ({'memory': 'none'}, 'memory'),
    ({'latency_chunks': -1}, 'latency_chunks')])
def test_unknown_names_are_reported(engine, table, options, named):
    with pytest.raises(ValueError, match=named):
        episode(engine, table, **options)
