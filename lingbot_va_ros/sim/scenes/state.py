"""The interface of a scene, and the state of its task."""

from dataclasses import dataclass, field
from typing import Protocol

import mujoco
import numpy as np


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


class Scene(Protocol):
    """Objects on the table and the rule of success."""

    def add(self, spec: mujoco.MjSpec, sides: tuple[str, ...]) -> None:
        """
        Put bodies into the world, once, before the model is compiled.

        :param sides: 'left', 'right': the arms that must reach the bodies.
        """
        ...

    def reset(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """
        Place and paint the bodies at random, at every reset.

        The robot stands at home and the data are fresh.
        """
        ...

    def after_step(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Watch the simulation, once a physics step."""
        ...

    def state(self) -> TaskState:
        """Return the state of the task."""
        ...
