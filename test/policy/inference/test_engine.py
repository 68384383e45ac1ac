"""A loaded checkpoint with one episode: images and executed actions in, chunks out."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lingbot_va_ros.policy.errors import PredictionAborted
from lingbot_va_ros.policy.inference.load import EngineConfig, load_engine
from lingbot_va_ros.specs.errors import CheckpointError

CPU = torch.device('cpu')
N, USED = 8, 7  # actions a frame and used channels of the untrained policy


def make_engine(checkpoint, policy, seed=0, memory_chunks=4, progress=lambda line: None, **kind):
    engine = load_engine(EngineConfig.of_policy(
        checkpoint, policy, seed, memory_chunks=memory_chunks, **kind), progress)
    engine.set_instruction('put the cup on the plate')
    return engine


@pytest.fixture
def engine(untrained_checkpoint, untrained_policy):
    return make_engine(untrained_checkpoint, untrained_policy)


@pytest.fixture
def other(untrained_checkpoint, untrained_policy):
    return make_engine(untrained_checkpoint, untrained_policy)


def pictures(policy, count, seed=0):
    random = np.random.default_rng(seed)
    return {name: [random.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(count)]
            for name in policy.cameras}


def begin_episode(engine, seed=0):
    engine.begin_episode(
        {name: images[0] for name, images in pictures(engine.policy, 1, seed).items()})


def execute(engine, chunk, frames=None, seed=1):
    """Show images for a chunk and commit its actions as executed."""
    frames = len(chunk.actions) // N if frames is None else frames
    for frame in range(frames):
        engine.observe(pictures(engine.policy, 4, seed + frame))
    engine.commit(chunk.actions[:frames * N])


def run(engine, chunks, seed=0):
    """Begin an episode, run it for some chunks and return the next one."""
    begin_episode(engine, seed)
    for number in range(chunks):
        execute(engine, engine.predict(), seed=10 * number + seed)
    return engine.predict()


def assert_same(one, two):
    np.testing.assert_array_equal(one.actions, two.actions)
    assert torch.equal(one.latents, two.latents)


def test_the_first_chunk_has_the_actions_of_one_frame_less(engine):
    first = run(engine, 0)
    assert first.actions.shape == (N, USED)
    execute(engine, first)
    assert engine.predict().actions.shape == (2 * N, USED)


def test_actions_are_finite_robot_units_of_the_used_channels(engine):
    actions = run(engine, 1).actions
    low, high = (quantile[list(engine.policy.used_channels)]
                 for quantile in (engine.policy.q01, engine.policy.q99))
    assert np.isfinite(actions).all()
    assert np.all(np.abs(actions - (low + high) / 2) < 20 * (high - low))


@pytest.mark.parametrize('chunks', [0, 2, 5])
def test_the_same_seed_and_images_give_the_same_chunk(engine, other, chunks):
    assert_same(run(engine, chunks), run(other, chunks))


def test_another_seed_gives_another_chunk(untrained_checkpoint, untrained_policy, engine):
    seeded = make_engine(untrained_checkpoint, untrained_policy, seed=1)
    assert not np.array_equal(run(engine, 0).actions, run(seeded, 0).actions)


def test_other_images_give_another_chunk(engine, other):
    assert not np.array_equal(run(engine, 0).actions, run(other, 0, seed=77).actions)


def test_other_executed_actions_give_another_chunk(engine, other):
    chunk, same = run(engine, 0), run(other, 0)
    execute(engine, chunk)
    execute(other, replace(same, actions=same.actions + 0.1))
    assert not np.array_equal(engine.predict().actions, other.predict().actions)


@pytest.mark.parametrize('chunks', [0, 1, 6])
def test_predicting_again_before_a_commit_gives_the_same_chunk(engine, chunks):
    chunk = run(engine, chunks)
    assert_same(engine.predict(), chunk)


def test_an_aborted_prediction_changes_nothing(engine, other):
    begin_episode(engine)
    looks = []

    def abort_at_the_third():
        looks.append(1)
        if len(looks) == 3:
            raise PredictionAborted
    with pytest.raises(PredictionAborted):
        engine.predict(SimpleNamespace(check=abort_at_the_third))
    begin_episode(other)
    assert_same(engine.predict(), other.predict())


def test_reset_clears_the_episode(engine, other):
    run(engine, 3, seed=50)
    assert engine.reset() > 0
    assert engine.memory_frames == 0 and not engine.began
    assert_same(run(engine, 1), run(other, 1))


def test_reset_returns_the_dropped_frames_and_keeps_the_instruction(engine):
    run(engine, 1)
    assert engine.reset() == 2
    assert engine.reset() == 0
    assert engine.instruction == 'put the cup on the plate'


def test_warm_up_leaves_nothing_behind(engine, other):
    other.warm_up()
    assert_same(run(engine, 1), run(other, 1))


def test_seeing_the_first_image_again_begins_anew_while_nothing_is_confirmed(engine, other):
    run(engine, 0, seed=50)
    begin_episode(engine)
    assert_same(engine.predict(), run(other, 0))


def test_frames_that_were_dropped_are_not_committed(engine):
    chunk = run(engine, 0)
    engine.observe(pictures(engine.policy, 4))
    engine.drop_observed()
    with pytest.raises(ValueError, match='no frame was observed'):
        engine.commit(chunk.actions)


def test_memory_frames_count_confirmed_frames_up_to_the_capacity(engine):
    assert (engine.memory_frames, engine.memory_capacity, engine.began) == (0, 8, False)
    begin_episode(engine)
    counts = []
    for seed in range(5):
        execute(engine, engine.predict(), seed=seed)
        counts.append(engine.memory_frames)
    assert counts == [2, 4, 6, 8, 8] and engine.began


def test_a_part_of_a_chunk_can_be_committed(engine):
    chunk = run(engine, 1)
    execute(engine, chunk, frames=1)
    assert engine.memory_frames == 3
    assert engine.predict().actions.shape == (2 * N, USED)


@pytest.mark.parametrize('shape', [(N - 1, USED), (2 * N, USED), (N, USED + 1), (0, USED), (N,)])
def test_a_wrong_number_of_executed_actions_is_refused_and_changes_nothing(engine, other, shape):
    chunk, same = run(engine, 0), run(other, 0)
    engine.observe(pictures(engine.policy, 4))
    with pytest.raises(ValueError, match='executed actions of shape .* for 1 frames of 8'):
        engine.commit(np.zeros(shape, np.float32))
    assert engine.memory_frames == 0
    engine.commit(chunk.actions)
    other.observe(pictures(other.policy, 4))
    other.commit(same.actions)
    assert_same(engine.predict(), other.predict())


def test_an_instruction_changes_predictions_and_not_the_memory(engine):
    chunk = run(engine, 1)
    frames = engine.memory_frames
    engine.set_instruction('open the box')
    assert not np.array_equal(engine.predict().actions, chunk.actions)
    assert engine.memory_frames == frames
    engine.set_instruction('put the cup on the plate')
    assert_same(engine.predict(), chunk)


def test_fewer_steps_can_be_asked_for_at_any_time(engine):
    chunk = run(engine, 0)
    engine.set_sampling(replace(engine.policy.video, steps=2), engine.policy.action)
    assert not np.array_equal(engine.predict().actions, chunk.actions)
    engine.set_sampling(engine.policy.video, engine.policy.action)
    assert_same(engine.predict(), chunk)


def test_guidance_without_a_second_half_of_memory_is_refused(engine):
    with pytest.raises(ValueError, match='guidance above 1 needs a memory with a negative half'):
        engine.set_sampling(replace(engine.policy.video, guidance=5.0), engine.policy.action)


def test_guidance_can_be_taken_away_and_given_back(untrained_checkpoint, untrained_policy):
    guided = replace(untrained_policy.video, guidance=5.0)
    engine = make_engine(untrained_checkpoint, untrained_policy, video=guided)
    chunk = run(engine, 1)
    engine.set_sampling(untrained_policy.video, untrained_policy.action)
    assert not np.array_equal(engine.predict().actions, chunk.actions)
    engine.set_sampling(guided, untrained_policy.action)
    assert_same(engine.predict(), chunk)


@pytest.mark.parametrize('chunks, frames', [(0, 1), (1, 2)])
def test_imagined_video_has_four_pictures_for_each_executed_frame(engine, chunks, frames):
    video = engine.imagined_video(run(engine, chunks))
    assert video.shape == (4 * frames, 64, 128, 3) and video.dtype == np.uint8


def test_imagining_pictures_leaves_the_prediction_alone(engine, other):
    chunk = run(engine, 1)
    engine.imagined_video(chunk)
    execute(engine, chunk)
    execute(other, run(other, 1))
    assert_same(engine.predict(), other.predict())


def test_loading_reports_its_steps(untrained_checkpoint, untrained_policy):
    lines = []
    make_engine(untrained_checkpoint, untrained_policy, progress=lines.append)
    for part in ('transformer', 'video VAE', 'warming up'):
        assert sum(part in line for line in lines) == 1, (part, lines)


def test_a_checkpoint_without_a_part_is_refused_by_name(untrained_policy, tmp_path):
    with pytest.raises(CheckpointError, match='transformer/config.json does not exist'):
        make_engine(tmp_path, untrained_policy)


def test_images_that_no_patches_cover_are_refused_by_size(untrained_checkpoint, untrained_policy):
    with pytest.raises(ValueError, match='3 .*latents.* patch.* of 2'):
        make_engine(untrained_checkpoint, replace(untrained_policy, height=48))
