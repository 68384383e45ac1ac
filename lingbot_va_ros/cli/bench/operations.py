"""Time a layer's attention by every kernel that the device has, and its products by both paths."""

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
    Return by the name of a kernel what a video and an action forward's attention takes, in ms.

    Keys and values are read where they lie in the memory, as many as the window has. None where a
    kernel refuses these shapes. On a CPU with one thread it is processor time.
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
    Return how many 1e9 operations a second a block's products make by `torch` and `here`.

    The products are those of a block's widths (queries, keys and values in one; the way out of the
    attention; the first of the FFN), for the tokens of a video and an action forward. Timed as
    `attention_ms` is.
    """
    network, config = session.network, session.network.config
    dim, place = config.dim, {'device': network.device, 'dtype': network.dtype}
    figures = {}
    for kind, (rows, tokens) in _queries(setting).items():
        features = torch.randn(rows * tokens, dim, **place)
        figures[kind] = {}
        for name, layer in (('torch', nn.Linear), ('here', Linear)):
            seconds = operations = 0.0
            for width in (3 * dim, dim, config.ffn_dim):
                multiply = layer(dim, width, **place)
                seconds += _median_seconds(lambda: multiply(features), network.device, repeats)
                operations += 2.0 * len(features) * dim * width
            figures[kind][name] = operations / seconds / 1e9
    return figures


def _queries(setting: Setting) -> dict[str, tuple]:
    """Return by the kind of a forward its guidance halves and the tokens of each."""
    return {
        'video': (2 if setting.video.guidance > 1 else 1, setting.video_tokens),
        'action': (2 if setting.action.guidance > 1 else 1, setting.action_tokens)}


@torch.inference_mode()
def _attend_ms(
    attend: Attention, session: Session, rows: int, tokens: int, seen: int, repeats: int,
) -> float | None:
    config, memory = session.network.config, session.memory
    query = torch.randn(
        (rows, tokens, config.heads, config.head_dim), device=memory.keys.device,
    ).to(memory.keys.dtype)
    key, value = memory.keys[0, :rows, :seen], memory.values[0, :rows, :seen]
    try:
        return 1e3 * _median_seconds(
            lambda: attend(query, key, value), memory.keys.device, repeats)
    except RuntimeError:  # no kernel for it
        return None


def _median_seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Return the median time of `work`, behind one time that does not count."""
    clock = CLOCKS[by_processor_time(device, torch.get_num_threads())]
    times = []
    for _ in range(1 + repeats):
        since = clock()
        work()
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        times.append(clock() - since)
    return statistics.median(times[1:])
