"""Losses: flow matching of video and actions, event counts and body positions."""

from dataclasses import dataclass

import torch
from torch import nn, Tensor
from torch.nn import functional

PLACE_UNIT = 0.05  # m


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses relative to the video's; `inverse` is the paper's lambda."""

    inverse: float = 1.0
    events: float = 0.0
    places: float = 0.0


@dataclass(frozen=True)
class Losses:
    """
    Losses of one batch, scalars; `total` is minimized.

    `dynamics` (L_dyn) and `forward_dynamics` (L_fdm) are means over the frames predicted in that
    way, `inverse` (L_inv) over the frames with actions; NaN where the batch has none. `total`
    counts every predicted video frame once: an episode has either L_dyn or L_fdm.
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
    Classifies the number of events so far, 0 … most, from a frame's clean video tokens.

    Its input is that of the last block; it is not used for inference.
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
    Regresses the positions of bodies from a frame's video tokens, clean and noisy ones.

    Without it a network learns the position of a small object late: the position has less effect
    on the other losses than their unpredictable part, mostly tempo. Its input is that of the last
    block; it is not used for inference.
    """

    def __init__(self, dim: int, bodies: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, 3 * bodies)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return positions [B, F, bodies, 3], m, of tokens [B, F, T, dim]."""
        return PLACE_UNIT * self.out(self.norm(tokens.float().mean(2))).unflatten(-1, (-1, 3))


def noised(clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """
    Interpolate between clean values and noise: the straight path of rectified flow.

    :param clean: [B, C, F, ...], as `noise`.
    :param level: noise level [B, F], from 0 (clean) to 1 (noise).
    """
    level = level[:, None, :, None, None]
    return (1 - level) * clean + level * noise


def velocity(clean: Tensor, noise: Tensor) -> Tensor:
    """Return the target of the network: the derivative of `noised` by the noise level."""
    return noise - clean


def frame_errors(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error of each frame, [B, F], of tensors [B, C, F, ...]."""
    squared = functional.mse_loss(predicted.float(), target.float(), reduction='none')
    return squared.mean((1, 3, 4))


def mean_over(errors: Tensor, counted: Tensor) -> Tensor:
    """Return the mean of the errors under a bool mask of the same shape; NaN if it is empty."""
    return torch.where(counted, errors, 0).sum() / counted.sum()


def event_loss(logits: Tensor, events: Tensor, frames: Tensor) -> Tensor:
    """
    Return the cross-entropy of the number of events so far, over the frames that exist.

    :param logits: [B, F, classes]; `events` is [B, F] int64, clamped to the last class.
    :param frames: [B], number of frames of each episode.
    """
    there = torch.arange(events.shape[1], device=events.device) < frames[:, None]
    errors = functional.cross_entropy(
        logits.movedim(-1, 1), events.clamp(max=logits.shape[-1] - 1), reduction='none')
    return mean_over(errors, there)


def place_loss(found: Tensor, places: Tensor, there: Tensor) -> Tensor:
    """
    Return the smooth L1 error of positions in units of 5 cm: squared within 1 cm, else linear.

    :param found: [B, F, bodies, 3] m, as `places`, which is NaN for a missing body.
    :param there: [B, F] bool, mask of the frames.
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
    Return all losses of a batch and their weighted sum.

    :param video: errors of predicted frames, [B, M]; `video_counts` is their mask (bool).
    :param forward_dynamics: [B] bool, the episodes whose video was predicted from its actions.
    :param action: errors of predicted actions, [B, M], with their mask `action_counts`.
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
