"""
The mixture-of-transformers network of the paper: a video stream and a narrower action stream.

The streams have the same depth and share only the self-attention. In every block the queries, keys
and values of the action tokens are projected to the video's heads, so that both streams attend to
each other and have one KV cache; the output of the attention is projected back. Only the video
stream has cross-attention to the text; the actions depend on it through the video tokens.

At the paper's sizes (30 blocks, widths 3072 and 768) the video stream has 5.00 B parameters and
the action stream 0.36 B. The paper gives about 350 M without a list; this design is the nearest.
No weights of this network are public.
"""

from collections.abc import Sequence
import math
from typing import cast

import torch
from torch import nn, Tensor
from torch.nn import functional

from lingbot_va_ros.model.attention import Attention, sdpa
from lingbot_va_ros.model.transformer import Block, Modality, Network, Stream, Transformer
from lingbot_va_ros.specs.checkpoint_config import TransformerConfig


class MixtureTransformer(Network):
    """
    Two streams, with the methods of the shared backbone.

    :param config: with an action stream (`action_hidden_dim`).
    """

    def __init__(self, config: TransformerConfig, attention: Attention = sdpa):
        super().__init__(config, attention)
        action_dim = _action_dim(config)
        self.action = Modality(config, config.action_channels, action_dim)
        self.action_blocks = nn.ModuleList(
            Block(config, attention, action_dim) for _ in range(config.num_layers))
        self.action_final_modulation = nn.Parameter(torch.empty(2, action_dim))

    @property
    def action_stream(self) -> Stream:
        """The layers of the action tokens."""
        return Stream(
            self.action, cast(Sequence[Block], self.action_blocks), self.action_final_modulation)


def make_network(config: TransformerConfig, attention: Attention = sdpa) -> Network:
    """Return the network of a configuration, without initialized weights."""
    kind = Transformer if config.action_hidden_dim is None else MixtureTransformer
    return kind(config, attention)


@torch.no_grad()
def interpolate_action_stream(network: MixtureTransformer) -> None:
    """
    Initialize the action stream from the video stream, as in the paper.

    Every parameter is that of the video stream, interpolated linearly along the narrower axes. A
    matrix with d in place of D inputs is scaled by sqrt(D / d), so that its outputs have the same
    variance. The projection to the joint width is the inverse interpolation. The action's input
    and output layers, which have no counterpart, are not changed.
    """
    wide, action_dim = network.config.dim, _action_dim(network.config)
    parameters = dict(network.named_parameters())
    for name, target in parameters.items():
        source = parameters.get(_video_name(name))
        if name.endswith('.to_joint_dim.weight'):
            target.copy_(_resized(torch.eye(action_dim), torch.Size((wide, action_dim))))
        elif source is not None:
            scale = 1.0
            if target.dim() == 2 and name.endswith('.weight'):
                scale = math.sqrt(source.shape[1] / target.shape[1])
            target.copy_(_resized(source, target.shape) * scale)


def _action_dim(config: TransformerConfig) -> int:
    if config.action_hidden_dim is None:
        raise ValueError('action_hidden_dim is None; a mixture of transformers needs a number')
    return config.action_hidden_dim


def _video_name(name: str) -> str:
    """Return the name of the video parameter that corresponds to an action parameter, or ''."""
    for ours, theirs in (
            ('action_blocks.', 'blocks.'), ('action_final_modulation', 'final_modulation'),
            ('action.time.', 'video.time.')):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return ''


def _resized(weight: Tensor, shape: torch.Size) -> Tensor:
    """Interpolate a vector or matrix, separately for the stacked parts along an axis."""
    image = weight.float().view(1, 1, -1, weight.shape[-1])
    size = (shape[0] if len(shape) == 2 else 1, shape[-1])
    return functional.interpolate(
        image, size=size, mode='bilinear', align_corners=False).view(shape).to(weight.dtype)
