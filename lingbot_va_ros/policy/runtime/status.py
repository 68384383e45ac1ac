"""The state of the policy and its figures."""

from dataclasses import dataclass
from enum import IntEnum


class PolicyMode(IntEnum):
    """The modes of the policy, numbered as in PolicyStatus.msg."""

    IDLE = 0
    LOADING = 1
    WAITING = 2
    RUNNING = 3
    HOLDING = 4
    FAULT = 5


@dataclass(frozen=True)
class RuntimeStatus:
    """
    The mode of the policy, its reason, and the figures of its work.

    :param chunk_id: of the newest chunk that began; 0 before any.
    :param memory_frames: confirmed latent frames in the memory.
    :param memory_capacity: latent frames that the memory holds at most.
    :param inference_seconds: duration of the newest prediction on the steady clock.
    :param inference_seconds_p95: 95th percentile of the recent predictions.
    :param chunk_seconds: duration of the execution of a whole chunk.
    """

    mode: PolicyMode = PolicyMode.IDLE
    reason: str = ''
    instruction: str = ''
    chunk_id: int = 0
    memory_frames: int = 0
    memory_capacity: int = 0
    inference_seconds: float = 0.0
    inference_seconds_p95: float = 0.0
    chunk_seconds: float = 0.0
