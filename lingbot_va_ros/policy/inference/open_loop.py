"""Open loop: from one image of each camera to chunks of imagined video and actions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
import time

import numpy as np
import torch
from torch import Tensor

from lingbot_va_ros.policy.inference.engine import Chunk, Engine
from lingbot_va_ros.policy.inference.noise import chunk_noise, ChunkNoise
from lingbot_va_ros.policy.interrupt import Interrupt, UNINTERRUPTED
from lingbot_va_ros.specs.policy_file import Sampling


@dataclass(frozen=True)
class Imagination:
    """
    The concatenated chunks of an open-loop prediction.

    :param actions: [n, used] float32 in robot units: F N per chunk, without the first N, which
        belong to the given image.
    :param chunk_of: [n], index of the chunk of each action.
    :param latents: [1, C, chunks F, h, w].
    :param seconds: duration of each chunk's prediction.
    """

    actions: np.ndarray
    chunk_of: np.ndarray
    latents: Tensor
    seconds: tuple[float, ...]


def forwards_per_chunk(video: Sampling, action: Sampling) -> int:
    """Return how often a prediction checks its interrupt."""
    return (video.exec_steps if video.exec_steps > 0 else video.steps + 1) + action.steps


def imagine(
    engine: Engine, images: Mapping[str, np.ndarray], chunks: int,
    interrupt: Interrupt = UNINTERRUPTED,
    chunk_done: Callable[[float], None] = lambda seconds: None, noise: ChunkNoise = chunk_noise,
) -> Imagination:
    """
    Begin an episode with `images` and predict consecutive chunks without observations.

    :param images: RGB uint8 [H, W, 3] per camera, of any size.
    :param interrupt: checked before every forward pass.
    :param chunk_done: called after every chunk with its duration in seconds.
    :param noise: draws the initial noise of each chunk; called as `chunk_noise`.
    :raises ValueError: a camera without an image, or an image of another kind.
    :raises FloatingPointError: the network's output is not finite.
    """
    engine.reset()
    engine.begin_episode(images)
    predicted: list[Chunk] = []
    seconds: list[float] = []
    for number in range(chunks):
        begin = time.monotonic()
        chunk = engine.predict_further(interrupt, noise)
        finite = bool(chunk.latents.isfinite().all()) and np.isfinite(chunk.actions).all()
        seconds.append(time.monotonic() - begin)
        if not finite:
            raise FloatingPointError(
                f'chunk {number + 1}: the network predicted numbers that are not finite')
        predicted.append(chunk)
        chunk_done(seconds[-1])
    return Imagination(
        np.concatenate([chunk.actions for chunk in predicted]),
        np.repeat(np.arange(chunks), [len(chunk.actions) for chunk in predicted]),
        torch.cat([chunk.latents for chunk in predicted], 2), tuple(seconds))
