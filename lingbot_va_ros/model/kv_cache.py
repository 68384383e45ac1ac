"""The KV cache: a preallocated sliding window of keys and values for all layers."""

from collections import deque
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenSpan:
    """The tokens that one forward pass wrote, and whether they belong to a prediction."""

    tokens: int
    provisional: bool


class CacheMark(NamedTuple):
    """A snapshot of the valid tokens: the slice [start, end) of the buffer, and its spans."""

    start: int
    end: int
    spans: tuple[TokenSpan, ...]


@dataclass(frozen=True)
class CacheSlot:
    """
    The slots to which one forward pass writes its keys and values, and those it attends to.

    :param oldest: the first slot to attend to.
    :param new: slots of the new tokens, the last ones to attend to.
    :param cfg_batch: rows of the cache's batch (guidance halves) that the forward pass runs.
    """

    cache: 'SlidingKVCache'
    oldest: int
    new: slice
    cfg_batch: slice

    def update(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """
        Write a layer's new keys and values, each [B, L, H, D].

        :returns: views of all keys and values to attend to, each [B, T, H, D].
        """
        keys = self.cache.keys[layer, self.cfg_batch]
        values = self.cache.values[layer, self.cfg_batch]
        keys[:, self.new] = key
        values[:, self.new] = value
        visible = slice(self.oldest, self.new.stop)
        return keys[:, visible], values[:, visible]

    def for_batch(self, cfg_batch: slice) -> 'CacheSlot':
        """Return the same slots for other guidance halves."""
        return replace(self, cfg_batch=cfg_batch)


@dataclass(frozen=True)
class KVCacheState:
    """
    A copy of confirmed tokens in host memory.

    `keys` and `values` are [layers, B, T, H, D], `spans` the spans in which they were written, and
    `first` the slot of the oldest token in a buffer of `length` slots, of which at most `capacity`
    are valid.
    """

    keys: Tensor
    values: Tensor
    spans: tuple[TokenSpan, ...]
    first: int
    capacity: int
    length: int

    @property
    def sizes(self) -> str:
        """Sizes of the cache that can restore this state, in one line."""
        layers, cfg_batch, _, heads, head_dim = self.keys.shape
        return _sizes(layers, cfg_batch, self.capacity, heads, head_dim, self.keys.dtype)


class SlidingKVCache:
    """
    Keys and values of all layers, oldest token first, in one allocation.

    The valid tokens are always the slice [start, end) of the buffer. Eviction increases `start`,
    dropping predictions decreases `end`, and attention reads a slice, without gather, mask or
    synchronization. The buffer is longer than the capacity by `spare` tokens. When
    the slice reaches its end it is moved to the front, in `make_ready` only, so that addresses
    are stable while a chunk is predicted.

    Eviction is that of the public code: a forward pass evicts as many of the oldest tokens as it
    needs slots, and they stay evicted even if its own tokens are not kept. Evicted tokens are
    overwritten only after the slice is moved; until then `rewind` restores them. Confirmed tokens
    always precede provisional ones.

    :param cfg_batch: 2 with classifier-free guidance (prompt and negative prompt), else 1.
    :param capacity: maximum number of valid tokens.
    :param spare: tokens of slack; at least the tokens of one chunk.
    """

    def __init__(
        self, layers: int, cfg_batch: int, capacity: int, spare: int, heads: int, head_dim: int,
        device: torch.device, dtype: torch.dtype,
    ):
        # The tokens of a head are contiguous, because attention multiplies head by head.
        shape = (layers, cfg_batch, heads, capacity + spare, head_dim)
        self.keys, self.values = (  # [layers, B, T, H, D]
            torch.zeros(shape, device=device, dtype=dtype).transpose(2, 3) for _ in range(2))
        self.capacity = capacity
        self.length = capacity + spare
        self.start = 0
        self.end = 0
        self.spans: deque[TokenSpan] = deque()

    @property
    def cfg_batch(self) -> int:
        """Number of guidance halves."""
        return self.keys.shape[1]

    @property
    def sizes(self) -> str:
        """Sizes that a state must have to be restored here, in one line."""
        layers, cfg_batch, _, heads, head_dim = self.keys.shape
        return _sizes(layers, cfg_batch, self.capacity, heads, head_dim, self.keys.dtype)

    @property
    def valid(self) -> int:
        """Number of valid tokens."""
        return self.end - self.start

    @property
    def provisional(self) -> int:
        """Number of valid tokens of a prediction."""
        return sum(span.tokens for span in self.spans if span.provisional)

    def make_ready(self, tokens: int) -> None:
        """
        Move the window to the front of the buffer if the next `tokens` do not fit behind it.

        :raises ValueError: more tokens than the buffer has room for.
        """
        if self.end + tokens <= self.length:
            return
        if self.valid + tokens > self.length:
            raise ValueError(
                f'{tokens} tokens do not fit behind {self.valid} in a buffer of {self.length}')
        for pool in (self.keys, self.values):
            for layer in pool:  # one layer at a time keeps the copy of the moved part small
                layer[:, :self.valid] = layer[:, self.start:self.end].clone()
        self.end -= self.start
        self.start = 0

    def make_room(self, tokens: int) -> None:
        """
        Evict the tokens that the next `tokens` displace, before the first of them is written.

        :raises ValueError: more tokens than the capacity.
        """
        if tokens > self.capacity:
            raise ValueError(f'{tokens} tokens do not fit a memory of {self.capacity}')
        self._evict(self.valid + tokens - self.capacity)

    def reserve(self, tokens: int, cfg_batch: slice = slice(None)) -> CacheSlot:
        """
        Evict the tokens that `tokens` new ones displace, and return the slots of the new ones.

        The new tokens become valid by `keep`; without it the next forward pass overwrites them.

        :raises ValueError: more tokens than the capacity.
        """
        self.make_room(tokens)
        self.make_ready(tokens)
        return CacheSlot(self, self.start, slice(self.end, self.end + tokens), cfg_batch)

    def keep(self, slot: CacheSlot, provisional: bool) -> None:
        """Make the tokens written to the slot that was reserved last valid."""
        self.spans.append(TokenSpan(slot.new.stop - slot.new.start, provisional))
        self.end = slot.new.stop

    def drop_provisional(self) -> None:
        """Drop every predicted token; confirmed tokens are untouched."""
        while self.spans and self.spans[-1].provisional:
            self.end -= self.spans.pop().tokens

    def mark(self) -> CacheMark:
        """Return a mark, with which `rewind` undoes evictions and writes until the next move."""
        return CacheMark(self.start, self.end, tuple(self.spans))

    def rewind(self, mark: CacheMark) -> None:
        """Return to a mark; valid until `make_ready` has moved the window."""
        self.start, self.end = mark.start, mark.end
        self.spans = deque(mark.spans)

    def confirmed(self) -> CacheMark:
        """Return the mark of the confirmed tokens that are valid now."""
        return CacheMark(self.start, self.end - self.provisional, tuple(
            span for span in self.spans if not span.provisional))

    def save(self, mark: CacheMark | None = None) -> KVCacheState:
        """
        Copy the confirmed tokens to host memory.

        :param mark: copy the tokens that were valid at this mark; see `rewind` for its validity.
        """
        start, end, spans = self.confirmed() if mark is None else mark
        layers, cfg_batch, _, heads, head_dim = self.keys.shape
        keys, values = (
            torch.empty((layers, cfg_batch, end - start, heads, head_dim), dtype=self.keys.dtype)
            for _ in range(2))
        for pool, copy in ((self.keys, keys), (self.values, values)):
            for layer in range(layers):  # one layer at a time: a small copy on the device
                copy[layer].copy_(pool[layer][:, start:end])
        return KVCacheState(keys, values, spans, start, self.capacity, self.length)

    def restore(self, state: KVCacheState) -> None:
        """
        Replace the content by a saved state, which is not changed.

        :raises ValueError: the state has other sizes; the cache is then unchanged.
        """
        if state.sizes != self.sizes:
            raise ValueError(f'a memory of {state.sizes} does not fit one of {self.sizes}')
        # The same slots if possible: the last bit of a result may depend on alignment.
        self.start = state.first if state.length == self.length else 0
        self.end = self.start + state.keys.shape[2]
        self.spans = deque(state.spans)
        for pool, copy in ((self.keys, state.keys), (self.values, state.values)):
            for layer in range(len(pool)):
                pool[layer][:, self.start:self.end].copy_(copy[layer])

    def clear(self) -> None:
        """Drop every token."""
        self.spans.clear()
        self.start = self.end = 0

    def _evict(self, tokens: int) -> None:
        while tokens > 0:
            oldest = self.spans.popleft()
            gone = min(tokens, oldest.tokens)
            if gone < oldest.tokens:
                self.spans.appendleft(TokenSpan(oldest.tokens - gone, oldest.provisional))
            self.start += gone
            tokens -= gone


def _sizes(
    layers: int, cfg_batch: int, capacity: int, heads: int, head_dim: int, dtype: torch.dtype,
) -> str:
    return (f'{layers} layers, {cfg_batch} guidance halves, {capacity} tokens of '
            f'{heads} x {head_dim} numbers in {str(dtype).removeprefix("torch.")}')
