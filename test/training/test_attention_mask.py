"""The attention mask of training sequences, tested by the outputs of the network."""

from dataclasses import replace

import pytest
import torch

from lingbot_va_ros.training.attention_mask import (
    attention_for,
    block_attention,
    CLEAN,
    dense_attention,
    GIVEN,
    may_attend,
    NOISY,
    token_attributes,
)
from lingbot_va_ros.training.batch_sampling import BatchSamplingSettings, NO_FRAME, sample_batch
from lingbot_va_ros.training.sequence import build_sequence, run_sequence

# Frames of an episode, frames of a chunk, actions of a frame.
SIZES = [(6, 2, 4), (9, 3, 2), (7, 1, 1), (10, 4, 3)]


def drawn_of(episodes, chunk, **settings):
    settings = BatchSamplingSettings(**{
        'chunk_frames': (chunk, chunk), 'window_chunks': (32, 32), 'noisy_history': 0,
        'action_history_std': 0, 'forward_dynamics': 0, **settings})
    sample = sample_batch(episodes, settings, torch.Generator().manual_seed(0))
    return replace(sample, clamped=sample.noisy_frames == 0)  # nothing else is shown to be seen


@torch.no_grad()
def outputs(network, episodes, sample, sequence):
    """Return velocities of noisy video and actions, [M, numbers] each, in the order of places."""
    video, action, _ = run_sequence(network, episodes, sample, sequence)
    return video[0].movedim(1, 0).flatten(1), action[0].movedim(1, 0).flatten(1)


def changed(before, after):
    return [bool(differs) for differs in (before != after).any(1)]


def disturb(content, frames):
    content = content.clone()
    content[:, :, frames] += 1
    return content


