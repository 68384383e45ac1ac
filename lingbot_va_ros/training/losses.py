"""What is minimised: flow-matching losses of video and actions, counts of events, places."""

from dataclasses import dataclass

import torch
from torch import nn, Tensor
from torch.nn import functional

PLACE_UNIT = 0.05  # m


@dataclass(frozen=True)
class LossWeights:
    """What the losses count beside the video's: `inverse` is the paper's lambda."""

    inverse: float = 1.0
    events: float = 0.0
    places: float = 0.0


@dataclass(frozen=True)
class Losses:
    """
    Scalars of one batch; only `total` is to be differentiated.

    `dynamics` (L_dyn) and `forward_dynamics` (L_fdm) are means over the frames predicted in that
    way, `inverse` (L_inv) over the frames with actions; not a number where the batch has none.
    `total` counts every predicted video frame once: of an episode it holds either L_dyn or L_fdm.
    `events` is None without an event head, `places` without a place head.
    """

    total: Tensor
    dynamics: Tensor
    forward_dynamics: Tensor
    inverse: Tensor
    events: Tensor | None = None
    places: Tensor | None = None


class EventHead(nn.Module):
    """
    Tells from a frame's clean video tokens how many events there have been: classes 0 … most.

    It reads what goes into the last block, and takes no part in inference.
    """

    def __init__(self, dim: int, most: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, most + 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits [B, F, most + 1] of tokens [B, F, T, dim]."""
        return self.out(self.norm(tokens.float().mean(2)))


class PlaceHead(nn.Module):
    """
    Tells from a frame's video tokens where bodies of the scene are, clean tokens and noisy ones.

    Without it a network learns late where a thing stands that is small in the picture: what its
    place changes in the other losses is little beside what nobody can foretell, tempo above all.
    It reads what goes into the last block, and takes no part in inference.
    """

    def __init__(self, dim: int, bodies: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, 3 * bodies)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return places [B, F, bodies, 3], m, of tokens [B, F, T, dim]."""
        return PLACE_UNIT * self.out(self.norm(tokens.float().mean(2))).unflatten(-1, (-1, 3))


def noised(clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """
    Move clean numbers to a noise level, on the straight way that the sampler comes back on.

    :param clean: [B, C, F, ...], as `noise`.
    :param level: [B, F], from 0 (clean) to 1 (noise).
    """
    level = level[:, None, :, None, None]
    return (1 - level) * clean + level * noise


def velocity(clean: Tensor, noise: Tensor) -> Tensor:
    """Return what the network is to predict: how the numbers change with the noise level."""
    return noise - clean


def frame_errors(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error of each frame, [B, F], of tensors [B, C, F, ...]."""
    squared = functional.mse_loss(predicted.float(), target.float(), reduction='none')
    return squared.mean((1, 3, 4))


def mean_over(errors: Tensor, counted: Tensor) -> Tensor:
    """Return the mean of the errors that count (bool, of the same shape); NaN of none."""
    return torch.where(counted, errors, 0).sum() / counted.sum()


def event_loss(logits: Tensor, events: Tensor, frames: Tensor) -> Tensor:
    """
    Return the cross-entropy of the number of events so far, over the frames that are there.

    :param logits: [B, F, classes]; `events` [B, F] int64, cut to the last class.
    :param frames: [B], how many of the F frames are there.
    """
    there = torch.arange(events.shape[1], device=events.device) < frames[:, None]
    errors = functional.cross_entropy(
        logits.movedim(-1, 1), events.clamp(max=logits.shape[-1] - 1), reduction='none')
    return mean_over(errors, there)


def place_loss(found: Tensor, places: Tensor, there: Tensor) -> Tensor:
    """
    Return the error of places in units of 5 cm, squared within 1 cm and linear beyond.

    :param found: [B, F, bodies, 3] m, as `places`, where a body that is not there is NaN.
    :param there: [B, F] bool, which frames count.
    """
    known = there[:, :, None, None] & ~places.isnan()
    errors = functional.smooth_l1_loss(
        found / PLACE_UNIT, places.nan_to_num() / PLACE_UNIT, reduction='none', beta=0.2)
    return mean_over(errors, known)


def combined(
    video: Tensor, video_counts: Tensor, forward_dynamics: Tensor, action: Tensor,
    action_counts: Tensor, events: Tensor | None, weights: LossWeights,
    places: Tensor | None = None,
) -> Losses:
    """
    Put the losses of a batch together.

    :param video: errors of predicted frames, [B, M], and which of them count (bool).
    :param forward_dynamics: [B] bool, the episodes whose video was predicted from its actions.
    :param action: as the video's.
    """
    inverse = mean_over(action, action_counts)
    total = mean_over(video, video_counts) + weights.inverse * inverse
    if events is not None:
        total = total + weights.events * events
    if places is not None:
        total = total + weights.places * places
    guided = forward_dynamics[:, None]
    return Losses(
        total, mean_over(video.detach(), video_counts & ~guided),
        mean_over(video.detach(), video_counts & guided), inverse.detach(),
        None if events is None else events.detach(),
        None if places is None else places.detach())
