"""Time the attention of a layer with every kernel, and its matrix products with both backends."""

from collections.abc import Callable
import statistics

import torch
from torch import nn

from lingbot_va_ros.cli.bench.roofline import by_processor_time, CLOCKS
from lingbot_va_ros.cli.bench.settings import Setting
from lingbot_va_ros.model.attention import Attention, candidates
from lingbot_va_ros.model.onednn import Linear
from lingbot_va_ros.policy.inference.session import Session


def attention_ms(
    session: Session, setting: Setting, repeats: int,
) -> dict[str, dict[str, float | None]]:
    """
    Return the attention time of a video and an action forward pass by kernel, ms.

    Keys and values of the whole window are read from the KV cache. None if a kernel does not
    support the shapes. On a CPU with one thread it is processor time.
    """
    network, config = session.network, session.network.config
    return {
        name: {kind: _attend_ms(attend, session, rows, tokens, setting.window, repeats)
               for kind, (rows, tokens) in _queries(setting).items()}
        for name, attend in candidates(network.device, network.dtype, config.head_dim).items()}


@torch.inference_mode()
def linear_gflops(
    session: Session, setting: Setting, repeats: int,
) -> dict[str, dict[str, float]]:
    """
    Return the GFLOP/s of a block's matrix products by `torch` and by this package (`here`).

    The products are QKV, attention output and the first FFN layer, for the tokens of a video and
    an action forward pass. Timed like `attention_ms`.
    """
    network, config = session.network, session.network.config
    dim = config.dim
    figures: dict[str, dict[str, float]] = {}
    for kind, (rows, tokens) in _queries(setting).items():
        features = torch.randn(
            rows * tokens, dim, device=network.device, dtype=network.dtype)
        figures[kind] = {}
        for name, layer in (('torch', nn.Linear), ('here', Linear)):
            seconds = operations = 0.0
            for width in (3 * dim, dim, config.ffn_dim):
                multiply = layer(dim, width, device=network.device, dtype=network.dtype)
                seconds += _median_seconds(lambda: multiply(features), network.device, repeats)
                operations += 2.0 * len(features) * dim * width
            figures[kind][name] = operations / seconds / 1e9
    return figures


def _queries(setting: Setting) -> dict[str, tuple]:
    """Return the CFG batch and its tokens by kind of forward pass."""
    return {
        'video': (2 if setting.video.guidance > 1 else 1, setting.video_tokens),
        'action': (2 if setting.action.guidance > 1 else 1, setting.action_tokens)}


@torch.inference_mode()
def _attend_ms(
    attend: Attention, session: Session, rows: int, tokens: int, seen: int, repeats: int,
) -> float | None:
    config, memory = session.network.config, session.kv_cache
    query = torch.randn(
        (rows, tokens, config.heads, config.head_dim), device=memory.keys.device,
    ).to(memory.keys.dtype)
    key, value = memory.keys[0, :rows, :seen], memory.values[0, :rows, :seen]
    try:
        return 1e3 * _median_seconds(
            lambda: attend(query, key, value), memory.keys.device, repeats)
    except RuntimeError:  # not supported by the kernel
        return None


def _median_seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Return the median time of `work` after one warm-up, s."""
    clock = CLOCKS[by_processor_time(device, torch.get_num_threads())]
    times = []
    for _ in range(1 + repeats):
        since = clock()
        work()
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        times.append(clock() - since)
    return statistics.median(times[1:])
