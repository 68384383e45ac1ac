"""
Small networks for these tests.

One thread for torch: small tensors gain nothing from more, and other tests need the cores.
"""

import pytest
from support.networks import randomize
import torch

from lingbot_va_ros.model.mixture_of_transformers import make_network as network_of
from lingbot_va_ros.model.transformer import Network
from lingbot_va_ros.specs.checkpoint_config import TransformerConfig

torch.set_num_threads(1)


@pytest.fixture(params=[None, 20], ids=['shared', 'mixture'])
def make_network(request):
    """Return a function that makes a network with random weights, of either variant."""
    def make(num_layers: int = 2, dtype: torch.dtype = torch.float32, **sizes) -> Network:
        config = TransformerConfig(**{
            'num_layers': num_layers, 'heads': 2, 'head_dim': 24, 'ffn_dim': 64,
            'latent_channels': 8, 'action_channels': 5, 'text_dim': 16, 'time_frequencies': 16,
            'action_hidden_dim': request.param, **sizes})
        return randomize(network_of(config)).requires_grad_(False).eval().to(dtype)
    return make
