"""
Samples the random part of a training step: chunk lengths, noise levels, noise, masks.

    sample = sample_batch(episodes, settings, generator)
    losses = training_losses(network, episodes, sample)  # training/sequence.py
    losses.total.backward()

A training sequence consists of an episode as clean history, followed by noisy chunks that are each
predicted from the history before them. Each noisy chunk has its own noise level and noise, and no
noisy chunk attends to another. One chunk of the episode can therefore be predicted several times
(replicas), and only a part of a long episode (`BatchSamplingSettings.noisy_frames`).
"""

from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from lingbot_va_ros.model.flow_matching import shifted

NO_FRAME = -1  # an empty slot

Tensors = TypeVar('Tensors', 'EpisodeBatch', 'BatchSample')


@dataclass(frozen=True)
class EpisodeBatch:
    """
    B episodes of equal length in latent frames; shorter ones are padded at the end.

    Every episode begins with its first latent frame: the observed image, whose actions are zero.

    :param latents: [B, C, F, h, w] float, normalized latents.
    :param actions: [B, Ca, F, N, 1] float, normalized; unused channels and frame 0 are zero.
    :param frames: [B] int64, number of frames of each episode (at least 2).
    :param text: [B, T, text_dim] float, as `TextEncoder.encode` returns it; rows after the text
        are zero; further zero rows are added up to `text_rows`.
    :param channels: used action channels; the losses ignore the others.
    :param events: [B, F] int64, number of events until each frame's end, for the auxiliary loss;
        None without that loss.
    :param places: [B, F, bodies, 3] float, positions of bodies at each frame's end in the world
        frame, m, NaN where a scene has no such body, for the auxiliary loss; None without it.
    :param text_rows: number of text rows that the network expects.
    """

    latents: Tensor
    actions: Tensor
    frames: Tensor
    text: Tensor
    channels: tuple[int, ...]
    events: Tensor | None = None
    places: Tensor | None = None
    text_rows: int = 512

    def to(self, device: torch.device) -> 'EpisodeBatch':
        """Return the same on another device."""
        return _moved(self, device)


@dataclass(frozen=True)
class BatchSamplingSettings:
    """
    The distributions of a training step. Defaults are the values of the paper, if it has any.

    :param chunk_frames: minimum and maximum latent frames of a chunk, drawn per episode.
    :param window_chunks: minimum and maximum chunks of the memory, including the predicted one.
    :param offset_frames: largest shift of all frame positions of an episode.
    :param video_shift: shift of the flow-matching schedule, as in the policy file;
        `action_shift` likewise.
    :param forward_dynamics: probability that an episode's video is predicted from its actions.
    :param noisy_history: probability that an episode's clean video carries noise.
    :param history_clean: minimum and maximum share of the image in a noisy history before the
        shift (s_aug in the paper), drawn for each frame.
    :param action_history_std: standard deviation of the noise on the history's actions.
    :param noisy_frames: number of slots for frames of noisy chunks in a sequence; chunks are drawn
        until the next one does not fit. None: every chunk of the episode, `replicas` times.
    :param replicas: largest number of noisy chunks for one chunk of the episode.
    """

    chunk_frames: tuple[int, int] = (1, 4)
    window_chunks: tuple[int, int] = (2, 32)
    offset_frames: int = 0
    video_shift: float = 5.0
    action_shift: float = 1.0
    forward_dynamics: float = 0.5
    noisy_history: float = 0.5
    history_clean: tuple[float, float] = (0.5, 1.0)
    action_history_std: float = 0.02
    noisy_frames: int | None = None
    replicas: int = 1

    def __post_init__(self):
        """
        Check the ranges of all numbers.

        :raises ValueError: one line for each.
        """
        faults = [
            f'{name} is {list(pair)}, expected a minimum and a maximum, from {least}'
            for name, pair, least in (
                ('chunk_frames', self.chunk_frames, 1),
                ('window_chunks', self.window_chunks, 1),
                ('history_clean', self.history_clean, 0))
            if not least <= pair[0] <= pair[1]]
        faults += [
            f'{name} is {value}, expected a probability from 0 to 1' for name, value in (
                ('forward_dynamics', self.forward_dynamics),
                ('noisy_history', self.noisy_history)) if not 0 <= value <= 1]
        faults += [
            f'{name} is {value}, expected a number above 0' for name, value in (
                ('video_shift', self.video_shift), ('action_shift', self.action_shift),
                ('replicas', self.replicas)) if not value > 0]
        if self.history_clean[1] > 1:
            faults.append(f'history_clean ends at {self.history_clean[1]}, expected at most 1')
        if self.noisy_frames is not None and self.noisy_frames < self.chunk_frames[1]:
            faults.append(
                f'noisy_frames is {self.noisy_frames}, expected room for the longest chunk '
                f'({self.chunk_frames[1]})')
        for name in ('offset_frames', 'action_history_std'):
            if not getattr(self, name) >= 0:
                faults.append(f'{name} is {getattr(self, name)}, expected at least 0')
        if faults:
            raise ValueError('\n'.join(faults))


