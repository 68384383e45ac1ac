"""
One training forward over whole episodes: clean history and noisy chunks in one sequence.

A noisy chunk is predicted from what `policy/inference/session.py` would have in memory. Tokens,
positions and time steps are the same (`test/training/test_sequence.py` compares them).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
import math

import torch
from torch import Tensor
from torch.nn import functional

from lingbot_va_ros.model.flow_matching import TIMESTEP_SCALE
from lingbot_va_ros.model.rope import action_positions, rotary_table, video_positions
from lingbot_va_ros.model.transformer import (
    action_tokens,
    cut_patches,
    join_patches,
    JointAttention,
    Network,
    StreamTokens,
)
from lingbot_va_ros.training.batch_sampling import Drawn, Episodes, NO_FRAME
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
from lingbot_va_ros.training.mask import (
    attention_for,
    biased_attention,
    MakeAttention,
    Masked,
    standings,
)


def training_losses(
    network: Network, episodes: Episodes, drawn: Drawn, weights: LossWeights = LossWeights(),
    event_head: EventHead | None = None, attention: MakeAttention | None = None,
    place_head: PlaceHead | None = None,
) -> Losses:
    """
    Return the losses of a batch, in one forward.

    The network is called as a module, so that it may be wrapped or sharded.

    :param episodes: on the network's device, as `drawn`.
    :param event_head: with it the batch needs `events`, with a `place_head` `places`.
    :param attention: what `attention_for` returns by default.
    """
    sequence = build_sequence(episodes, drawn)
    video, action, history = run_sequence(network, episodes, drawn, sequence, attention)
    places = drawn.noisy_frames
    video_errors = frame_errors(video, velocity(
        frames_at(episodes.latents, places), drawn.video_noise))
    channels = list(episodes.channels)
    action_errors = frame_errors(action[:, channels], velocity(
        frames_at(episodes.actions, places), drawn.action_noise)[:, channels])
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
        batch = torch.arange(len(places), device=places.device)[:, None]
        there = torch.arange(episodes.places.shape[1], device=places.device)
        found = place_loss(
            place_head(history),
            torch.cat((episodes.places, episodes.places[batch, places.clamp(min=0)]), 1),
            torch.cat((there < episodes.frames[:, None], places != NO_FRAME), 1))
    return combined(
        video_errors, (places != NO_FRAME) & ~drawn.clamped, drawn.forward_dynamics,
        action_errors, places > 0, events, weights, found)


@dataclass(frozen=True)
class TrainingSequence:
    """
    The contents of one training sequence, F clean frames and M places, and their noise levels.

    :param clean_video: [B, C, F, h, w]; `noisy_video` [B, C, M, h, w].
    :param clean_actions: [B, Ca, F, N, 1]; `given_actions` and `noisy_actions` [B, Ca, M, N, 1],
        the first None where no episode has forward dynamics.
    :param clean_level: [B, F]; the clean actions have none.
    :param video_level: [B, M], 0 where clamped; `action_level` likewise.
    """

    clean_video: Tensor
    noisy_video: Tensor
    clean_actions: Tensor
    given_actions: Tensor | None
    noisy_actions: Tensor
    clean_level: Tensor
    video_level: Tensor
    action_level: Tensor


def build_sequence(episodes: Episodes, drawn: Drawn) -> TrainingSequence:
    """Put noise on the copies of an episode as it was drawn."""
    latents, actions, places = episodes.latents, episodes.actions, drawn.noisy_frames
    used = torch.zeros(actions.shape[1], device=actions.device)
    used[list(episodes.channels)] = 1
    used = used[:, None, None, None]  # [Ca, 1, 1, 1]
    video_level = drawn.video_level.masked_fill(drawn.clamped, 0)
    # The first frame of an episode has no action, and no noise stands for one.
    action_level = drawn.action_level.masked_fill(places == 0, 0)
    clean_video, clean_actions = latents, actions
    if drawn.history_noise is not None:
        clean_video = noised(latents, drawn.history_noise, drawn.history_level)
    if drawn.action_history_noise is not None:
        clean_actions = actions + used * drawn.action_history_noise
        clean_actions[:, :, 0] = actions[:, :, 0]
    return TrainingSequence(
        clean_video=clean_video,
        noisy_video=noised(frames_at(latents, places), drawn.video_noise, video_level),
        clean_actions=clean_actions,
        given_actions=(frames_at(clean_actions, places)
                       if bool(drawn.forward_dynamics.any()) else None),
        noisy_actions=used * noised(
            frames_at(actions, places), drawn.action_noise, action_level),
        clean_level=drawn.history_level, video_level=video_level, action_level=action_level)


def run_sequence(
    network: Network, episodes: Episodes, drawn: Drawn, sequence: TrainingSequence,
    attention: MakeAttention | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """
    Run the network once over a sequence.

    :returns: the velocities of noisy video [B, C, M, h, w] and noisy actions [B, Ca, M, N, 1], and
        the video tokens before the last block, [B, F + M, T, dim].
    """
    config, device = network.config, sequence.clean_video.device
    frames, places = sequence.clean_video.shape[2], sequence.noisy_video.shape[2]
    height, width = sequence.clean_video.shape[3:]
    rows, columns = height // config.patch[1], width // config.patch[2]
    per_frame, given = sequence.clean_actions.shape[3], sequence.given_actions is not None

    index = torch.arange(frames, device=device).expand(len(drawn.offset), -1)
    placed = drawn.noisy_frames.clamp(min=0)
    turned = frames + int(drawn.offset.max())  # frames that the tables cover
    video_table = rotary_table(
        video_positions(turned, rows, columns, 0), config.head_dim, device)
    action_table = rotary_table(
        action_positions(turned, per_frame, 0), config.head_dim, device)

    def rotary(table: Tensor, *parts: Tensor) -> Tensor:
        by_frame = table.unflatten(0, (turned, -1))
        return by_frame[torch.cat(parts, 1) + drawn.offset[:, None]].flatten(1, 2)

    video = StreamTokens(
        cut_patches(torch.cat((sequence.clean_video, sequence.noisy_video), 2), config.patch),
        torch.cat((sequence.clean_level, sequence.video_level), 1) * TIMESTEP_SCALE,
        rotary(video_table, index, placed), places)
    contents = [sequence.clean_actions, sequence.given_actions, sequence.noisy_actions]
    times = [torch.zeros_like(sequence.clean_level), torch.zeros_like(sequence.action_level),
             sequence.action_level * TIMESTEP_SCALE]
    action = StreamTokens(
        action_tokens(torch.cat([part for part in contents if part is not None], 2)),
        torch.cat(times if given else times[::2], 1),
        rotary(action_table, index, *(1 + given) * (placed,)), places)
    clean, standing = standings(
        drawn, episodes.frames, frames, rows * columns, per_frame, given)
    make = attention or attention_for(device, clean.chunk.shape[1] + standing.chunk.shape[1])
    text, read = read_text(episodes.text, episodes.text_rows)
    video_out, action_out, history = network(
        video, action, text,
        _joint_attention(make(clean, [clean]), make(standing, [clean, standing]), frames, places,
                         rows * columns, per_frame), read)
    shape = (*sequence.noisy_video.shape,)
    return (join_patches(video_out, shape, config.patch),
            action_out.permute(0, 3, 1, 2).unsqueeze(-1), history)


def _joint_attention(
    among_clean: Masked, at_places: Masked, frames: int, places: int, video_tokens: int,
    action_tokens: int,
) -> JointAttention:
    """
    Return the attention of both streams' tokens, over F clean frames and M places.

    Clean tokens never look at places, so that they are attended to apart; `video_tokens` and
    `action_tokens` are those of a frame.
    """
    def by_frame(video: Tensor, action: Tensor) -> tuple:
        """Return the clean tokens frame by frame, and those at the places, [B, L, H, D]."""
        video = video.unflatten(1, (-1, video_tokens))  # [B, F + M, T, H, D]
        action = action.unflatten(1, (-1, action_tokens))
        return (
            torch.cat((video[:, :frames], action[:, :frames]), 2).flatten(1, 2),
            torch.cat((video[:, frames:], *action[:, frames:].split(places, 1)), 2).flatten(1, 2))

    def attend(video: tuple, action: tuple, all_wanted: bool) -> tuple:
        query, key, value = (by_frame(*pair) for pair in zip(video, action))
        here = at_places(query[1], key, value).unflatten(1, (places, -1))  # [B, M, tokens, H D]
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


def read_text(text: Tensor, rows: int) -> tuple[Tensor, Masked]:
    """
    Return the text with its zero rows folded into one, and a cross-attention that makes up for it.

    Zero rows all have the same keys and values, so that one that counts as many is the same.

    :param text: [B, T, text_dim], zero behind each text's end.
    :param rows: how many rows there are to be, at least T; further ones are zero.
    """
    used = text.abs().amax(-1) > 0  # [B, T]
    length = used.sum(1)
    longest = int(length.max())
    kept = functional.pad(text[:, :longest], (0, 0, 0, 1))  # one row of zeros behind all
    bias = torch.zeros(kept.shape[:2], device=text.device)
    bias[:, :longest].masked_fill_(~used[:, :longest], -math.inf)
    bias[:, longest] = torch.log((rows - length).float())

    return kept, partial(biased_attention, bias=bias[:, None, None])


def frames_at(content: Tensor, places: Tensor) -> Tensor:
    """Return the frames [B, C, M, ...] of contents [B, C, F, ...] that lie at places [B, M]."""
    batch = torch.arange(len(places), device=places.device)[:, None]
    return content.movedim(2, 1)[batch, places.clamp(min=0)].movedim(1, 2)
