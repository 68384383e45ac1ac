"""
Roofline model: lower bound of the time of a forward pass on this machine.

A forward pass is limited by its operations at the machine's matrix rate, and by one read of its
weights, keys and values at the machine's copy rate. Both rates are measured in the same run as the
times that are compared with them (Williams et al., "Roofline", CACM 52(4), 2009).
"""

from collections.abc import Callable
from dataclasses import dataclass
import time

import torch

from lingbot_va_ros.cli.bench.settings import Setting
from lingbot_va_ros.model.onednn import Linear
from lingbot_va_ros.model.quantization import QuantizedLinear
from lingbot_va_ros.specs.checkpoint_config import TransformerConfig
from lingbot_va_ros.specs.engine_choices import FULL

TEXT_TOKENS = 512
COPY_BYTES = {'cpu': 2 ** 27, 'cuda': 2 ** 31}  # larger than every cache
MATRIX_SIZE = {'cpu': 1024, 'cuda': 8192}
REPEATS = 5
CLOCKS = {True: time.process_time, False: time.perf_counter}  # by `by_processor_time`


@dataclass(frozen=True)
class MachineRates:
    """Rates per second; a multiply-add counts as two operations."""

    operations: float
    bytes: float

    def best(self, other: 'MachineRates') -> 'MachineRates':
        """Return the higher of both rates each."""
        return MachineRates(max(self.operations, other.operations), max(self.bytes, other.bytes))


@dataclass(frozen=True)
class Forward:
    """
    The sizes of one forward pass.

    :param rows: CFG batch.
    :param tokens: tokens of each row.
    :param seen: tokens to which they attend, including themselves.
    :param writes: only keys and values are computed, so the last block ends with them.
    """

    rows: int
    tokens: int
    seen: int
    features: int
    writes: bool = False


@dataclass(frozen=True)
class ItemBytes:
    """Bytes per number of the weights, and of keys and values."""

    weights: int
    memory: int


def measure_rates(device: torch.device, dtype: torch.dtype, weights: str = FULL) -> MachineRates:
    """
    Return the best of a few copies and matrix products on the device.

    :param weights: a quantized kind is measured too.
    """
    kind = device.type
    size = MATRIX_SIZE[kind]
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)
    products: list[Callable] = [lambda: left @ right]
    if kind == 'cpu' and dtype == torch.float32 and torch.backends.mkldnn.is_available():
        # Either oneDNN or MKL is faster, depending on the maker of the CPU.
        products.append(
            lambda: torch.ops.mkldnn._linear_pointwise(left, right, None, 'none', [], ''))
    if weights != FULL:
        layer = Linear(size, size, False, device=device, dtype=dtype)
        with torch.inference_mode():
            quantized = QuantizedLinear(layer, weights)
            products.append(lambda: quantized(left))
    seconds = min(_fastest(product, device) for product in products)
    source = torch.empty(COPY_BYTES[kind] // 4, device=device)
    target = torch.ones_like(source)
    copy = _fastest(lambda: target.copy_(source), device)
    return MachineRates(2 * size ** 3 / seconds, 2 * COPY_BYTES[kind] / copy)


@torch.inference_mode()
def _fastest(work: Callable, device: torch.device) -> float:
    best, clock = float('inf'), CLOCKS[by_processor_time(device, torch.get_num_threads())]
    for _ in range(REPEATS + 1):
        since = clock()
        work()
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        best = min(best, clock() - since)
    return best


def by_processor_time(device: torch.device, threads: int) -> bool:
    """
    Return whether processor time measures the work: on a CPU with one thread.

    Processor time excludes the load of other processes. With several threads it includes the time
    that they wait for each other.
    """
    return device.type == 'cpu' and threads == 1


def forward_seconds(
    config: TransformerConfig, forward: Forward, item_bytes: ItemBytes, rates: MachineRates,
) -> float:
    """Return the lower bound of the time of a forward pass: by operations or bytes, in s."""
    dim, layers = config.dim, config.num_layers
    block = 6 * dim ** 2 + 2 * dim * config.ffn_dim  # queries, keys, values, out; text query, out
    blocks, attending = layers * block, layers
    if forward.writes:
        blocks, attending = (layers - 1) * block + 3 * dim ** 2, layers - 1
    ends = forward.features * dim * (1 if forward.writes else 2)
    seen = forward.seen + TEXT_TOKENS
    tokens = forward.rows * forward.tokens
    operations = 2 * tokens * (blocks + ends) + 4 * tokens * seen * dim * attending
    time_embedder = config.time_frequencies * dim + 7 * dim ** 2
    needed = (blocks + ends + time_embedder) * item_bytes.weights + (
        2 * forward.rows * seen * dim * attending * item_bytes.memory)
    return max(operations / rates.operations, needed / rates.bytes)


def chunk_forwards(setting: Setting, remembered: int) -> list[Forward]:
    """Return the sizes of the forward passes of predicting and committing a chunk."""
    config, window = setting.network, setting.window
    features = {'video': config.patch_features, 'action': config.action_channels}
    video_rows = 2 if setting.video.guidance > 1 else 1
    action_rows = 2 if setting.action.guidance > 1 else 1

    def forward(kind: str, rows: int, before: int, writes: bool = False) -> Forward:
        tokens = setting.video_tokens if kind == 'video' else setting.action_tokens
        return Forward(rows, tokens, min(before + tokens, window), features[kind], writes)

    behind_video = remembered + setting.video_tokens
    return [
        *setting.video.steps * [forward('video', video_rows, remembered)],
        forward('video', action_rows, remembered, True),
        *setting.action.steps * [forward('action', action_rows, behind_video)],
        forward('video', setting.rows, remembered, True),
        forward('action', setting.rows, behind_video, True)]


def chunk_seconds(
    setting: Setting, remembered: int, item_bytes: ItemBytes, rates: MachineRates,
) -> float:
    """
    Return the lower bound of the time to predict and commit a chunk, in s.

    :param remembered: tokens in the KV cache before.
    """
    return sum(forward_seconds(setting.network, forward, item_bytes, rates)
               for forward in chunk_forwards(setting, remembered))
