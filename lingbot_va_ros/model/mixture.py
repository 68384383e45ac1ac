"""
The mixture-of-transformers network of the paper: a video stream and a narrower action stream.

Both have the same depth and the same kind of blocks; in every block, queries, keys and values of
both have the video's width, so that the streams attend to each other and share one KV memory.
Nothing else is shared. No weights of this network have been released.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lingbot_va_ros.model.attention import Attention, sdpa
from lingbot_va_ros.model.config import TransformerConfig
from lingbot_va_ros.model.transformer import (
    Block, Modality, Network, Stream, TextStates, Transformer, text_states)


@dataclass(frozen=True)
class MixtureTextStates:
    """What each stream reads of one instruction."""

    video: TextStates
    action: TextStates


class MixtureTransformer(Network):
    """
    Two streams, behind the same methods as the shared backbone.

    The video stream has the parameters, and the names, of the shared backbone's video part.

    :param config: with an action stream (`action_hidden_dim`).
    """

    def __init__(self, config: TransformerConfig, attention: Attention = sdpa):
        super().__init__()
        self.config, dim, narrow = config, config.dim, config.action_hidden_dim
        self.video = Modality(config, config.patch_features, dim)
        self.text_hidden = nn.Linear(config.text_dim, dim)
        self.text_out = nn.Linear(dim, dim)
        self.blocks = nn.ModuleList(
            Block(config, attention, dim, config.ffn_dim) for _ in range(config.num_layers))
        self.final_modulation = nn.Parameter(torch.empty(2, dim))

        self.action = Modality(config, config.action_channels, narrow)
        self.action_text_hidden = nn.Linear(config.text_dim, narrow)
        self.action_text_out = nn.Linear(narrow, narrow)
        self.action_blocks = nn.ModuleList(
            Block(config, attention, narrow, config.action_ffn_dim)
            for _ in range(config.num_layers))
        self.action_final_modulation = nn.Parameter(torch.empty(2, narrow))

    @property
    def video_stream(self) -> Stream:
        """What video tokens run through."""
        return Stream(self.video, self.blocks, self.final_modulation)

    @property
    def action_stream(self) -> Stream:
        """What action tokens run through."""
        return Stream(self.action, self.action_blocks, self.action_final_modulation)

    def text_states(self, embeddings: Tensor) -> MixtureTextStates:
        """Return the cross-attention states of instructions [rows, 512, text_dim]."""
        embeddings = embeddings.to(self.device, self.dtype)
        return MixtureTextStates(
            text_states(embeddings, self.text_hidden, self.text_out, self.blocks),
            text_states(
                embeddings, self.action_text_hidden, self.action_text_out, self.action_blocks))

    def states_by_stream(self, text: MixtureTextStates) -> tuple:
        """Return each stream's states."""
        return text.video, text.action


def make_network(config: TransformerConfig, attention: Attention = sdpa) -> Network:
    """Return the network that a configuration asks for, its weights not initialised."""
    kind = Transformer if config.action_hidden_dim is None else MixtureTransformer
    return kind(config, attention)


@torch.no_grad()
def interpolate_action_stream(network: MixtureTransformer) -> None:
    """
    Fill the action stream from the video stream, as the paper initialises it.

    Every parameter becomes the video's, interpolated linearly along the axes that are narrower. A
    matrix that sums over fewer numbers than the video's is scaled by the square root of how many
    times fewer they are (sqrt(D / d)), so that its outputs vary as much. What has no counterpart
    of its own, the action's input and output, keeps what it holds.
    """
    parameters = dict(network.named_parameters())
    for name, target in parameters.items():
        source = parameters.get(_video_name(name))
        if source is None:
            continue
        scale = 1.0
        if target.dim() == 2 and name.endswith('.weight'):
            scale = math.sqrt(source.shape[1] / target.shape[1])
        target.copy_(_resized(source, target.shape) * scale)


def _video_name(name: str) -> str:
    """Return the name of the video parameter that an action parameter stands beside, or ''."""
    for ours, theirs in (
            ('action_blocks.', 'blocks.'), ('action_text_', 'text_'),
            ('action_final_modulation', 'final_modulation'), ('action.time.', 'video.time.')):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return ''


def _resized(weight: Tensor, shape: torch.Size) -> Tensor:
    """Interpolate a vector or matrix; parts of equal size along an axis do not run together."""
    image = weight.float().view(1, 1, -1, weight.shape[-1])
    size = (shape[0] if len(shape) == 2 else 1, shape[-1])
    return functional.interpolate(
        image, size=size, mode='bilinear', align_corners=False).view(shape).to(weight.dtype)
