"""
Runs the network once over whole episodes: clean history and noisy chunks in one sequence.

A noisy chunk is predicted from the tokens that `policy/inference/session.py` would hold in its KV
cache. Tokens, positions and time steps are the same (`test/training/test_sequence.py` compares
them).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
import math

import torch
from torch import Tensor
from torch.nn import functional

from lingbot_va_ros.model.flow_matching import TIMESTEP_SCALE
from lingbot_va_ros.model.patches import action_tokens, cut_patches, join_patches
from lingbot_va_ros.model.rope import action_positions, rotary_table, video_positions
from lingbot_va_ros.model.transformer import JointAttention, Network, StreamTokens
from lingbot_va_ros.training.attention_mask import (
    attention_for,
    biased_attention,
    MakeAttention,
    MaskedAttention,
    token_attributes,
)
from lingbot_va_ros.training.batch_sampling import BatchSample, EpisodeBatch, NO_FRAME
from lingbot_va_ros.training.losses import (
    combined,
    event_loss,
    EventHead,
    frame_errors,
    Losses,
    LossWeights,
    noised,
    place_loss,
    PlaceHead,
    velocity,
)


def training_losses(
    network: Network, episodes: EpisodeBatch, sample: BatchSample,
    weights: LossWeights = LossWeights(),
    event_head: EventHead | None = None, attention: MakeAttention | None = None,
    place_head: PlaceHead | None = None,
) -> Losses:
    """
    Return the losses of a batch, in one forward pass.

    The network is called as a module, so that it can be wrapped or sharded.

    :param episodes: the batch, on the device of the network; `sample` too.
    :param event_head: needs `episodes.events`; `place_head` needs `episodes.places`.
    :param attention: None takes the one that `attention_for` returns.
    :raises ValueError: a head is given without its targets.
    """
    sequence = build_sequence(episodes, sample)
    video, action, history = run_sequence(network, episodes, sample, sequence, attention)
    slots = sample.noisy_frames
    video_errors = frame_errors(video, velocity(
        frames_of(episodes.latents, slots), sample.video_noise))
    channels = list(episodes.channels)
    action_errors = frame_errors(action[:, channels], velocity(
        frames_of(episodes.actions, slots), sample.action_noise)[:, channels])
    events = None
    if event_head is not None:
        if episodes.events is None:
            raise ValueError('an event head needs episodes with events')
        events = event_loss(
            event_head(history[:, :episodes.latents.shape[2]]), episodes.events, episodes.frames)
    found = None
    if place_head is not None:
        if episodes.places is None:
            raise ValueError('a place head needs episodes with places')
        batch = torch.arange(len(slots), device=slots.device)[:, None]
        there = torch.arange(episodes.places.shape[1], device=slots.device)
        found = place_loss(
            place_head(history),
            torch.cat((episodes.places, episodes.places[batch, slots.clamp(min=0)]), 1),
            torch.cat((there < episodes.frames[:, None], slots != NO_FRAME), 1))
    return combined(
        video_errors, (slots != NO_FRAME) & ~sample.clamped, sample.forward_dynamics,
        action_errors, slots > 0, events, weights, found)


@dataclass(frozen=True)
class TrainingSequence:
    """
    The contents of one training sequence, F clean frames and M slots, and their noise levels.

    :param clean_video: [B, C, F, h, w]; `noisy_video` is [B, C, M, h, w].
    :param clean_actions: [B, Ca, F, N, 1]; `given_actions` and `noisy_actions` are
        [B, Ca, M, N, 1]. `given_actions` is None where no episode has forward dynamics.
    :param clean_level: noise levels of the clean video, [B, F]; the clean actions have none.
    :param video_level: noise levels, [B, M], 0 where clamped; `action_level` likewise.
    """

    clean_video: Tensor
    noisy_video: Tensor
    clean_actions: Tensor
    given_actions: Tensor | None
    noisy_actions: Tensor
    clean_level: Tensor
    video_level: Tensor
    action_level: Tensor


def build_sequence(episodes: EpisodeBatch, sample: BatchSample) -> TrainingSequence:
    """Return clean and noisy copies of the episodes for a sample."""
    latents, actions, slots = episodes.latents, episodes.actions, sample.noisy_frames
    used = torch.zeros(actions.shape[1], device=actions.device)
    used[list(episodes.channels)] = 1
    used = used[:, None, None, None]  # [Ca, 1, 1, 1]
    video_level = sample.video_level.masked_fill(sample.clamped, 0)
    # The first frame of an episode has no actions, hence no noise.
    action_level = sample.action_level.masked_fill(slots == 0, 0)
    clean_video, clean_actions = latents, actions
    if sample.history_noise is not None:
        clean_video = noised(latents, sample.history_noise, sample.history_level)
    if sample.action_history_noise is not None:
        clean_actions = actions + used * sample.action_history_noise
        clean_actions[:, :, 0] = actions[:, :, 0]
    return TrainingSequence(
        clean_video=clean_video,
        noisy_video=noised(frames_of(latents, slots), sample.video_noise, video_level),
        clean_actions=clean_actions,
        given_actions=(frames_of(clean_actions, slots)
                       if bool(sample.forward_dynamics.any()) else None),
        noisy_actions=used * noised(
            frames_of(actions, slots), sample.action_noise, action_level),
        clean_level=sample.history_level, video_level=video_level, action_level=action_level)


def run_sequence(
    network: Network, episodes: EpisodeBatch, sample: BatchSample, sequence: TrainingSequence,
    attention: MakeAttention | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """
    Run one forward pass of the network over a sequence.

    :returns: the velocities of noisy video [B, C, M, h, w] and noisy actions [B, Ca, M, N, 1], and
        the video tokens before the last block, [B, F + M, T, dim].
    """
    config, device = network.config, sequence.clean_video.device
    frames, slots = sequence.clean_video.shape[2], sequence.noisy_video.shape[2]
    height, width = sequence.clean_video.shape[3:]
    rows, columns = height // config.patch[1], width // config.patch[2]
    per_frame, given = sequence.clean_actions.shape[3], sequence.given_actions is not None

    index = torch.arange(frames, device=device).expand(len(sample.offset), -1)
    frame_of_slot = sample.noisy_frames.clamp(min=0)
    table_frames = frames + int(sample.offset.max())  # frames that the tables cover
    video_table = rotary_table(
        video_positions(table_frames, rows, columns, 0), config.head_dim, device)
    action_table = rotary_table(
        action_positions(table_frames, per_frame, 0), config.head_dim, device)

    def rotary(table: Tensor, *parts: Tensor) -> Tensor:
        by_frame = table.unflatten(0, (table_frames, -1))
        return by_frame[torch.cat(parts, 1) + sample.offset[:, None]].flatten(1, 2)

    video = StreamTokens(
        cut_patches(torch.cat((sequence.clean_video, sequence.noisy_video), 2), config.patch),
        torch.cat((sequence.clean_level, sequence.video_level), 1) * TIMESTEP_SCALE,
        rotary(video_table, index, frame_of_slot), slots)
    contents = [sequence.clean_actions, sequence.given_actions, sequence.noisy_actions]
    times = [torch.zeros_like(sequence.clean_level), torch.zeros_like(sequence.action_level),
             sequence.action_level * TIMESTEP_SCALE]
    action = StreamTokens(
        action_tokens(torch.cat([part for part in contents if part is not None], 2)),
        torch.cat(times if given else times[::2], 1),
        rotary(action_table, index, *(1 + given) * (frame_of_slot,)), slots)
    clean, slot_tokens = token_attributes(
        sample, episodes.frames, frames, rows * columns, per_frame, given)
    make = attention or attention_for(device, clean.chunk.shape[1] + slot_tokens.chunk.shape[1])
    text, read = read_text(episodes.text, episodes.text_rows)
    video_out, action_out, history = network(
        video, action, text,
        _joint_attention(
            make(clean, [clean]), make(slot_tokens, [clean, slot_tokens]), frames, slots,
            rows * columns, per_frame), read)
    shape = (*sequence.noisy_video.shape,)
    return (join_patches(video_out, shape, config.patch),
            action_out.permute(0, 3, 1, 2).unsqueeze(-1), history)


def _joint_attention(
    among_clean: MaskedAttention, in_slots: MaskedAttention, frames: int, slots: int,
    video_tokens: int, action_tokens: int,
) -> JointAttention:
    """
    Return the attention of both streams' tokens, over F clean frames and M slots.

    Clean tokens never attend to slots, so their attention is computed separately. `video_tokens`
    and `action_tokens` are the tokens of one frame.
    """
    def by_frame(video: Tensor, action: Tensor) -> tuple:
        """Return the clean tokens frame by frame, and those in the slots, [B, L, H, D]."""
        video = video.unflatten(1, (-1, video_tokens))  # [B, F + M, T, H, D]
        action = action.unflatten(1, (-1, action_tokens))
        return (
            torch.cat((video[:, :frames], action[:, :frames]), 2).flatten(1, 2),
            torch.cat((video[:, frames:], *action[:, frames:].split(slots, 1)), 2).flatten(1, 2))

    def attend(video: tuple, action: tuple, all_wanted: bool) -> tuple:
        query, key, value = (by_frame(*pair) for pair in zip(video, action))
        here = in_slots(query[1], key, value).unflatten(1, (slots, -1))  # [B, M, tokens, H D]
        here_video, *here_actions = (
            part.flatten(1, 2) for part in _split(here, video_tokens, action_tokens))
        if not all_wanted:
            return here_video, here_actions[-1]
        past = among_clean(query[0], key[:1], value[:1]).unflatten(1, (frames, -1))
        past_video, past_actions = (
            part.flatten(1, 2) for part in _split(past, video_tokens, action_tokens))
        return (torch.cat((past_video, here_video), 1),
                torch.cat((past_actions, *here_actions), 1))
    return attend


def _split(by_frame: Tensor, video_tokens: int, action_tokens: int) -> Sequence[Tensor]:
    """Split the tokens of each frame, [B, F, tokens, ...], into video and actions."""
    actions = (by_frame.shape[2] - video_tokens) // action_tokens
    return by_frame.split((video_tokens, *actions * (action_tokens,)), 2)


def read_text(text: Tensor, rows: int) -> tuple[Tensor, MaskedAttention]:
    """
    Return the text with its zero rows merged into one, and the cross-attention for it.

    All zero rows have the same keys and values: one row whose score is raised by log(n) gives the
    same attention as n rows.

    :param text: [B, T, text_dim], zero behind each text's end.
    :param rows: number of rows that the network expects, at least T; further ones are zero.
    :returns: text [B, rows kept, text_dim] and its attention.
    """
    used = text.abs().amax(-1) > 0  # [B, T]
    length = used.sum(1)
    longest = int(length.max())
    kept = functional.pad(text[:, :longest], (0, 0, 0, 1))  # one row of zeros at the end
    bias = torch.zeros(kept.shape[:2], device=text.device)
    bias[:, :longest].masked_fill_(~used[:, :longest], -math.inf)
    bias[:, longest] = torch.log((rows - length).float())

    return kept, partial(biased_attention, bias=bias[:, None, None])


def frames_of(content: Tensor, slots: Tensor) -> Tensor:
    """Return the frames [B, C, M, ...] of contents [B, C, F, ...] by their numbers [B, M]."""
    batch = torch.arange(len(slots), device=slots.device)[:, None]
    return content.movedim(2, 1)[batch, slots.clamp(min=0)].movedim(1, 2)