@pytest.mark.parametrize('forward_dynamics', [0, 1])
@pytest.mark.parametrize('frames, chunk, actions', SIZES)
def test_the_clean_video_on_which_noisy_tokens_depend(
        network, make_episodes, frames, chunk, actions, forward_dynamics):
    episodes = make_episodes(frames, actions)
    sample = drawn_of(episodes, chunk, forward_dynamics=forward_dynamics)
    sequence = build_sequence(episodes, sample)
    before = outputs(network, episodes, sample, sequence)
    of_place = (sample.noisy_frames[0] // chunk).tolist()
    for disturbed in range(-(-frames // chunk)):
        inside = slice(disturbed * chunk, disturbed * chunk + chunk)
        video, action = (changed(*pair) for pair in zip(before, outputs(
            network, episodes, sample, replace(
                sequence, clean_video=disturb(sequence.clean_video, inside)))))
        assert video == [disturbed < place for place in of_place]
        assert action == [disturbed <= place for place in of_place]


@pytest.mark.parametrize('forward_dynamics', [0, 1])
@pytest.mark.parametrize('frames, chunk, actions', SIZES)
def test_the_executed_actions_on_which_noisy_tokens_depend(
        network, make_episodes, frames, chunk, actions, forward_dynamics):
    episodes = make_episodes(frames, actions)
    sample = drawn_of(episodes, chunk, forward_dynamics=forward_dynamics)
    sequence = build_sequence(episodes, sample)
    before = outputs(network, episodes, sample, sequence)
    of_place = (sample.noisy_frames[0] // chunk).tolist()
    for disturbed in range(-(-frames // chunk)):
        other = replace(sequence, clean_actions=disturb(
            sequence.clean_actions, slice(disturbed * chunk, disturbed * chunk + chunk)))
        if forward_dynamics:
            there = (sample.noisy_frames[0] // chunk == disturbed).nonzero()[:, 0]
            other = replace(other, given_actions=disturb(sequence.given_actions, there))
        video, action = (changed(*pair) for pair in zip(
            before, outputs(network, episodes, sample, other)))
        assert video == [disturbed < place or (forward_dynamics == 1 and disturbed == place)
                         for place in of_place]
        assert action == [disturbed < place for place in of_place]


@pytest.mark.parametrize('frames, chunk, actions', SIZES)
def test_noisy_video_sees_its_actions_only_as_given_ones(
        network, make_episodes, frames, chunk, actions):
    episodes = make_episodes(frames, actions)
    sample = drawn_of(episodes, chunk, forward_dynamics=1)
    sequence = build_sequence(episodes, sample)
    before, _ = outputs(network, episodes, sample, sequence)
    last = slice((frames - 1) // chunk * chunk, None)
    after, _ = outputs(network, episodes, sample, replace(
        sequence, clean_actions=disturb(sequence.clean_actions, last)))
    assert torch.equal(before, after)


@pytest.mark.parametrize('forward_dynamics', [0, 1])
@pytest.mark.parametrize('frames, chunk, actions', SIZES)
def test_noisy_chunks_do_not_see_each_other(
        network, make_episodes, frames, chunk, actions, forward_dynamics):
    episodes = make_episodes(frames, actions)
    sample = drawn_of(episodes, chunk, forward_dynamics=forward_dynamics, replicas=3)
    sequence = build_sequence(episodes, sample)
    before = outputs(network, episodes, sample, sequence)
    numbers = sample.noisy_chunks[0]
    for number in (0, int(numbers.max())):
        there = (numbers == number).nonzero()[:, 0]
        for name, other in (('noisy_video', 1), ('noisy_actions', 0)):
            after = outputs(network, episodes, sample, replace(
                sequence, **{name: disturb(getattr(sequence, name), there)}))
            assert changed(before[1 - other], after[1 - other]) == (numbers == number).tolist()
            assert torch.equal(before[other], after[other])


@pytest.mark.parametrize('window', [1, 2])
def test_in_one_layer_tokens_outside_the_window_have_no_effect(make_episodes, network, window):
    del network.blocks[1:]  # in deeper ones what is seen has seen what has gone
    if hasattr(network, 'action_blocks'):
        del network.action_blocks[1:]
    episodes = make_episodes(8, 2)
    sample = drawn_of(episodes, 2, window_chunks=(window, window))
    sequence = build_sequence(episodes, sample)
    before = outputs(network, episodes, sample, sequence)
    of_place = (sample.noisy_frames[0] // 2).tolist()
    video, _ = (changed(*pair) for pair in zip(before, outputs(network, episodes, sample, replace(
        sequence, clean_video=disturb(sequence.clean_video, slice(0, 2))))))
    assert video == [0 < place < window for place in of_place]
    # The room for a chunk's video is made of the oldest chunk's video: its actions stay.
    video, action = (changed(*pair) for pair in zip(before, outputs(
        network, episodes, sample, replace(
            sequence, clean_actions=disturb(sequence.clean_actions, slice(0, 2))))))
    assert video == [0 < place <= window for place in of_place]
    assert action == [0 < place < window for place in of_place]


@pytest.mark.parametrize('forward_dynamics', [0, 1])
def test_padding_after_an_episode_has_no_effect(network, make_episodes, forward_dynamics):
    episodes = make_episodes(9, 3)
    episodes = replace(episodes, frames=torch.tensor([6]))
    sample = drawn_of(episodes, 4, forward_dynamics=forward_dynamics)
    assert set(sample.noisy_frames[0].tolist()) == set(range(6))
    outside = replace(episodes, latents=disturb(episodes.latents, slice(6, None)),
                      actions=disturb(episodes.actions, slice(6, None)))
    one, other = (outputs(network, each, sample, build_sequence(each, sample))
                  for each in (episodes, outside))
    assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


@pytest.mark.parametrize('frames, chunk, actions', SIZES)
def test_clean_tokens_see_no_noise_and_nothing_later(make_episodes, frames, chunk, actions):
    episodes = make_episodes(frames, actions)
    sample = drawn_of(episodes, chunk, forward_dynamics=1)
    clean, places = token_attributes(sample, episodes.frames, frames, 2, actions, True)
    assert not may_attend(clean[:, :, None], places[:, None]).any()
    among = may_attend(clean[:, :, None], clean[:, None])
    later = clean.chunk[:, None] > clean.chunk[:, :, None]
    assert torch.equal(among, ~later)
    assert set(clean.kind.flatten().tolist()) == {CLEAN}
    assert set(places.kind.flatten().tolist()) == {NOISY, GIVEN}


@pytest.mark.parametrize('frames, chunk, actions', SIZES[:2])
def test_flex_attention_agrees_with_the_dense_mask(
        network, make_episodes, frames, chunk, actions):
    episodes = make_episodes(frames, actions, batch=3)
    episodes = replace(episodes, frames=torch.tensor([frames, frames - 1, 3]))
    sample = sample_batch(
        episodes, BatchSamplingSettings(chunk_frames=(1, chunk), window_chunks=(2, 3)),
                 torch.Generator().manual_seed(3))
    sample = replace(sample, forward_dynamics=torch.tensor([True, False, True]))
    assert (sample.noisy_frames == NO_FRAME).any()
    sequence = build_sequence(episodes, sample)
    with torch.no_grad():
        dense, flex = (run_sequence(network, episodes, sample, sequence, attention)
                       for attention in (dense_attention, block_attention))
    filled = sample.noisy_frames != NO_FRAME
    for one, other in zip(dense[:2], flex[:2]):
        torch.testing.assert_close(
            one.movedim(2, 1)[filled], other.movedim(2, 1)[filled], rtol=0, atol=1e-5)


def test_long_sequences_on_a_gpu_are_attended_to_in_blocks():
    cpu, gpu = torch.device('cpu'), torch.device('cuda')
    assert attention_for(gpu, 10_000) is block_attention
    assert attention_for(gpu, 1_000) is attention_for(cpu, 10_000) is dense_attention
