"""Starting noise of chunks, drawn from the seed and the frame counter alone."""

from collections.abc import Callable

import torch
from torch import Tensor

from lingbot_va_ros.policy.inference.chunk_shape import ChunkShape

# A function with the parameters and the result of `chunk_noise`.
ChunkNoise = Callable[[int, int, ChunkShape, int, int], tuple[Tensor, Tensor]]
# Purposes of noise: two draws for one chunk are independent.
PREDICTION, FORWARD_DYNAMICS = 0, 1


def chunk_noise(
    seed: int, first_frame: int, shape: ChunkShape, latent_channels: int, action_channels: int,
) -> tuple[Tensor, Tensor]:
    """
    Draw the starting noise of a chunk's prediction from (seed, frame counter).

    The noise is the same on every device, and the same again after an aborted prediction.

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
    Draw the noise from which forward dynamics imagines a running chunk.

    It is independent of the `chunk_noise` from which the same chunk was predicted.

    :returns: [1, C, F, h, w] float32 on the CPU.
    """
    return torch.randn(
        (1, latent_channels, shape.frames, shape.rows, shape.columns),
        generator=_generator(seed, first_frame, FORWARD_DYNAMICS))


def _generator(seed: int, first_frame: int, purpose: int) -> torch.Generator:
    # On the CPU only the low 32 bits of a seed count.
    return torch.Generator().manual_seed(
        (seed * 1_000_003 + first_frame + purpose * 0x9E3779B1) % 2 ** 63)
