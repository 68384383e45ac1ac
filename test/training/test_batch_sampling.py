"""The random sample of a training step: whole chunks, noise levels, reproducibility."""

from dataclasses import fields, replace

import pytest
import torch

from lingbot_va_ros.training.batch_sampling import BatchSamplingSettings, NO_FRAME, sample_batch


def draw_with(episodes, seed=0, **settings):
    return sample_batch(
        episodes, BatchSamplingSettings(**settings), torch.Generator().manual_seed(seed))


def chunks_of(sample, row):
    """Return the frames of each noisy chunk of an episode."""
    chunks = {}
    for frame, number in zip(sample.noisy_frames[row].tolist(), sample.noisy_chunks[row].tolist()):
        if frame != NO_FRAME:
            chunks.setdefault(number, []).append(frame)
    return list(chunks.values())


def test_the_same_seed_draws_the_same(make_episodes):
    episodes = make_episodes(9, 2, batch=3)
    one, same, other = (draw_with(episodes, seed) for seed in (1, 1, 2))
    for field in fields(one):
        left, right = getattr(one, field.name), getattr(same, field.name)
        assert left is right is None or torch.equal(left, right)
    assert not torch.equal(one.video_noise, other.video_noise)


@pytest.mark.parametrize('replicas', [1, 3])
def test_every_chunk_is_predicted_as_often_as_there_are_replicas(make_episodes, replicas):
    episodes = replace(make_episodes(9, 2, batch=4), frames=torch.tensor([9, 8, 5, 2]))
    sample = draw_with(episodes, chunk_frames=(2, 4), replicas=replicas)
    for row, count in enumerate(episodes.frames.tolist()):
        length = int(sample.chunk_frames[row])
        assert sorted(chunks_of(sample, row)) == sorted(
            replicas * [list(range(first, min(first + length, count)))
                        for first in range(0, count, length)])


def test_few_places_hold_whole_chunks_of_the_whole_episode(make_episodes):
    episodes, seen = make_episodes(12, 2), set()
    for seed in range(40):
        sample = draw_with(episodes, seed, chunk_frames=(1, 4), noisy_frames=5)
        assert sample.noisy_frames.shape == (1, 5)
        for chunk in chunks_of(sample, 0):
            length = int(sample.chunk_frames[0])
            assert chunk[0] % length == 0 and len(chunk) == length
            seen.update(chunk)
    assert seen == set(range(12))


def test_a_noisy_chunk_has_one_noise_level_and_others_have_others(make_episodes):
    sample = draw_with(make_episodes(12, 2, batch=2), chunk_frames=(3, 3), replicas=2)
    for levels in (sample.video_level, sample.action_level):
        for row in range(2):
            by_chunk = {}
            for number, level in zip(sample.noisy_chunks[row].tolist(), levels[row].tolist()):
                by_chunk.setdefault(number, set()).add(level)
            assert all(len(level) == 1 for level in by_chunk.values())
            assert len(set.union(*by_chunk.values())) == len(by_chunk) == 8


def test_a_shift_moves_the_noise_levels_as_it_moves_the_samplers(make_episodes):
    episodes = make_episodes(12, 2, batch=64)
    sample = draw_with(episodes, chunk_frames=(1, 1), video_shift=5.0, action_shift=1.0)
    assert abs(sample.video_level.median() - 5 / 6) < 0.03  # of one half before the shift
    assert abs(sample.action_level.median() - 0.5) < 0.06
    assert 0 < sample.video_level.min() and sample.video_level.max() <= 1


def test_some_histories_are_noised_within_the_bounds(make_episodes):
    sample = draw_with(make_episodes(6, 2, batch=400), video_shift=5.0)
    noised = sample.history_level.amax(1) > 0
    assert 0.4 < noised.float().mean() < 0.6
    assert sample.history_level.max() <= 5 * 0.5 / (1 + 4 * 0.5) + 1e-6


def test_a_prefix_is_given_in_forward_dynamics_and_the_first_frame_always(make_episodes):
    sample = draw_with(make_episodes(12, 2, batch=200), chunk_frames=(4, 4))
    given = sample.clamped.view(200, 3, 4)
    counts = given.sum(-1)
    assert torch.equal(given, torch.arange(4) < counts[..., None])  # a prefix
    guided = sample.forward_dynamics
    assert counts[~guided].unique(dim=0).tolist() == [[1, 0, 0]]
    assert set(counts[guided][:, 0].tolist()) == {1, 2, 3}
    assert set(counts[guided][:, 1:].flatten().tolist()) == {0, 1, 2, 3}


def test_settings_that_make_no_sense_are_refused_all_at_once():
    with pytest.raises(ValueError) as refusal:
        BatchSamplingSettings(chunk_frames=(0, 4), window_chunks=(5, 4), forward_dynamics=2,
                     video_shift=0, history_clean=(0.5, 2), noisy_frames=3)
    lines = str(refusal.value).splitlines()
    for name in ('chunk_frames', 'window_chunks', 'forward_dynamics', 'video_shift',
                 'history_clean', 'noisy_frames'):
        assert any(line.startswith(name) for line in lines)