@dataclass(frozen=True)
class BatchSample:
    """
    One random sample for a batch: M slots for frames of noisy chunks after the F clean frames.

    Chunk i of an episode holds its frames i L … i L + L - 1, as at inference, where chunk 0 begins
    with the observed frame.

    :param chunk_frames: L of each episode, [B] int64.
    :param window_chunks: chunks of the memory, including the predicted one, [B] int64.
    :param offset: shift of the frame positions, [B] int64.
    :param forward_dynamics: [B] bool: noisy video of these episodes attends to its chunk's
        actions, and counts for L_fdm instead of L_dyn.
    :param history_level: noise level of the clean video, [B, F] float (0: none).
    :param history_noise: standard normal, shape of the latents; None where no history is noised.
    :param action_history_noise: added to the clean actions, of their shape; None: nothing.
    :param noisy_frames: the frame in each slot, [B, M] int64; -1: none.
    :param noisy_chunks: the number of the noisy chunk that a slot belongs to, [B, M] int64, unique
        within an episode; slots of one number attend to each other. -1: none.
    :param clamped: [B, M] bool: the frame's video is given and not predicted (time step 0).
    :param video_level: noise level, [B, M] float, the same within a noisy chunk; `action_level`
        likewise.
    :param video_noise: [B, C, M, h, w] standard normal.
    :param action_noise: [B, Ca, M, N, 1] standard normal.
    """

    chunk_frames: Tensor
    window_chunks: Tensor
    offset: Tensor
    forward_dynamics: Tensor
    history_level: Tensor
    history_noise: Tensor | None
    action_history_noise: Tensor | None
    noisy_frames: Tensor
    noisy_chunks: Tensor
    clamped: Tensor
    video_level: Tensor
    action_level: Tensor
    video_noise: Tensor
    action_noise: Tensor

    def to(self, device: torch.device) -> 'BatchSample':
        """Return the same on another device."""
        return _moved(self, device)


def sample_batch(
    episodes: EpisodeBatch, settings: BatchSamplingSettings, generator: torch.Generator,
) -> BatchSample:
    """
    Draw the random numbers of a training step with these episodes.

    :param generator: on the CPU, so that results do not depend on the device.
    :returns: tensors on the CPU.
    """
    batch, latent_channels, frames, height, width = episodes.latents.shape
    action_channels, per_frame = episodes.actions.shape[1], episodes.actions.shape[3]

    def between(pair: tuple[int, int]) -> Tensor:
        return torch.randint(pair[0], pair[1] + 1, (batch,), generator=generator)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def happens(probability: float) -> Tensor:
        return torch.rand(batch, generator=generator) < probability

    chunk_frames = between(settings.chunk_frames)
    forward = happens(settings.forward_dynamics)
    noised = happens(settings.noisy_history)
    least, most = settings.history_clean
    clean = least + (most - least) * torch.rand(batch, frames, generator=generator)
    history_level = shifted(1 - clean, settings.video_shift) * noised[:, None]

    rows = [_noisy_rows(length, count, given, settings, generator) for length, count, given in zip(
        chunk_frames.tolist(), episodes.frames.tolist(), forward.tolist())]
    slots = settings.noisy_frames or max(len(row) for row in rows)
    laid_out = torch.tensor([
        row + [_EMPTY] * (slots - len(row)) for row in rows])  # [B, M, 3]
    noisy_frames, noisy_chunks, clamped = laid_out.unbind(-1)

    def levels(shift: float) -> Tensor:
        # A value per noisy chunk in (0, 1]: the sampler starts at 1.
        each = 1 - torch.rand(batch, slots, generator=generator)
        return shifted(each.gather(1, noisy_chunks.clamp(min=0)), shift)

    return BatchSample(
        chunk_frames=chunk_frames, window_chunks=between(settings.window_chunks),
        offset=between((0, settings.offset_frames)), forward_dynamics=forward,
        history_level=history_level,
        history_noise=normal(*episodes.latents.shape) if noised.any() else None,
        action_history_noise=(settings.action_history_std * normal(*episodes.actions.shape)
                              if settings.action_history_std > 0 else None),
        noisy_frames=noisy_frames, noisy_chunks=noisy_chunks, clamped=clamped.bool(),
        video_level=levels(settings.video_shift), action_level=levels(settings.action_shift),
        video_noise=normal(batch, latent_channels, slots, height, width),
        action_noise=normal(batch, action_channels, slots, per_frame, 1))


_EMPTY = (NO_FRAME, -1, 0)


def _noisy_rows(
    length: int, frames: int, forward_dynamics: bool, settings: BatchSamplingSettings,
    generator: torch.Generator,
) -> list[tuple]:
    """Return (frame, number of the noisy chunk, clamped) of the slots, in that order."""
    rows: list[tuple] = []
    number = 0

    def order(row: tuple) -> tuple:
        return row[0] // length, row[1], row[0]

    # A first chunk of one frame is the observed image, so nothing is predicted.
    chunks = range(1 if length == 1 else 0, -(-frames // length))
    for _ in range(settings.replicas):
        for index in torch.randperm(len(chunks), generator=generator).tolist():
            chunk = chunks[index]
            inside = range(chunk * length, min(chunk * length + length, frames))
            if settings.noisy_frames is not None and (
                    len(rows) + len(inside) > settings.noisy_frames):
                return sorted(rows, key=order)
            given = 0
            if forward_dynamics:
                given = int(torch.randint(0, len(inside), (), generator=generator))
            given = max(given, 1 if chunk == 0 else 0)
            rows += [(frame, number, int(place < given)) for place, frame in enumerate(inside)]
            number += 1
    return sorted(rows, key=order)


def _moved(tensors: Tensors, device: torch.device) -> Tensors:
    return replace(tensors, **{
        field.name: getattr(tensors, field.name).to(device, non_blocking=True)
        for field in fields(tensors) if isinstance(getattr(tensors, field.name), Tensor)})
