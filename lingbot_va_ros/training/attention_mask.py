"""
Attention mask of the training sequence.

A sequence consists of each episode as clean history, followed by slots for frames of noisy chunks.
Chunk ids order both: the video of chunk i has id 2i, its actions 2i + 1.

- Clean tokens attend to clean tokens up to their own id.
- Noisy tokens attend to clean tokens before their own id, and to noisy tokens of the same noisy
  chunk and id.
- For forward dynamics a slot also has a copy of its chunk's actions, given and clean. They attend
  to clean tokens before their chunk and to each other. The noisy video of the same noisy chunk
  attends to them, and so to no token that has attended to its own clean video.
- The window excludes the tokens that a KV cache of as many chunks has evicted when the token is
  written; for clean video, when it is committed. (A full KV cache has the actions of one more
  chunk while a chunk is imagined.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from lingbot_va_ros.training.batch_sampling import BatchSample, NO_FRAME

CLEAN, NOISY, GIVEN, PADDING = range(4)
NO_CHUNK = -1  # the noisy chunk of clean tokens and of empty slots
FAR = 1 << 30

# On CUDA longer sequences (tokens) take flex_attention, whose compilation is worth it only there.
DENSE_TOKENS = 4096
SEGMENT = 96  # queries for which the dense attention selects keys together

# Attention of queries [B, Lq, H, D] over parts of keys and of values, each part [B, Lk, H, D]; to
# [B, Lq, H D].
MaskedAttention = Callable[[Tensor, Sequence[Tensor], Sequence[Tensor]], Tensor]
# Makes the attention of queries over parts of keys from the attributes of their tokens.
MakeAttention = Callable[['TokenAttributes', Sequence['TokenAttributes']], MaskedAttention]


@dataclass(frozen=True)
class TokenAttributes:
    """
    The attributes of tokens that determine the attention mask; int64, of equal shapes.

    :param chunk: the chunk id.
    :param kind: CLEAN, NOISY, GIVEN, or PADDING behind the end of an episode.
    :param noisy_chunk: the number of the noisy chunk, or NO_CHUNK.
    :param min_distance: the smallest distance, in chunk ids, of the clean tokens attended to.
    :param max_distance: the largest distance, in chunk ids, of the clean tokens attended to.
    :param sees_given: 1 if the token attends to the given actions of its noisy chunk.
    """

    chunk: Tensor
    kind: Tensor
    noisy_chunk: Tensor
    min_distance: Tensor
    max_distance: Tensor
    sees_given: Tensor

    def __getitem__(self, index: Any) -> 'TokenAttributes':
        """Return the attributes of some of the tokens."""
        return TokenAttributes(*(getattr(self, field.name)[index] for field in fields(self)))


def may_attend(query: TokenAttributes, key: TokenAttributes) -> Tensor:
    """Return whether queries attend to keys, bool, for attributes with broadcastable shapes."""
    back = query.chunk - key.chunk
    history = (key.kind == CLEAN) & (back >= query.min_distance) & (back <= query.max_distance)
    same_chunk = (query.noisy_chunk == key.noisy_chunk) & (key.kind != CLEAN)
    own = (key.kind == query.kind) & (key.chunk == query.chunk)
    given = (query.sees_given == 1) & (key.kind == GIVEN)
    return history | (same_chunk & (own | given))


def token_attributes(
    sample: BatchSample, frames: Tensor, length: int, video_tokens: int, action_tokens: int,
    given: bool,
) -> tuple[TokenAttributes, TokenAttributes]:
    """
    Return the attributes of the clean tokens, and of those in the slots for noisy chunks.

    Clean: the video and the actions of each frame. Slots: the noisy video, the given actions if
    there are any, and the noisy actions of each slot.

    :param frames: the number of frames of each episode, [B].
    :param length: F; `video_tokens` and `action_tokens` are those of one frame.
    :param given: whether the slots hold given actions.
    :returns: of shape [B, F * tokens] and [B, M * tokens].
    """
    device = sample.chunk_frames.device
    chunk_frames, window = sample.chunk_frames[:, None], sample.window_chunks[:, None]
    max_distance = 2 * window - 1

    def repeated(times: int, chunk: Tensor, *others: object) -> TokenAttributes:
        """Give all tokens of a frame, or slot, the same attributes: [B, frames, times]."""
        parts = {
            field.name: torch.as_tensor(part, device=device)
            for field, part in zip(fields(TokenAttributes), (chunk, *others), strict=True)}
        return TokenAttributes(**{
            name: part.expand(chunk.shape)[..., None].expand(-1, -1, times)
            for name, part in parts.items()})

    frame = torch.arange(length, device=device).expand(len(frames), -1)
    kind = torch.where(frame < frames[:, None], CLEAN, PADDING)
    reach = torch.where(kind == CLEAN, max_distance, FAR)
    chunk = 2 * (frame // chunk_frames)
    clean = [
        # The memory evicts for a whole chunk before its first token is written.
        repeated(video_tokens, chunk, kind, NO_CHUNK, 0, reach - 1, 0),
        repeated(action_tokens, chunk + 1, kind, NO_CHUNK, 0, reach, 0)]

    filled = sample.noisy_frames != NO_FRAME
    number = sample.noisy_chunks
    chunk = torch.where(filled, 2 * (sample.noisy_frames // chunk_frames), 0)
    sees_given = (sample.forward_dynamics[:, None] & filled).long()
    slots = [repeated(
        video_tokens, chunk, NOISY, number, 1, max_distance - sees_given, sees_given)]
    if given:
        slots.append(repeated(action_tokens, chunk + 1, GIVEN, number, 2, max_distance, 0))
    slots.append(repeated(action_tokens, chunk + 1, NOISY, number, 1, max_distance, 0))
    return _by_frame(clean), _by_frame(slots)


def _by_frame(parts: Sequence[TokenAttributes]) -> TokenAttributes:
    return TokenAttributes(*(
        torch.cat([getattr(part, field.name) for part in parts], 2).flatten(1)
        for field in fields(TokenAttributes)))


def attention_for(device: torch.device, tokens: int) -> MakeAttention:
    """Return the attention to use on a device for a number of tokens in a sequence."""
    long = device.type == 'cuda' and tokens > DENSE_TOKENS
    return block_attention if long else dense_attention


def dense_attention(query: TokenAttributes, keys: Sequence[TokenAttributes]) -> MaskedAttention:
    """
    Return PyTorch's attention under dense masks, [B, 1, Lq, Lk].

    It processes the queries in segments, each without the keys before the first and after the last
    to which a query of the segment attends: nearly half of the keys of a causal mask.
    """
    segments = []
    for first in range(0, query.chunk.shape[1], SEGMENT):
        inside = slice(first, first + SEGMENT)
        masks, ranges = [], []
        for key in keys:
            mask = may_attend(query[:, inside, None], key[:, None])
            seen = mask.flatten(0, 1).any(0).nonzero()  # [keys seen, 1]
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
    Compute attention with a bias on the scores, [B, 1, Lq or 1, Lk] float32.

    On a CPU under autocast PyTorch's fused kernel is slower in bfloat16 than in float32, while
    matrix products are several times as fast; there the attention is computed by matrix products.

    :param query: [B, Lq, H, D]; `key` and `value` are [B, Lk, H, D].
    :returns: [B, Lq, H D].
    """
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    if query.device.type == 'cpu' and torch.is_autocast_enabled('cpu'):
        out = _Bf16Attention.apply(query, key, value, bias, torch.get_autocast_dtype('cpu'))
    else:
        out = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=bias.to(query.dtype))
    return out.transpose(1, 2).flatten(2)


