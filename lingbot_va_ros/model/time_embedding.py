"""Embeds time steps of flow matching and projects them to modulation vectors of the blocks."""

from collections import OrderedDict
from collections.abc import Sequence
import math
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional

from lingbot_va_ros.model.onednn import Linear
from lingbot_va_ros.specs.checkpoint_config import TransformerConfig

LOG_LONGEST_PERIOD = math.log(10000.0)  # of the sinusoids
# Cached time steps of whole chunks: 25 video and 50 action steps, those of chunk 0, which is
# partly clamped, and those of imagined frames; about 60 MB at the public sizes.
KEPT_STEPS = 256


class TimeEmbedder(nn.Module):
    """
    Maps a time step by sinusoids and two layers to the six modulation vectors of each block.

    In the public code: `time_embedder` (diffusers' TimestepEmbedding) and `time_proj`.
    """

    def __init__(self, config: TransformerConfig, dim: int):
        super().__init__()
        self.frequencies = config.time_frequencies
        self.hidden = Linear(config.time_frequencies, dim)
        self.out = Linear(dim, dim)
        self.vectors = Linear(dim, 6 * dim)
        # Results of `at` by time steps, newest last, and the weights of which they are results.
        self._kept: OrderedDict[tuple[float, ...], tuple[Tensor, Tensor]] = OrderedDict()
        self._kept_of: tuple = ()

    def forward(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """
        Embed time steps.

        :param timesteps: [...], 0 … 1000.
        :returns: embedding [..., dim] and block vectors [..., 6, dim], float32.
        """
        wave = sinusoids(timesteps, self.frequencies).to(self.hidden.weight.dtype)
        embedding = self.out(functional.silu(self.hidden(wave)))
        vectors = self.vectors(functional.silu(embedding)).unflatten(-1, (6, -1))
        return embedding.float(), vectors.float()

    def at(self, steps: Sequence[float]) -> tuple[Tensor, Tensor]:
        """
        Return the result of `forward` for steps [F] on the host.

        In inference mode results are cached by steps and weights, so that a denoising loop does
        not wait for copies from the host.
        """
        if not torch.is_inference_mode_enabled():
            return self(self._on_device(steps))
        weights = tuple(
            (id(weight), None if weight.is_inference() else weight._version)
            for weight in self.parameters())
        if weights != self._kept_of:
            self._kept.clear()
            self._kept_of = weights
        key = tuple(steps)
        if key in self._kept:
            self._kept.move_to_end(key)
        else:
            self._kept[key] = self(self._on_device(steps))
            if len(self._kept) > KEPT_STEPS:
                self._kept.popitem(last=False)
        return self._kept[key]

    def _apply(self, *args: Any, **kwargs: Any) -> 'TimeEmbedder':
        self._kept.clear()  # after a move or cast, which keeps the parameter objects
        return super()._apply(*args, **kwargs)

    def _on_device(self, steps: Sequence[float]) -> Tensor:
        return torch.tensor(steps, dtype=torch.float32, device=self.hidden.weight.device)


def sinusoids(timesteps: Tensor, features: int) -> Tensor:
    """
    Return cosines, then sines, of time steps [...], [..., features] float32.

    The frequencies are those of diffusers' `Timesteps`, 10000 ** (-i / half). They are computed
    in float64 and rounded once: float32 exponentials of two CPUs differ in the last bit, which
    changes an angle at step 1000 by 3e-5.
    """
    half = features // 2
    exponent = torch.arange(half, dtype=torch.float64, device=timesteps.device) / half
    frequency = torch.exp(exponent * -LOG_LONGEST_PERIOD).float()
    angle = timesteps.float()[..., None] * frequency
    return torch.cat((angle.cos(), angle.sin()), -1)
