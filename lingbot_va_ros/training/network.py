"""Creates the network to train: initial weights, losses and auxiliary heads."""

import math
from pathlib import Path

import torch
from torch import nn

from lingbot_va_ros.model.checkpoint import load_transformer
from lingbot_va_ros.model.mixture_of_transformers import (
    interpolate_action_stream,
    make_network,
    MixtureTransformer,
)
from lingbot_va_ros.model.transformer import Network
from lingbot_va_ros.specs.checkpoint_config import TransformerConfig
from lingbot_va_ros.training.batch_sampling import BatchSample, EpisodeBatch
from lingbot_va_ros.training.losses import EventHead, Losses, LossWeights, PlaceHead
from lingbot_va_ros.training.sequence import training_losses
from lingbot_va_ros.training.settings import TrainingSettings


def network_config(settings: TrainingSettings) -> TransformerConfig:
    """Return the sizes of the network in the settings."""
    return TransformerConfig(
        num_layers=settings.network.layers, heads=settings.network.heads,
        head_dim=settings.network.head_dim, ffn_dim=settings.network.ffn_dim,
        latent_channels=settings.codec.channels, text_dim=settings.text.dim,
        time_frequencies=settings.network.time_frequencies,
        action_hidden_dim=settings.network.action_dim or None)


def new_network(config: TransformerConfig, seed: int) -> Network:
    """Return an untrained network; the same seed gives the same weights."""
    network = make_network(config)
    generator = torch.Generator().manual_seed(seed)
    _initialize(network, generator)
    if isinstance(network, MixtureTransformer):
        interpolate_action_stream(network)
    return network


@torch.no_grad()
def _initialize(network: Network, generator: torch.Generator) -> None:
    """Initialize the weights so that blocks add little and outputs are zero."""
    depth = 1 / math.sqrt(2 * network.config.num_layers)
    for name, weight in network.named_parameters():
        last = name.rpartition('.')[0].rpartition('.')[2]
        if name.endswith('norm') or (last.endswith('norm') and name.endswith('weight')):
            weight.fill_(1)
        elif name.endswith('bias'):
            weight.zero_()
        elif 'modulation' in name:
            weight.normal_(0, 0.02, generator=generator)
            if len(weight) == 6:  # gates of the residual stream: open at first
                weight[[2, 5]] += 1
        elif name in ('video.out.weight', 'action.out.weight'):
            weight.zero_()
        else:
            scale = depth if last in ('out', 'ffn_out', 'text_out') and 'blocks' in name else 1
            weight.normal_(0, scale * weight.shape[-1] ** -0.5, generator=generator)
            if last == 'vectors':  # time vectors grow from the modulation alone
                weight.mul_(0.1)


class TrainedNetwork(nn.Module):
    """A network whose forward pass returns its losses, so that it can be sharded as a whole."""

    def __init__(
        self, network: Network, weights: LossWeights, event_head: EventHead | None,
        place_head: PlaceHead | None = None,
    ):
        super().__init__()
        self.network = network
        self.event_head = event_head
        self.place_head = place_head
        self._weights = weights

    def forward(self, episodes: EpisodeBatch, sample: BatchSample) -> Losses:
        """Return the losses of a batch; see `sequence.training_losses`."""
        return training_losses(
            self.network, episodes, sample, self._weights, self.event_head,
            place_head=self.place_head)


def load_initial_network(folder: Path, settings: TrainingSettings) -> Network:
    """
    Return the network of a checkpoint's transformer/ folder, to train it further.

    :raises CheckpointError: the checkpoint cannot be read.
    :raises ValueError: its sizes differ from the settings.
    """
    network = load_transformer(folder, torch.device('cpu'), torch.float32)
    if network.config != network_config(settings):
        raise ValueError(
            f'{folder} has other sizes than the settings: {network.config}; expected '
            f'{network_config(settings)}')
    return network.requires_grad_(True).train()


def new_trained_network(
    settings: TrainingSettings, initial: Path | None = None, bodies: int = 0,
) -> TrainedNetwork:
    """
    Return a network with an event head and a place head, if their losses have a weight.

    :param initial: a transformer/ folder with the initial weights; None: random.
    :param bodies: number of bodies with known positions.
    """
    trainer = settings.training
    network = (new_network(network_config(settings), settings.seed) if initial is None
               else load_initial_network(initial, settings))
    events = places = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        if trainer.events > 0:
            events = EventHead(network.config.dim, trainer.most_events)
        if trainer.places > 0 and bodies:
            places = PlaceHead(network.config.dim, bodies)
    return TrainedNetwork(
        network, LossWeights(trainer.inverse, trainer.events, trainer.places), events, places)
