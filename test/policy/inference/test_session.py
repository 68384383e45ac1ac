"""An episode's computation: aborts, repetitions, resets, and the number of forward passes."""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
from support.sessions import (
    Abort,
    ACTION,
    assert_same_prediction,
    make_session,
    random,
    SHAPE,
    USED,
    VIDEO,
)
import torch

from lingbot_va_ros.model.checkpoint import load_transformer, save_transformer
from lingbot_va_ros.model.random_checkpoint import MIXTURE, random_weights
from lingbot_va_ros.policy.errors import PredictionAborted
from lingbot_va_ros.policy.inference.chunk_shape import ChunkShape
from lingbot_va_ros.policy.inference.noise import chunk_noise
from lingbot_va_ros.policy.inference.session import Session
from lingbot_va_ros.policy.interrupt import UNINTERRUPTED
from lingbot_va_ros.specs.policy_file import Sampling


@pytest.fixture(scope='module', params=['shared', 'mixture'])
def network(request, untrained_checkpoint, tmp_path_factory):
    folder = untrained_checkpoint / 'transformer'
    if request.param == 'mixture':
        folder = tmp_path_factory.mktemp('mixture')
        save_transformer(
            folder, MIXTURE, random_weights(MIXTURE, torch.Generator().manual_seed(0)))
    return load_transformer(folder, torch.device('cpu'), torch.float32)


def noise(session):
    return chunk_noise(0, session.frame + session.imagined_frames, SHAPE, 48, 30)


def first_latent():
    return random(50, 1, 48, 1, 4, 4)


def predict(session, interrupt=UNINTERRUPTED):
    return session.predict(*noise(session), first_latent(), interrupt)


def commit(session):
    """Commit a chunk of which the content depends on the frame alone."""
    session.commit(random(session.frame + 1000, 1, 48, 2, 4, 4),
                   random(session.frame + 2000, 1, 30, 2, 4, 1))


def remember(session, chunks):
    """Predict and commit as the synchronous loop does."""
    for _ in range(chunks):
        predict(session)
        commit(session)


def remembered(session):
    """Return what attention would see: copies of the valid keys and values."""
    memory = session.kv_cache
    seen = slice(memory.start, memory.end)
    return memory.keys[:, :, seen].clone(), memory.values[:, :, seen].clone()


def assert_same_memory(one, other):
    for left, right in zip(one, other):
        assert torch.equal(left, right)


@dataclass
class Counted:
    """A network that counts the sequences of its forwards."""

    network: object
    calls: list[tuple] = field(default_factory=list)

    def __getattr__(self, name):
        attribute = getattr(self.network, name)
        if name not in ('video_velocity', 'action_velocity', 'write_video', 'write_actions'):
            return attribute

        def counted(content, *rest):
            self.calls.append((name, content.shape[0]))
            return attribute(content, *rest)
        return counted

    def sequences(self, *names):
        return sum(count for name, count in self.calls if name in names)


# Chunk 0, some chunks later, and with a memory that is full and evicts.
@pytest.mark.parametrize('chunks, memory_chunks', [(0, 8), (2, 8), (3, 2)])
@pytest.mark.parametrize('at', [0, 1, 3, 4, 5, 7])
def test_an_aborted_prediction_changes_nothing(network, chunks, memory_chunks, at):
    session = make_session(network, memory_chunks=memory_chunks)
    remember(session, chunks)
    before, groups = remembered(session), list(session.kv_cache.spans)
    with pytest.raises(PredictionAborted):
        predict(session, Abort(at))
    assert_same_memory(remembered(session), before)
    assert list(session.kv_cache.spans) == groups
    assert (session.frame, session.imagined_frames) == (2 * chunks, 0)


@pytest.mark.parametrize('chunks, memory_chunks', [(0, 8), (2, 8), (3, 2)])
@pytest.mark.parametrize('at', [1, 6])
def test_an_aborted_prediction_does_not_change_the_next(
        network, chunks, memory_chunks, at):
    session, undisturbed = (make_session(network, memory_chunks=memory_chunks) for _ in range(2))
    remember(session, chunks)
    remember(undisturbed, chunks)
    for _ in range(2):
        with pytest.raises(PredictionAborted):
            predict(session, Abort(at))
    assert_same_prediction(predict(session), predict(undisturbed))


def test_the_interrupt_is_checked_before_every_forward(network):
    session, looks = make_session(network), []
    predict(session, SimpleNamespace(check=lambda: looks.append(1)))
    # All but the last writes, which nothing waits for: 3 + 1 of the video and 4 of the actions.
    assert len(looks) == 8


@pytest.mark.parametrize('chunks, memory_chunks', [(0, 8), (2, 8), (3, 2)])
def test_a_discarded_prediction_is_predicted_again_bit_for_bit(network, chunks, memory_chunks):
    session = make_session(network, memory_chunks=memory_chunks)
    remember(session, chunks)
    first = predict(session)
    session.discard()
    assert_same_prediction(predict(session), first)


def test_a_discarded_prediction_leaves_the_memory_that_was_there(network):
    session = make_session(network, memory_chunks=2)
    remember(session, 3)
    before = remembered(session)
    predict(session)
    session.discard()
    assert_same_memory(remembered(session), before)


def test_commits_do_not_depend_on_predictions(network):
    session, other = make_session(network), make_session(network)
    remember(session, 3)
    for _ in range(3):
        commit(other)
    assert_same_memory(remembered(session), remembered(other))


def test_a_reset_session_predicts_as_a_new_one(network):
    session, new = make_session(network), make_session(network)
    remember(session, 3)
    predict(session)
    session.reset()
    for each in (session, new):
        remember(each, 2)
    assert_same_memory(remembered(session), remembered(new))
    assert_same_prediction(predict(session), predict(new))