class _Bf16Attention(torch.autograd.Function):
    """Attention of [B, H, L, D]: products in bfloat16, the softmax in float32."""

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


def block_attention(query: TokenAttributes, keys: Sequence[TokenAttributes]) -> MaskedAttention:
    """
    Return PyTorch's flex_attention, which skips blocks of fully masked tokens.

    On CUDA it is compiled, which is not tested yet. Compiled for a CPU, where it has a forward
    pass only, it agreed with `dense_attention`. Elsewhere it runs uncompiled, which is slow.
    """
    every = TokenAttributes(*(torch.cat([getattr(key, field.name) for key in keys], 1)
                       for field in fields(TokenAttributes)))

    def mask(batch, _head, one, other):
        return may_attend(query[batch, one], every[batch, other])

    blocks = create_block_mask(
        mask, query.chunk.shape[0], None, query.chunk.shape[1], every.chunk.shape[1],
        device=query.chunk.device)
    run: Callable = flex_attention
    if query.chunk.device.type == 'cuda':
        run = _compiled_flex()

    def attend(q: Tensor, k: Sequence[Tensor], v: Sequence[Tensor]) -> Tensor:
        key, value = torch.cat(list(k), 1), torch.cat(list(v), 1)
        out = run(q.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2),
                  block_mask=blocks)
        return out.transpose(1, 2).flatten(2)
    return attend


@lru_cache(maxsize=1)
def _compiled_flex() -> Callable:
    return torch.compile(flex_attention)
