"""How a task stands."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class TaskState:
    """
    `counts` are the task's own numbers by name.

    `done`: the outcome stands, nothing can change it any more; `success` is then what it is.
    `detail` says in words what is the matter; empty where there is nothing to say.
    """

    counts: dict[str, int] = field(default_factory=dict)
    done: bool = False
    success: bool = False
    detail: str = ''
