"""Instructions, limits and midpoints of the tasks, and the memory modes that are compared."""

from collections.abc import Callable, Mapping
import math
from typing import Any

# The full memory and its two ablations; see `rollout.run_episode`.
MEMORIES = ('full', 'last_chunk', 'reset_midway')
INSTRUCTIONS: dict[str, str] = {
    'table': 'put the cube on the brick',
    'wipe_plate': 'wipe the plate six times',
    'open_boxes': 'open the boxes one after another',
}
# s of motion, at least twice the expert's time; waiting for predictions does not count.
MOTION_LIMITS: dict[str, float] = {'table': 40.0, 'wipe_plate': 36.0, 'open_boxes': 36.0}
MOTION_LIMIT = 36.0  # s, of any other task
MIDWAY_CHUNK = 5  # the midpoint of any other task, in executed chunks

# The count that marks the midpoint of an episode, and its value there.
_MIDWAY: dict[str, tuple[str, int]] = {
    'wipe_plate': ('strokes', 3),
    'open_boxes': ('closed_a', 1),
}


def instruction_of(task: str) -> str:
    """Return the instruction of a task."""
    return INSTRUCTIONS.get(task, task.replace('_', ' '))


def chunk_limit_of(task: str, chunk_seconds: float) -> int:
    """Return the number of chunks after which an episode ends, done or not."""
    return math.ceil(MOTION_LIMITS.get(task, MOTION_LIMIT) / chunk_seconds - 1e-9)


def midway_of(task: str) -> Callable[[Mapping[str, Any], int], bool]:
    """
    Return a function (counts, executed chunks) -> whether the midpoint of a task is reached.

    The midpoint is a value of one of the task's counts, or `MIDWAY_CHUNK` executed chunks for a
    task without such a count.
    """
    if task in _MIDWAY:
        name, half = _MIDWAY[task]
        return lambda counts, chunks: counts.get(name, 0) >= half
    return lambda counts, chunks: chunks >= MIDWAY_CHUNK
