"""What the policy is doing and how long it took: the figures of its status."""

from dataclasses import dataclass
from enum import IntEnum


class Mode(IntEnum):
    """What the policy is doing, numbered as in PolicyStatus."""

    IDLE = 0
    LOADING = 1
    WAITING = 2
    RUNNING = 3
    HOLDING = 4
    FAULT = 5


@dataclass(frozen=True)
class Progress:
    """
    Figures for the status: what has been done and how long it took.

    `chunk_id` is that of the newest chunk (0 before any), times are in seconds.
    """

    mode: Mode = Mode.IDLE
    reason: str = ''
    instruction: str = ''
    chunk_id: int = 0
    memory_frames: int = 0
    memory_capacity: int = 0
    inference_seconds: float = 0.0
    inference_seconds_p95: float = 0.0
    chunk_seconds: float = 0.0
    starved_ticks: int = 0
