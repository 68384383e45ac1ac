"""A closed-loop episode in virtual time, with random weights on the table."""

import pytest
import torch

from lingbot_va_ros.policy.engine import load_engine
from lingbot_va_ros.policy.policy_file import load_policy_file
from lingbot_va_ros.sim.simulation import Simulation
from lingbot_va_ros.training.rollout import run_episode

torch.set_num_threads(1)
CHUNK = 1.6  # seconds of a chunk of the untrained policy; its first one has half of that
PERIOD = 0.1  # between two actions, and at least that from rest to the first one


@pytest.fixture(scope='module')
def engine(untrained_checkpoint):
    policy = load_policy_file(untrained_checkpoint / 'policy.yaml')
    return load_engine(
        untrained_checkpoint, policy, policy.video, policy.action, policy.memory_chunks, 0,
        torch.device('cpu'), torch.float32, lambda line: None, warm_up=False)


@pytest.fixture(scope='module')
def table():
    simulation = Simulation('table', 'left', 0, 64, 64)
    yield simulation
    simulation.close()


def episode(engine, table, seed=3, max_chunks=3, **options):
    return run_episode(
        engine, 'table', seed, max_chunks=max_chunks, simulation=table, **options)


def test_chunks_follow_each_other_and_all_are_remembered(engine, table):
    result = episode(engine, table)
    assert (result.chunks, result.ended_by) == (3, 'chunk limit')
    # The first way is a long one: from home to random positions.
    assert 2.5 * CHUNK + 3 * PERIOD <= result.seconds + 1e-9 < 2.5 * CHUNK + 3 * PERIOD + 0.5
    assert engine.session.frame == 6
    assert len(result.inference_seconds) == 3 and min(result.inference_seconds) > 0
    assert result.starved_ticks == 0


def test_the_same_seed_gives_the_same_memory_and_another_seed_another(engine, table):
    def memory(seed):
        episode(engine, table, seed, max_chunks=2)
        memory = engine.session.memory
        return memory.keys[:, :, memory.start:memory.end].clone()

    first, again, other = memory(3), memory(3), memory(4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_arm_rests_for_the_latency_before_every_chunk(engine, table):
    without, with_latency = episode(engine, table), episode(engine, table, latency_chunks=0.5)
    assert with_latency.seconds - without.seconds == pytest.approx(3 * 0.5 * CHUNK, abs=0.07)


def test_the_time_limit_ends_an_episode(engine, table):
    result = episode(engine, table, max_chunks=None, time_limit=0.6)
    assert (result.chunks, result.ended_by) == (1, 'time limit')
    assert result.seconds == pytest.approx(0.6, abs=0.021)
    assert not result.success and not result.done


def test_a_reset_midway_forgets_what_was_before(engine, table):
    episode(engine, table, max_chunks=6, memory='reset_midway')
    assert engine.session.frame == 2  # after five chunks the sixth began anew


@pytest.mark.parametrize('options, named', [
    ({'schedule': 'later'}, 'schedule'), ({'memory': 'none'}, 'memory'),
    ({'latency_chunks': -1}, 'latency_chunks')])
def test_what_is_unknown_is_named(engine, table, options, named):
    with pytest.raises(ValueError, match=named):
        episode(engine, table, **options)
