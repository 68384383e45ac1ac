"""
Denoising steps that are recorded and replayed give what the steps themselves would have given.

In the place of CUDA's graphs stands a record of every operation that PyTorch was asked for, with
the tensors it was given: like a graph it holds addresses, and runs nothing of Python again. Only
the calls of torch.cuda in `CudaRecorder` are not run here.
"""

from dataclasses import replace

import pytest
from support.networks import random
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

from lingbot_va_ros.model import cuda_graphs as graphs
from lingbot_va_ros.model.checkpoint import load_transformer
from lingbot_va_ros.model.cuda_graphs import step_graphs, StepGraphs
from lingbot_va_ros.model.kv_cache import SlidingKVCache
from lingbot_va_ros.model.mixture_of_transformers import make_network
from lingbot_va_ros.policy.inference.chunk_shape import ChunkShape
from lingbot_va_ros.policy.inference.noise import chunk_noise, imagining_noise
from lingbot_va_ros.policy.inference.session import Session
from lingbot_va_ros.specs.policy_file import Sampling

SHAPE = ChunkShape(frames=2, actions=4, rows=4, columns=4)
USED = (14, 15, 28)
VIDEO, ACTION = Sampling(4, 5.0, 5.0), Sampling(5, 1.0, 1.0)
MEMORY_CHUNKS = 3


