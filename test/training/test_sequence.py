"""The training forward pass: agreement with the session's, and no dependence on later tokens."""

from dataclasses import replace

import pytest
import torch

from lingbot_va_ros.policy.inference.chunk_shape import ChunkShape
from lingbot_va_ros.policy.inference.session import Session
from lingbot_va_ros.specs.policy_file import Sampling
from lingbot_va_ros.training.batch_sampling import BatchSamplingSettings, sample_batch
from lingbot_va_ros.training.sequence import build_sequence, run_sequence

# Frames of an episode, frames of a chunk, actions of a frame.
SIZES = [(6, 2, 4), (9, 3, 2)]


def settings_of(chunk, window, forward_dynamics):
    return BatchSamplingSettings(
        chunk_frames=(chunk, chunk), window_chunks=(window, window), noisy_history=0,
        action_history_std=0, forward_dynamics=forward_dynamics)


class Recorded:
    """A network that keeps what a session asked of it, and what it answered."""

    def __init__(self, network):
        self.network, self.calls = network, []

    def __getattr__(self, name):
        attribute = getattr(self.network, name)
        if not name.endswith('_velocity'):
            return attribute

        def recorded(content, steps, *rest):
            velocity = attribute(content, steps, *rest)
            self.calls.append((name, content, steps, velocity))
            return velocity
        return recorded


def session_of(network, episodes, chunk, window):
    actions = episodes.actions.shape[3]
    session = Session(
        network, ChunkShape(chunk, actions, *episodes.latents.shape[3:]), Sampling(1, 5.0, 1.0),
        Sampling(1, 1.0, 1.0), episodes.channels, window)
    session.set_text(episodes.text)
    return session


def at_full_noise(sample):
    """Return what was drawn with the noise of a sampler's first step."""
    ones = torch.ones_like(sample.video_level)
    return replace(sample, video_level=ones, action_level=ones)


def noise_at(noise, sample, frames):
    """Return the noise of some frames, [1, C, frames, ...]."""
    places = [sample.noisy_frames[0].tolist().index(frame) for frame in frames]
    return noise[:, :, places]


@pytest.mark.parametrize('window', [2, 8])
@pytest.mark.parametrize('frames, chunk, actions', SIZES)
def test_training_agrees_with_the_session(
        network, make_episodes, frames, chunk, actions, window):
    episodes = make_episodes(frames, actions)
    sample = at_full_noise(
        sample_batch(episodes, settings_of(chunk, window, 0), torch.Generator().manual_seed(0)))
    with torch.no_grad():
        video, action, _ = run_sequence(
            network, episodes, sample, build_sequence(episodes, sample))
    recorded = Recorded(network)
    session = session_of(recorded, episodes, chunk, window)
    for first in range(0, frames, chunk):
        inside = range(first, first + chunk)
        recorded.calls.clear()
        session.predict(
            noise_at(sample.video_noise, sample, inside),
            noise_at(sample.action_noise, sample, inside), episodes.latents[:, :, :1])
        (_, _, _, seen), _ = recorded.calls
        assert (noise_at(video, sample, inside) - seen).abs().max() < 1e-5
        # The session's actions follow the video that it predicted, those of training the real
        # one: its network is asked again with the real one in the memory.
        session.discard()
        answer = action_behind(network, session, episodes, sample, inside)
        assert (noise_at(action, sample, inside) - answer).abs().max() < 1e-5
        session.commit(episodes.latents[:, :, first:first + chunk],
                       episodes.actions[:, :, first:first + chunk])


@torch.inference_mode()
def action_behind(network, session, episodes, sample, inside):
    """
    Return the velocity of a chunk's actions with its real video in the session's memory.

    The video is written as a commit would, room made first: in a full memory the video that a
    session imagines sees the actions of the oldest chunk as well, which no clean video does.
    """
    memory, chunk = session.kv_cache, len(inside)
    mark = memory.mark()
    memory.make_room(session.chunk_tokens)
    place = memory.reserve(session.denoiser.video_tokens)
    network.write_video(
        episodes.latents[:, :, inside.start:inside.stop], chunk * [0.0],
        session.denoiser.video_rotary(inside.start, chunk), session.text, place)
    memory.keep(place, provisional=True)
    noisy = noise_at(sample.action_noise, sample, inside) * session.denoiser.channel_mask
    steps = chunk * [1000.0]
    if inside.start == 0:
        noisy[:, :, 0], steps[0] = 0, 0.0
    answer = network.action_velocity(
        noisy, steps, session.denoiser.action_rotary(inside.start, chunk), session.text,
        memory.reserve(session.shape.action_tokens))
    memory.rewind(mark)
    return answer


@pytest.mark.parametrize('clamped', [0, 1])
def test_forward_dynamics_agrees_with_the_session(network, make_episodes, clamped):
    frames, chunk, actions = 6, 2, 4
    episodes = make_episodes(frames, actions)
    sample = at_full_noise(
        sample_batch(episodes, settings_of(chunk, 2, 1), torch.Generator().manual_seed(0)))
    given = sample.noisy_frames % chunk < clamped
    sample = replace(sample, clamped=given | (sample.noisy_frames == 0))
    with torch.no_grad():
        video, _, _ = run_sequence(network, episodes, sample, build_sequence(episodes, sample))
    recorded = Recorded(network)
    session = session_of(recorded, episodes, chunk, 2)
    for first in range(0, frames, chunk):
        inside = range(first, first + chunk)
        recorded.calls.clear()
        count = max(clamped, 1 if first == 0 else 0)
        noise = noise_at(sample.video_noise, sample, inside)
        session.predict_ahead(
            episodes.latents[:, :, first:first + count],
            episodes.actions[:, :, first:first + chunk], None, 1, noise, noise,
            noise_at(sample.action_noise, sample, inside))
        imagined = recorded.calls[0]
        assert imagined[2] == count * [0.0] + (chunk - count) * [1000.0]
        assert (noise_at(video, sample, inside) - imagined[3]).abs().max() < 1e-5
        session.commit(episodes.latents[:, :, first:first + chunk],
                       episodes.actions[:, :, first:first + chunk])


def test_zero_rows_of_the_text_count_however_many_are_given(network, make_episodes):
    episodes = make_episodes(6, 4)
    sample = sample_batch(episodes, settings_of(2, 8, 0.5), torch.Generator().manual_seed(0))
    cut = replace(episodes, text=episodes.text[:, :7])
    with torch.no_grad():
        for whole, same in zip(*(
                run_sequence(network, each, sample, build_sequence(each, sample))
                for each in (episodes, cut))):
            torch.testing.assert_close(same, whole, rtol=0, atol=1e-5)


def test_positions_may_begin_anywhere(network, make_episodes):
    episodes = make_episodes(6, 4)
    sample = sample_batch(episodes, settings_of(2, 8, 0.5), torch.Generator().manual_seed(0))
    moved = replace(sample, offset=sample.offset + 40)
    with torch.no_grad():
        for here, there in zip(*(
                run_sequence(network, episodes, each, build_sequence(episodes, each))
                for each in (sample, moved))):
            torch.testing.assert_close(here, there, rtol=0, atol=1e-4)
