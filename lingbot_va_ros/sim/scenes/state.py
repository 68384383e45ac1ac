"""The state of a task."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class TaskState:
    """
    The state of a task.

    :param counts: the task's counters by name.
    :param done: whether the outcome is final; `success` is then the outcome.
    :param detail: the situation in words, or empty.
    """

    counts: dict[str, int] = field(default_factory=dict)
    done: bool = False
    success: bool = False
    detail: str = ''