class Operations(TorchDispatchMode):
    """Keeps the operations that are run inside it, with their tensors."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.kept.append((function, args, kwargs or {}, result))
        return result


def storages(values):
    return {value.untyped_storage().data_ptr() for value in tree_iter(values)
            if isinstance(value, torch.Tensor)}


class Recorder:
    """Records steps as `CudaRecorder` does, and counts recordings and replays."""

    def __init__(self):
        self.recordings = self.replays = 0
        self.names = set()

    def __call__(self, step):
        with Operations() as operations:
            result = step()
        self.recordings += 1
        self.names |= {str(function) for function, *_ in operations.kept}

        def replay():
            self.replays += 1
            for function, args, kwargs, kept in operations.kept:
                again = function(*args, **kwargs)
                # A view has its address anyway; what is new goes where it went before.
                if not storages(again) & storages((args, kwargs)):
                    tree_map(lambda to, new: to.copy_(new) if isinstance(
                        to, torch.Tensor) else None, kept, again)
        return replay, result


@pytest.fixture(scope='module', params=['shared', 'mixture'])
def network(request, untrained_checkpoint):
    network = load_transformer(
        untrained_checkpoint / 'transformer', torch.device('cpu'), torch.float32)
    if request.param == 'shared':
        return network
    mixture = make_network(replace(network.config, action_hidden_dim=32))
    generator = torch.Generator().manual_seed(0)
    for weight in mixture.requires_grad_(False).parameters():
        weight.normal_(0, weight.shape[-1] ** -0.5, generator=generator)
    return mixture


def make_session(network, graphs=None):
    session = Session(network, SHAPE, VIDEO, ACTION, USED, MEMORY_CHUNKS, graphs)
    session.set_text(random(99, session.cfg_batch, 512, 32))
    return session


def predict(session):
    noise = chunk_noise(0, session.frame, SHAPE, 48, 30)
    return session.predict(*noise, random(50, 1, 48, 1, 4, 4))


def predict_ahead(session, seen):
    first = session.frame
    return session.predict_ahead(
        random(first + 1000, 1, 48, 2, 4, 4)[:, :, :seen],
        random(first + 2000, 1, 30, 2, 4, 1), None, 3,
        imagining_noise(0, first, SHAPE, 48), *chunk_noise(0, first + 2, SHAPE, 48, 30))


def commit(session):
    session.commit(
        random(session.frame + 1000, 1, 48, 2, 4, 4), random(session.frame + 2000, 1, 30, 2, 4, 1))


def episode(session):
    """Return everything that is predicted over a memory that fills and slides, in all ways."""
    found = []
    for chunk in range(2 * MEMORY_CHUNKS + 2):
        session.discard()
        found.append(predict(session))
        found.append(predict_ahead(session, chunk % 2))
        commit(session)
        if chunk == 2:  # another task
            session.set_text(random(98, session.cfg_batch, 512, 32))
    memory = session.kv_cache
    seen = slice(memory.start, memory.end)
    return [tensor for each in found for tensor in (each.latents, each.actions)] + [
        memory.keys[:, :, seen].clone(), memory.values[:, :, seen].clone()]


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs):
        assert torch.equal(one, other)


def test_an_episode_of_replayed_steps_is_the_same_bit_for_bit(network):
    recorder = Recorder()
    session = make_session(network, StepGraphs(network, recorder))
    expected = episode(make_session(network))
    assert_same(episode(session), expected)
    assert recorder.recordings and recorder.replays > 2 * recorder.recordings
    # A second episode goes through places that are known, and begins with the first's contents.
    recordings = recorder.recordings
    session.reset()
    session.set_text(random(99, session.cfg_batch, 512, 32))
    assert_same(episode(session), expected)
    assert recorder.recordings == recordings


def test_a_recorded_step_asks_the_device_for_no_number(network):
    recorder = Recorder()
    episode(make_session(network, StepGraphs(network, recorder)))
    assert not {name for name in recorder.names if 'item' in name or 'local_scalar' in name}
    assert any('copy_' in name for name in recorder.names)  # the record is not empty


@pytest.mark.parametrize('kind, content, tokens', [
    ('video', (2, 48, 2, 4, 4), 8), ('action', (1, 30, 2, 4, 1), 8)])
def test_a_step_on_another_device_reads_nothing_of_the_host(network, kind, content, tokens):
    """A graph would hold the address of what was copied from the host when it was recorded."""
    device, config = torch.device('meta'), network.config
    with device:
        there = make_network(config)
        memory = SlidingKVCache(
            config.num_layers, 2, 80, 80, config.heads, config.head_dim, device, there.dtype)
        text = there.text_kv(torch.empty(2, 512, config.text_dim))
        wide = config.dim if kind == 'video' else config.action_hidden_dim or config.dim
        inputs = (torch.empty(content), (torch.empty(2, wide), torch.empty(2, 6, wide)),
                  torch.empty(tokens, 1, config.head_dim // 2, dtype=torch.complex64))
    place = memory.reserve(tokens, slice(0, content[0]))
    with torch.inference_mode(), Operations() as operations:
        there.velocity(kind, *inputs, text, place)
    assert operations.kept
    for function, *values in operations.kept:
        assert all(value.device == device for value in tree_iter(values)
                   if isinstance(value, torch.Tensor)), function


def test_each_number_of_chunks_in_the_memory_has_graphs_of_its_own(network):
    recorder = Recorder()
    graphs = StepGraphs(network, recorder)
    session = make_session(network, graphs)
    for chunk in range(2):
        predict(session)
        assert recorder.recordings == 2 * (chunk + 1)  # video and actions
        assert graphs.recordings == recorder.recordings
        commit(session)


def test_a_result_is_not_overwritten_by_the_next_step(network):
    steps = StepGraphs(network, Recorder())
    session = make_session(network, steps)
    predict(session)
    rotary = session.denoiser.video_rotary(0, 2)
    place = session.kv_cache.reserve(session.denoiser.video_tokens, slice(0, 1))

    def velocity(seed):
        return steps.video_velocity(
            random(seed, 1, 48, 2, 4, 4), [500.0, 500.0], rotary, session.text, place)

    with torch.inference_mode():
        first = [velocity(seed) for seed in (1, 2, 3, 4)]
        again = [velocity(seed) for seed in (1, 2, 3, 4)]
    assert_same(first, again)
    assert not torch.equal(first[2], first[3])


def test_no_more_graphs_are_kept_than_that(network, monkeypatch):
    monkeypatch.setattr(graphs, 'KEPT', 3)
    steps = StepGraphs(network, Recorder())
    assert_same(episode(make_session(network, steps)), episode(make_session(network)))
    assert len(steps._recorded) == 3


def test_if_recording_fails_steps_run_normally_and_one_line_is_logged(network, caplog):
    def fails(step):
        step()
        raise RuntimeError('CUDA error: operation not permitted\nwhen stream is capturing')

    ours = episode(make_session(network, StepGraphs(network, fails)))
    assert_same(ours, episode(make_session(network)))
    assert [record.message for record in caplog.records] == [
        'denoising steps run without CUDA graphs: CUDA error: operation not permitted']


def test_on_a_cpu_there_are_no_graphs(network):
    assert step_graphs(network) is None
