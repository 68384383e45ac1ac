"""Time every attention that the device can run, on one layer of a session's full memory."""

import statistics
import time
from typing import Dict, Optional

import torch

from lingbot_va_ros.cli.bench_settings import Setting
from lingbot_va_ros.model.attention import Attention, candidates
from lingbot_va_ros.policy.session import Session


def attention_ms(
    session: Session, setting: Setting, repeats: int,
) -> Dict[str, Dict[str, Optional[float]]]:
    """
    Return by the name of a kernel what a video and an action forward's attention takes, in ms.

    Keys and values are read where they lie in the memory, as many as the window has. None where a
    kernel refuses these shapes.
    """
    network, config = session.network, session.network.config
    return {
        name: {kind: _median_ms(attend, session, rows, tokens, setting.window, repeats)
               for kind, rows, tokens in (
                   ('video', 2 if setting.video.guidance > 1 else 1, setting.video_tokens),
                   ('action', 2 if setting.action.guidance > 1 else 1, setting.action_tokens))}
        for name, attend in candidates(network.device, network.dtype, config.head_dim).items()}


@torch.inference_mode()
def _median_ms(
    attend: Attention, session: Session, rows: int, tokens: int, seen: int, repeats: int,
) -> Optional[float]:
    config, memory = session.network.config, session.memory
    query = torch.randn(
        (rows, tokens, config.heads, config.head_dim), device=memory.keys.device,
    ).to(memory.keys.dtype)
    key, value = memory.keys[0, :rows, :seen], memory.values[0, :rows, :seen]
    times = []
    try:
        for turn in range(1 + repeats):
            since = time.perf_counter()
            attend(query, key, value)
            if key.is_cuda:
                torch.cuda.synchronize(key.device)
            times.append((time.perf_counter() - since) * 1e3)
    except RuntimeError:  # no kernel for it
        return None
    return statistics.median(times[1:])