def test_a_chunk_with_video_guidance_costs_105_sequence_forwards_at_25_and_50_steps(network):
    session = make_session(network, Sampling(25, 5.0, 5.0), Sampling(50, 1.0, 1.0))
    remember(session, 2)
    counted = session.denoiser.network = Counted(network)
    remember(session, 1)
    assert counted.sequences('video_velocity') == 50
    assert counted.sequences('action_velocity') == 50
    # The imagined video, for the actions to see; then video and actions of the commit, two halves.
    assert [call for call in counted.calls if call[0].startswith('write')] == [
        ('write_video', 1), ('write_video', 2), ('write_actions', 2)]
    assert sum(count for _, count in counted.calls) == 105


@pytest.mark.parametrize('video_guidance, action_guidance, forwards', [
    (1.0, 1.0, (3, 4, 3)), (5.0, 1.0, (6, 4, 5)), (1.0, 2.0, (3, 8, 6)), (5.0, 2.0, (6, 8, 6))])
def test_only_guided_loops_run_the_negative_half(
        network, video_guidance, action_guidance, forwards):
    session = make_session(
        network, Sampling(3, 5.0, video_guidance), Sampling(4, 1.0, action_guidance))
    counted = session.denoiser.network = Counted(network)
    remember(session, 1)
    assert (counted.sequences('video_velocity'), counted.sequences('action_velocity'),
            counted.sequences('write_video', 'write_actions')) == forwards


def test_fewer_executed_video_steps_cost_fewer_forwards(network):
    session = make_session(network, Sampling(25, 5.0, 1.0, exec_steps=3))
    counted = session.denoiser.network = Counted(network)
    predict(session)
    assert counted.sequences('video_velocity') == 3
    assert counted.sequences('write_video') == 0


def test_the_first_frame_of_an_episode_is_the_observed_one_with_no_action(network):
    prediction = predict(make_session(network))
    assert torch.equal(prediction.latents[:, :, :1], first_latent())
    assert prediction.actions[:, :, 0].abs().max() == 0


def test_only_used_channels_are_predicted(network):
    session = make_session(network)
    remember(session, 1)
    channels = predict(session).actions.abs().amax((0, 2, 3, 4)).nonzero().flatten()
    assert tuple(channels.tolist()) == USED


def test_unused_channels_are_not_committed(network):
    session, other = make_session(network), make_session(network)
    latents, actions = random(1, 1, 48, 2, 4, 4), random(2, 1, 30, 2, 4, 1)
    session.commit(latents, actions)
    actions[:, 0] += 1
    other.commit(latents, actions)
    assert_same_memory(remembered(session), remembered(other))


def test_a_new_text_keeps_the_cache_and_changes_predictions(network):
    session = make_session(network)
    remember(session, 1)
    before, prediction = remembered(session), predict(session)
    session.discard()
    session.set_text(random(98, 2, 512, 32))
    assert_same_memory(remembered(session), before)
    assert not torch.equal(predict(session).actions, prediction.actions)


def test_a_session_runs_in_bfloat16(untrained_checkpoint):
    network = load_transformer(
        untrained_checkpoint / 'transformer', torch.device('cpu'), torch.bfloat16)
    session = make_session(network)
    remember(session, 2)
    prediction = predict(session)
    assert prediction.latents.isfinite().all() and prediction.actions.isfinite().all()
    assert prediction.actions.dtype == torch.float32


def test_an_episode_cannot_begin_without_an_observed_latent(network):
    session = make_session(network)
    with pytest.raises(ValueError, match='needs an observed latent'):
        session.predict(*noise(session))


def test_prompts_for_another_number_of_halves_are_refused(network):
    with pytest.raises(ValueError, match='1 prompt embeddings; expected 2'):
        make_session(network).set_text(random(0, 1, 512, 32))


@pytest.mark.parametrize('rows, columns', [(3, 4), (4, 5)])
def test_a_latent_picture_that_no_patches_cover_is_refused(network, rows, columns):
    shape = ChunkShape(frames=2, actions=4, rows=rows, columns=columns)
    with pytest.raises(ValueError, match=f'{rows} x {columns} latents .* patches of 2 x 2'):
        Session(network, shape, VIDEO, ACTION, USED, 4)


def test_noise_is_drawn_from_seed_and_frame_alone():
    torch.manual_seed(1)
    first = chunk_noise(7, 4, SHAPE, 48, 30)
    torch.manual_seed(2)
    for one, other in zip(first, chunk_noise(7, 4, SHAPE, 48, 30)):
        assert torch.equal(one, other)
    for seed, frame in ((8, 4), (7, 6)):
        assert not torch.equal(first[0], chunk_noise(seed, frame, SHAPE, 48, 30)[0])
    assert first[0].shape == (1, 48, 2, 4, 4) and first[1].shape == (1, 30, 2, 4, 1)


@pytest.mark.parametrize('video, action', [
    (VIDEO, ACTION), (VIDEO, replace(ACTION, guidance=2.0)),
    (replace(VIDEO, exec_steps=2), ACTION)])
def test_every_tensor_goes_to_the_device_of_the_network(network, video, action):
    # The meta device computes shapes only, and refuses tensors of other devices as a GPU does.
    # It is slow, and all layers are alike: one is enough, and a memory that evicts at once.
    with torch.device('meta'):
        elsewhere = type(network)(replace(network.config, num_layers=1)).to(torch.bfloat16)
    session = make_session(elsewhere, video, action, memory_chunks=1)
    remember(session, 2)
    prediction = predict(session)
    assert prediction.latents.device.type == prediction.actions.device.type == 'meta'
