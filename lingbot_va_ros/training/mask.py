"""
Which token of a training sequence sees which.

A sequence holds each episode as clean history, and beside it places for noisy chunks. Chunk ids
put both on one axis: the video of chunk i is 2i, its actions are 2i + 1.

- Clean tokens see clean ones up to their own id.
- Noisy tokens see clean ones before their own id, and noisy ones of their own noisy chunk and id.
- For forward dynamics a place also holds its chunk's actions once more, given and clean. They see
  clean tokens before their chunk and each other; the noisy video of the same noisy chunk sees
  them, and thereby nothing that has seen its own clean video.
- The window leaves out what a memory of as many chunks has evicted when the token is written; of
  clean video: when it is committed (what a full memory holds while a chunk is imagined reaches
  back further by the actions of one chunk).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from lingbot_va_ros.training.batch_sampling import Drawn, NO_FRAME

CLEAN, NOISY, GIVEN, PADDING = range(4)
NOWHERE = -1  # the noisy chunk of clean tokens, and of empty places
FAR = 1 << 30

DENSE_TOKENS = 4096  # of a sequence; in longer ones flex_attention pays for being compiled
SEGMENT = 96  # queries that the dense attention looks for keys for at once

# Attention of queries [B, Lq, H, D] over parts of keys and of values, each part [B, Lk, H, D]; to
# [B, Lq, H D].
Masked = Callable[[Tensor, Sequence[Tensor], Sequence[Tensor]], Tensor]
# Makes the attention of queries over parts of keys from where each stands.
MakeAttention = Callable[['Standing', Sequence['Standing']], Masked]


@dataclass(frozen=True)
class Standing:
    """
    What decides whom tokens see and who sees them; all of the same shape, int64.

    :param chunk: the chunk id.
    :param copy: CLEAN, NOISY, GIVEN, or PADDING behind the end of an episode.
    :param place: the number of the noisy chunk, or NOWHERE.
    :param nearest: how many ids back clean tokens are seen at the nearest.
    :param farthest: and at the farthest.
    :param guided: 1 where the given actions of the same noisy chunk are seen.
    """

    chunk: Tensor
    copy: Tensor
    place: Tensor
    nearest: Tensor
    farthest: Tensor
    guided: Tensor

    def __getitem__(self, index) -> 'Standing':
        """Return the standing of some of the tokens."""
        return Standing(*(getattr(self, field.name)[index] for field in fields(self)))


def visible(query: Standing, key: Standing) -> Tensor:
    """Return whether queries see keys, bool, of standings that can be broadcast."""
    back = query.chunk - key.chunk
    remembered = (key.copy == CLEAN) & (back >= query.nearest) & (back <= query.farthest)
    beside = (query.place == key.place) & (key.copy != CLEAN)
    own = (key.copy == query.copy) & (key.chunk == query.chunk)
    given = (query.guided == 1) & (key.copy == GIVEN)
    return remembered | (beside & (own | given))


def standings(
    drawn: Drawn, frames: Tensor, length: int, video_tokens: int, action_tokens: int, given: bool,
) -> tuple[Standing, Standing]:
    """
    Return where the clean tokens stand, and those at the places for noisy chunks.

    Clean: the video and the actions of each frame. Places: of each the noisy video, the given
    actions if there are such, the noisy actions.

    :param frames: how many of the frames are there, [B].
    :param length: F; `video_tokens` and `action_tokens` are those of a frame.
    :param given: whether the places hold given actions.
    """
    device = drawn.chunk_frames.device
    chunk_frames, window = drawn.chunk_frames[:, None], drawn.window_chunks[:, None]
    farthest = 2 * window - 1

    def stand(times: int, chunk: Tensor, *others: object) -> Standing:
        """Let as many tokens of each frame, or place, stand alike: [B, frames, times]."""
        parts = {field.name: torch.as_tensor(part, device=device) for field, part in zip(
            fields(Standing), (chunk, *others))}
        return Standing(**{name: part.expand(chunk.shape)[..., None].expand(-1, -1, times)
                           for name, part in parts.items()})

    frame = torch.arange(length, device=device).expand(len(frames), -1)
    copy = torch.where(frame < frames[:, None], CLEAN, PADDING)
    reach = torch.where(copy == CLEAN, farthest, FAR)
    chunk = 2 * (frame // chunk_frames)
    clean = [
        # A chunk's room is made before its first token is written.
        stand(video_tokens, chunk, copy, NOWHERE, 0, reach - 1, 0),
        stand(action_tokens, chunk + 1, copy, NOWHERE, 0, reach, 0)]

    filled = drawn.noisy_frames != NO_FRAME
    chunk = torch.where(filled, 2 * (drawn.noisy_frames // chunk_frames), 0)
    guided = (drawn.forward_dynamics[:, None] & filled).long()
    places = [
        stand(video_tokens, chunk, NOISY, drawn.noisy_chunks, 1, farthest - guided, guided)]
    if given:
        places.append(stand(action_tokens, chunk + 1, GIVEN, drawn.noisy_chunks, 2, farthest, 0))
    places.append(stand(action_tokens, chunk + 1, NOISY, drawn.noisy_chunks, 1, farthest, 0))
    return _by_frame(clean), _by_frame(places)


def _by_frame(parts: Sequence[Standing]) -> Standing:
    return Standing(*(
        torch.cat([getattr(part, field.name) for part in parts], 2).flatten(1)
        for field in fields(Standing)))


def attention_for(device: torch.device, tokens: int) -> MakeAttention:
    """Return the attention that suits a device and the tokens of a sequence."""
    long = device.type == 'cuda' and tokens > DENSE_TOKENS
    return block_attention if long else dense_attention


def dense_attention(query: Standing, keys: Sequence[Standing]) -> Masked:
    """
    Return PyTorch's attention under masks that are written out, [B, 1, Lq, Lk].

    It goes through the queries in segments and leaves out keys before the first and behind the
    last that one of a segment sees in any row, which of a causal mask is nearly half.
    """
    segments = []
    for first in range(0, query.chunk.shape[1], SEGMENT):
        inside = slice(first, first + SEGMENT)
        masks, ranges = [], []
        for key in keys:
            mask = visible(query[:, inside, None], key[:, None])
            seen = mask.flatten(0, 1).any(0).nonzero()
            ends = slice(int(seen[0]), int(seen[-1]) + 1) if len(seen) else slice(0, 0)
            masks.append(mask[..., ends])
            ranges.append(ends)
        mask = torch.cat(masks, -1)[:, None]
        bias = torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -torch.inf)
        segments.append((inside, ranges, bias))

    def attend(q: Tensor, k: Sequence[Tensor], v: Sequence[Tensor]) -> Tensor:
        out = []
        for inside, ranges, bias in segments:
            some_k, some_v = (
                torch.cat([part[:, ends] for part, ends in zip(parts, ranges)], 1)
                for parts in (k, v))
            out.append(biased_attention(q[:, inside], some_k, some_v, bias))
        return torch.cat(out, 1)
    return attend


def biased_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """
    Attend with what is added to the scores, bias [B, 1, Lq or 1, Lk] float32.

    On a CPU under autocast PyTorch's kernel is slower in half precision than in full, and
    matrix products are several times as fast: there it is written out.
    """
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    if query.device.type == 'cpu' and torch.is_autocast_enabled('cpu'):
        out = _WrittenOut.apply(query, key, value, bias, torch.get_autocast_dtype('cpu'))
    else:
        out = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=bias.to(query.dtype))
    return out.transpose(1, 2).flatten(2)


class _WrittenOut(torch.autograd.Function):
    """Attention of [B, H, L, D]: products in half precision, the softmax in float32."""

    @staticmethod
    def forward(ctx, query, key, value, bias, dtype):
        query, key, value = (part.to(dtype).contiguous() for part in (query, key, value))
        scale = query.shape[-1] ** -0.5
        scores = torch.matmul(query, key.transpose(-1, -2)).float().mul_(scale).add_(bias)
        weights = scores.softmax(-1).to(dtype)
        out = torch.matmul(weights, value)
        ctx.save_for_backward(query, key, value, weights, out)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx, grad):
        query, key, value, weights, out = ctx.saved_tensors
        grad = grad.to(query.dtype)
        grad_value = torch.matmul(weights.transpose(-1, -2), grad)
        scores = torch.matmul(grad, value.transpose(-1, -2)).float()
        scores.sub_((grad.float() * out.float()).sum(-1, keepdim=True)).mul_(ctx.scale)
        scores = scores.mul_(weights).to(query.dtype)
        return (torch.matmul(scores, key), torch.matmul(scores.transpose(-1, -2), query),
                grad_value, None, None)


def block_attention(query: Standing, keys: Sequence[Standing]) -> Masked:
    """
    Return PyTorch's flex_attention, which leaves out blocks of tokens that nobody sees.

    On CUDA it is compiled, which has not been run yet; compiled for a CPU, which has a forward
    only, it gave the numbers of `dense_attention`. Elsewhere it runs as written, and slowly.
    """
    every = Standing(*(torch.cat([getattr(key, field.name) for key in keys], 1)
                       for field in fields(Standing)))

    def mask(batch, _head, one, other):
        return visible(query[batch, one], every[batch, other])

    blocks = create_block_mask(
        mask, query.chunk.shape[0], None, query.chunk.shape[1], every.chunk.shape[1],
        device=query.chunk.device)
    run = _compiled_flex() if query.chunk.device.type == 'cuda' else flex_attention

    def attend(q: Tensor, k: Sequence[Tensor], v: Sequence[Tensor]) -> Tensor:
        key, value = torch.cat(list(k), 1), torch.cat(list(v), 1)
        out = run(q.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2),
                  block_mask=blocks)
        return out.transpose(1, 2).flatten(2)
    return attend


@lru_cache(maxsize=1)
def _compiled_flex() -> Callable:
    return torch.compile(flex_attention)
