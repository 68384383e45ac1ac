"""
Small networks of both variants, and episodes for them.

One thread for torch: small tensors gain nothing from more, and other tests need the cores.
"""

from dataclasses import replace

import pytest
from support.networks import random, randomize
import torch

from lingbot_va_ros.model.mixture_of_transformers import make_network
from lingbot_va_ros.specs.checkpoint_config import TransformerConfig
from lingbot_va_ros.training.batch_sampling import EpisodeBatch

torch.set_num_threads(1)

SHARED = TransformerConfig(
    num_layers=3, heads=2, head_dim=24, ffn_dim=64, latent_channels=8, action_channels=5,
    text_dim=16, time_frequencies=16)
USED = (0, 2, 3)
ROWS, COLUMNS = 4, 6  # latents of a picture: 6 tokens
TEXT_ROWS = 12  # of which the second half is zero


@pytest.fixture(params=[None, 20], ids=['shared', 'mixture'])
def network(request):
    """Return a network with random weights, of either variant."""
    return randomize(make_network(replace(SHARED, action_hidden_dim=request.param)))


@pytest.fixture
def make_episodes():
    """Return a function that makes whole episodes of so many frames of so many actions."""
    def make(frames: int, actions: int, batch: int = 1) -> EpisodeBatch:
        executed = torch.zeros(batch, 5, frames, actions, 1)
        executed[:, list(USED)] = random(2, batch, len(USED), frames, actions, 1)
        executed[:, :, 0] = 0
        text = random(3, batch, TEXT_ROWS, 16)
        text[:, TEXT_ROWS // 2:] = 0
        return EpisodeBatch(
            random(1, batch, 8, frames, ROWS, COLUMNS), executed, torch.full((batch,), frames),
            text, USED, text_rows=TEXT_ROWS)
    return make
