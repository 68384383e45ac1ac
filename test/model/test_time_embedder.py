"""Time embeddings are cached while the weights do not change."""

import copy
import math

import numpy as np
import pytest
import torch

from lingbot_va_ros.model.time_embedding import KEPT_STEPS, sinusoids, TimeEmbedder
from lingbot_va_ros.specs.checkpoint_config import TransformerConfig

CONFIG = TransformerConfig(num_layers=1, heads=2, head_dim=8, ffn_dim=16)
STEPS = [0.0, 833.25]


@pytest.fixture
def embedder():
    torch.manual_seed(0)
    return TimeEmbedder(CONFIG, CONFIG.dim)


def computed(embedder, steps=STEPS):
    with torch.inference_mode():
        return embedder(torch.tensor(steps, dtype=torch.float32))


def at(embedder, steps=STEPS):
    with torch.inference_mode():
        return embedder.at(steps)


def assert_same(one, other):
    for left, right in zip(one, other):
        assert left.dtype == right.dtype and torch.equal(left, right)


def test_repeated_time_steps_are_computed_once_with_equal_results(embedder, monkeypatch):
    expected, calls = computed(embedder), []
    forward = embedder.forward
    monkeypatch.setattr(embedder, 'forward', lambda steps: calls.append(1) or forward(steps))
    for _ in range(3):
        assert_same(at(embedder), expected)
    assert len(calls) == 1
    at(embedder, STEPS[::-1])
    assert len(calls) == 2


def test_with_gradients_nothing_is_kept(embedder):
    embedder.at(STEPS)[1].sum().backward()
    first = embedder.vectors.weight.grad.clone()
    embedder.at(STEPS)[1].sum().backward()
    assert torch.equal(embedder.vectors.weight.grad, 2 * first)
    at(embedder)
    assert embedder.at(STEPS)[0].requires_grad


def train(embedder):
    embedder(torch.tensor(STEPS))[1].sum().backward()
    torch.optim.SGD(embedder.parameters(), 0.1).step()


def load(embedder):
    embedder.load_state_dict({
        name: weight + 1 for name, weight in embedder.state_dict().items()})


@pytest.mark.parametrize('change', [train, load, lambda embedder: embedder.double().float(),
                                    lambda embedder: embedder.to(torch.bfloat16)])
def test_after_a_change_of_the_weights_steps_are_computed_anew(embedder, change):
    at(embedder)
    change(embedder)
    assert_same(at(embedder), computed(embedder))


def test_a_copy_keeps_steps_of_its_own(embedder):
    at(embedder)
    other = copy.deepcopy(embedder)
    for _ in range(3):
        with torch.no_grad():
            other.out.weight += 1
        assert_same(at(other), computed(other))
    assert_same(at(embedder), computed(embedder))


def test_the_cache_is_bounded_and_keeps_the_newest(embedder):
    for step in range(KEPT_STEPS + 10):
        at(embedder, [float(step)])
        at(embedder)
    assert len(embedder._kept) == KEPT_STEPS
    assert tuple(STEPS) in embedder._kept and (10.0,) not in embedder._kept


def test_weights_that_were_made_in_inference_mode_work_too():
    with torch.inference_mode():
        embedder = TimeEmbedder(CONFIG, CONFIG.dim)
    assert_same(at(embedder), computed(embedder))


def test_the_sinusoids_are_the_same_on_every_processor():
    """One frequency that is off by its last place moves a wave by up to 6e-5 at step 1000."""
    frequencies = [np.float32(10000.0 ** (-index / 128)) for index in range(128)]
    angles = [float(np.float32(1000) * frequency) for frequency in frequencies]
    exact = torch.tensor([math.cos(angle) for angle in angles]
                         + [math.sin(angle) for angle in angles])
    assert (sinusoids(torch.tensor(1000.0), 256) - exact).abs().max() < 1e-6
