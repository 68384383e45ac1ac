"""Initial noise of chunks, a function of the seed and the frame counter."""

from collections.abc import Callable

import torch
from torch import Tensor

from lingbot_va_ros.policy.inference.chunk_shape import ChunkShape

# A function with the parameters and the result of `chunk_noise`.
ChunkNoise = Callable[[int, int, ChunkShape, int, int], tuple[Tensor, Tensor]]
# Purposes of noise, with independent values for one chunk.
PREDICTION, FORWARD_DYNAMICS = 0, 1


def chunk_noise(
    seed: int, first_frame: int, shape: ChunkShape, latent_channels: int, action_channels: int,
) -> tuple[Tensor, Tensor]:
    """
    Draw the initial noise of a chunk's prediction from (seed, frame counter).

    It does not depend on the device, nor on aborted predictions.

    :param first_frame: frame counter of the chunk's first latent frame.
    :returns: video [1, C, F, h, w] and actions [1, C, F, N, 1], float32 on the CPU.
    """
    generator = _generator(seed, first_frame, PREDICTION)
    video = torch.randn(
        (1, latent_channels, shape.frames, shape.rows, shape.columns), generator=generator)
    action = torch.randn(
        (1, action_channels, shape.frames, shape.actions, 1), generator=generator)
    return video, action


def imagining_noise(
    seed: int, first_frame: int, shape: ChunkShape, latent_channels: int,
) -> Tensor:
    """
    Draw the initial noise of forward dynamics for a running chunk.

    It is independent of the `chunk_noise` of the same chunk.

    :returns: [1, C, F, h, w] float32 on the CPU.
    """
    return torch.randn(
        (1, latent_channels, shape.frames, shape.rows, shape.columns),
        generator=_generator(seed, first_frame, FORWARD_DYNAMICS))


def _generator(seed: int, first_frame: int, purpose: int) -> torch.Generator:
    # The CPU generator uses only the low 32 bits of a seed.
    return torch.Generator().manual_seed(
        (seed * 1_000_003 + first_frame + purpose * 0x9E3779B1) % 2 ** 63)
