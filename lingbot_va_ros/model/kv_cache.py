"""The key/value memory: what the model has seen and done, as one preallocated window per layer."""

from collections import deque
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenGroup:
    """Tokens that one forward wrote: how many, and whether they stand for a prediction."""

    tokens: int
    provisional: bool


@dataclass(frozen=True)
class Place:
    """Where one forward writes its keys and values, and what it attends to."""

    memory: 'KVMemory'
    first: int  # oldest slot that is seen
    slots: slice  # where the new tokens go; the last that are seen
    rows: slice  # guidance halves

    def write_and_read(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write a layer's new keys and values [B, L, H, D]; return all that are seen."""
        keys, values = self.memory.keys[layer, self.rows], self.memory.values[layer, self.rows]
        keys[:, self.slots] = key
        values[:, self.slots] = value
        seen = slice(self.first, self.slots.stop)
        return keys[:, seen], values[:, seen]

    def for_rows(self, rows: slice) -> 'Place':
        """Return the same place for other guidance halves."""
        return replace(self, rows=rows)


@dataclass(frozen=True)
class MemoryState:
    """
    A copy of confirmed tokens in host memory.

    `keys` and `values` are [layers, rows, T, H, D], `groups` their tokens as they were written,
    `first` the slot of the oldest in the buffer of `length` slots, of which `capacity` are valid
    at a time.
    """

    keys: Tensor
    values: Tensor
    groups: tuple[TokenGroup, ...]
    first: int
    capacity: int
    length: int

    @property
    def sizes(self) -> str:
        """One line: what the memory it came from must be like to take it back."""
        layers, rows, _, heads, head_dim = self.keys.shape
        return _sizes(layers, rows, self.capacity, heads, head_dim, self.keys.dtype)


class KVMemory:
    """
    Keys and values of all layers, oldest token first, in one allocation.

    The valid tokens are always the slice [start, end) of the buffer: forgetting the oldest moves
    `start`, dropping predictions moves `end`, and attention reads a plain slice, with no gather,
    no mask and no synchronisation. The buffer is longer than the capacity by `spare` tokens; when
    the slice reaches its end it is moved to the front, in `make_ready` only, so that addresses
    are stable while a chunk is predicted.

    Evicts as the public code does: when a forward needs room, the oldest tokens go, just as many
    as needed, and they stay gone even if the forward's own tokens are not kept. Until the slice
    is moved nothing is overwritten that was evicted, and `rewind` brings it back. Confirmed
    tokens always lie before provisional ones.

    :param rows: 2 with guidance (prompt and negative prompt), else 1.
    :param capacity: the most valid tokens at a time.
    :param spare: tokens of slack; at least what one chunk writes.
    """

    def __init__(
        self, layers: int, rows: int, capacity: int, spare: int, heads: int, head_dim: int,
        device: torch.device, dtype: torch.dtype,
    ):
        # A head's tokens lie together: attention multiplies by head.
        shape = (layers, rows, heads, capacity + spare, head_dim)
        self.keys, self.values = (  # [layers, rows, T, H, D]
            torch.zeros(shape, device=device, dtype=dtype).transpose(2, 3) for _ in range(2))
        self.capacity = capacity
        self.length = capacity + spare
        self.start = 0
        self.end = 0
        self.groups: deque = deque()

    @property
    def rows(self) -> int:
        """Number of guidance halves."""
        return self.keys.shape[1]

    @property
    def sizes(self) -> str:
        """One line: what a state must be like to be put back here."""
        layers, rows, _, heads, head_dim = self.keys.shape
        return _sizes(layers, rows, self.capacity, heads, head_dim, self.keys.dtype)

    @property
    def valid(self) -> int:
        """Number of tokens that attention sees."""
        return self.end - self.start

    @property
    def provisional(self) -> int:
        """Number of valid tokens that stand for a prediction."""
        return sum(group.tokens for group in self.groups if group.provisional)

    def make_ready(self, tokens: int) -> None:
        """
        Make the next `tokens` written tokens fit behind the valid ones.

        :raises ValueError: they are more than the spare room.
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
        Evict what the next `tokens` will displace, before the first of them is written.

        :raises ValueError: more tokens than the capacity.
        """
        if tokens > self.capacity:
            raise ValueError(f'{tokens} tokens do not fit a memory of {self.capacity}')
        self._evict(self.valid + tokens - self.capacity)

    def reserve(self, tokens: int, rows: slice = slice(None)) -> Place:
        """
        Evict what `tokens` new ones displace and return the place to write them to.

        Nothing is valid until `keep`; without it the next forward overwrites the tokens.

        :raises ValueError: more tokens than the capacity.
        """
        self.make_room(tokens)
        self.make_ready(tokens)
        return Place(self, self.start, slice(self.end, self.end + tokens), rows)

    def keep(self, place: Place, provisional: bool) -> None:
        """Make the tokens written to the place just reserved valid."""
        self.groups.append(TokenGroup(place.slots.stop - place.slots.start, provisional))
        self.end = place.slots.stop

    def drop_provisional(self) -> None:
        """Forget every prediction; confirmed tokens are untouched."""
        while self.groups and self.groups[-1].provisional:
            self.end -= self.groups.pop().tokens

    def mark(self) -> tuple:
        """Return what `rewind` needs to undo evictions and writes made before the next move."""
        return self.start, self.end, tuple(self.groups)

    def rewind(self, mark: tuple) -> None:
        """Return to a mark; valid until `make_ready` has moved the window."""
        self.start, self.end = mark[:2]
        self.groups = deque(mark[2])

    def confirmed(self) -> tuple:
        """Return the mark of the confirmed tokens that are valid now."""
        return self.start, self.end - self.provisional, tuple(
            group for group in self.groups if not group.provisional)

    def save(self, mark: tuple | None = None) -> MemoryState:
        """
        Copy the confirmed tokens to host memory.

        :param mark: what was valid at a mark instead of now; usable as for `rewind`.
        """
        start, end, groups = self.confirmed() if mark is None else mark
        layers, rows, _, heads, head_dim = self.keys.shape
        copies = []
        for pool in (self.keys, self.values):
            copy = torch.empty((layers, rows, end - start, heads, head_dim), dtype=pool.dtype)
            for layer in range(layers):  # one at a time: what is gathered on the device is small
                copy[layer].copy_(pool[layer][:, start:end])
            copies.append(copy)
        return MemoryState(*copies, groups, start, self.capacity, self.length)

    def restore(self, state: MemoryState) -> None:
        """
        Replace everything by a saved state, which stays as it is.

        :raises ValueError: it is of a memory of other sizes; nothing has changed then.
        """
        if state.sizes != self.sizes:
            raise ValueError(f'a memory of {state.sizes} does not fit one of {self.sizes}')
        # The same slots where there is a choice: kernels may depend on alignment in the last bit.
        self.start = state.first if state.length == self.length else 0
        self.end = self.start + state.keys.shape[2]
        self.groups = deque(state.groups)
        for pool, copy in ((self.keys, state.keys), (self.values, state.values)):
            for layer in range(len(pool)):
                pool[layer][:, self.start:self.end].copy_(copy[layer])

    def clear(self) -> None:
        """Forget everything."""
        self.groups.clear()
        self.start = self.end = 0

    def _evict(self, tokens: int) -> None:
        while tokens > 0:
            oldest = self.groups.popleft()
            gone = min(tokens, oldest.tokens)
            if gone < oldest.tokens:
                self.groups.appendleft(TokenGroup(oldest.tokens - gone, oldest.provisional))
            self.start += gone
            tokens -= gone


def _sizes(
    layers: int, rows: int, capacity: int, heads: int, head_dim: int, dtype: torch.dtype,
) -> str:
    return (f'{layers} layers, {rows} guidance halves, {capacity} tokens of {heads} x {head_dim} '
            f'numbers in {str(dtype).removeprefix("torch.")}')
