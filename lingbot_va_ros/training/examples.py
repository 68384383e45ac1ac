"""Turns encoded episodes into batches: normalized, padded, with their instructions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lingbot_va_ros.model.video_vae import VideoVae
from lingbot_va_ros.policy.inference.normalization import normalize
from lingbot_va_ros.robot.action_map import ActionMap
from lingbot_va_ros.specs.channels import CHANNELS
from lingbot_va_ros.specs.checkpoint_config import IMAGES_PER_FRAME
from lingbot_va_ros.specs.policy_file import PolicyFile
from lingbot_va_ros.training.batch_sampling import (
    BatchSample,
    BatchSamplingSettings,
    EpisodeBatch,
    NO_FRAME,
    sample_batch,
)
from lingbot_va_ros.training.latents import EncodedEpisode, normalize_latents

# Minimum distance between the quantiles of a channel (rad, or share of a gripper's opening), so
# that a nearly constant channel is not scaled up to the range of the others.
LEAST_RANGE = 0.1


@dataclass(frozen=True)
class Example:
    """
    One episode in the form of the network's inputs.

    :param latents: [C, F, h, w] float32.
    :param actions: [Ca, F, N, 1] float32.
    :param events: [F] int64.
    :param instructions: indices of the instructions of its task.
    :param places: [F, bodies, 3] float32, positions of bodies in the world frame, m, NaN where the
        scene has no such body.
    :param pairs: [chunks - 1, C, 2 L, h, w] float32, consecutive chunks of L frames encoded
        without older images, for the baseline; else None.
    """

    latents: Tensor
    actions: Tensor
    events: Tensor
    instructions: tuple[int, ...]
    places: Tensor
    pairs: Tensor | None = None


@dataclass(frozen=True)
class Examples:
    """
    All episodes of a training run, and the embeddings of all instructions.

    :param texts: per instruction [rows, text_dim], without zero rows.
    """

    episodes: list[Example]
    texts: list[Tensor]
    channels: tuple[int, ...]

    @property
    def bodies(self) -> int:
        """Return the number of bodies with known positions."""
        return self.episodes[0].places.shape[1]

    def batch(self, indices: Sequence[int] | np.ndarray, rng: np.random.Generator) -> EpisodeBatch:
        """Return some episodes, padded to the longest, each with one of its instructions."""
        chosen = [self.episodes[index] for index in indices]
        texts = [self.texts[rng.choice(each.instructions)] for each in chosen]
        longest = max(each.latents.shape[1] for each in chosen)

        def filled(tensor: Tensor, axis: int) -> Tensor:
            behind = (tensor.ndim - 1 - axis) * (0, 0)
            return functional.pad(tensor, (*behind, 0, longest - tensor.shape[axis]))

        rows = max(map(len, texts))
        return EpisodeBatch(
            latents=torch.stack([filled(each.latents, 1) for each in chosen]),
            actions=torch.stack([filled(each.actions, 1) for each in chosen]),
            frames=torch.tensor([each.latents.shape[1] for each in chosen]),
            text=torch.stack([
                functional.pad(text, (0, 0, 0, rows - len(text))) for text in texts]),
            channels=self.channels,
            events=torch.stack([filled(each.events, 0) for each in chosen]),
            places=torch.stack([filled(each.places, 0) for each in chosen]))


def action_quantiles(
    episodes: Sequence[EncodedEpisode], actions: ActionMap,
) -> tuple[list[float], list[float]]:
    """Return q01 and q99 of each used channel, in robot units, over all commands."""
    rows = np.concatenate([actions.from_joints(each.commands) for each in episodes])
    low, high = np.quantile(rows, (0.01, 0.99), axis=0)
    widen = np.maximum(0, LEAST_RANGE - (high - low)) / 2
    return (np.round(low - widen, 4).tolist(), np.round(high + widen, 4).tolist())


def make_example(
    episode: EncodedEpisode, vae: VideoVae, policy: PolicyFile, actions: ActionMap,
    instructions: Sequence[int], bodies: Sequence[str],
    pairs: np.ndarray | None = None,
) -> Example:
    """
    Return an episode in the form of the network's inputs.

    :param bodies: names of all bodies with known positions, of all scenes.
    :param pairs: see `latents.encode_pairs`.
    :raises ValueError: the policy file has another number of actions per latent frame.
    """
    if policy.actions_per_frame != IMAGES_PER_FRAME:
        raise ValueError(
            f'policy {policy.name}: {policy.actions_per_frame} actions per frame; recordings have '
            f'{IMAGES_PER_FRAME}')
    frames = episode.latents.shape[1]
    rows = actions.from_joints(episode.commands).T.reshape(
        len(policy.used_channels), frames - 1, policy.actions_per_frame)
    channels = normalize(rows, policy.used_channels, policy.q01, policy.q99)[0]
    nothing = torch.zeros(CHANNELS, 1, policy.actions_per_frame, 1)
    places = torch.full((frames, len(bodies), 3), torch.nan)
    columns = [bodies.index(name) for name in episode.bodies]
    places[:, columns] = torch.from_numpy(episode.places).float()
    return Example(
        normalize_latents(episode.latents, vae), torch.cat((nothing, channels), 1),
        torch.from_numpy(episode.events), tuple(instructions), places,
        None if pairs is None else torch.stack([normalize_latents(pair, vae) for pair in pairs]))


def sample_step(
    examples: Examples, count: int, settings: BatchSamplingSettings, seed: Sequence[int],
) -> tuple[EpisodeBatch, BatchSample]:
    """
    Draw the episodes of a training step and its sample.

    :param seed: integers that identify the step; the result depends on them only.
    """
    rng = np.random.default_rng(list(seed))
    indices = rng.integers(len(examples.episodes), size=count)
    episodes = examples.batch(indices, rng)
    return episodes, sample_batch(episodes, settings, _generator(rng))


def sample_last_chunk_step(
    examples: Examples, count: int, settings: BatchSamplingSettings, chunk_frames: int,
    seed: Sequence[int],
) -> tuple[EpisodeBatch, BatchSample]:
    """
    Draw a training step in which a chunk is predicted from the previous chunk alone.

    The episodes are pairs of consecutive chunks of a recording, at their frame positions, with
    latents of a stream that begins with them (`Example.pairs`).
    """
    rng = np.random.default_rng(list(seed))
    pieces, first_frames = [], []
    for index in rng.integers(len(examples.episodes), size=count):
        each = examples.episodes[index]
        pair = int(rng.integers(len(each.pairs)))
        first = pair * chunk_frames
        span = slice(first, first + 2 * chunk_frames)
        pieces.append(replace(
            each, latents=each.pairs[pair], actions=each.actions[:, span],
            events=each.events[span], places=each.places[span]))
        first_frames.append(first)
    episodes = Examples(pieces, examples.texts, examples.channels).batch(range(count), rng)
    sample = sample_batch(episodes, replace(
        settings, chunk_frames=(chunk_frames, chunk_frames), window_chunks=(2, 2),
        noisy_frames=None, replicas=1), _generator(rng))
    offset = torch.tensor(first_frames)
    # The first of the two is history; only the first chunk of an episode is predicted without one.
    memory = (sample.noisy_frames < chunk_frames) & (offset > 0)[:, None]
    return episodes, replace(
        sample, offset=offset, noisy_frames=sample.noisy_frames.masked_fill(memory, NO_FRAME),
        noisy_chunks=sample.noisy_chunks.masked_fill(memory, -1))


def _generator(rng: np.random.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(rng.integers(2 ** 62)))


def frame_counts(examples: Examples) -> dict[str, int]:
    """Return the numbers of episodes and of latent frames."""
    return {'episodes': len(examples.episodes),
            'frames': sum(each.latents.shape[1] for each in examples.episodes)}
