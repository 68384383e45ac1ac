"""How a task stands."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class TaskState:
    """`counts` are the task's own numbers by name; `done`: nothing can change the outcome."""

    counts: dict[str, int] = field(default_factory=dict)
    done: bool = False
    success: bool = False
