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
    :param detail: a description for the user, or empty.
    """

    counts: dict[str, int] = field(default_factory=dict)
    done: bool = False
    success: bool = False
    detail: str = ''


class Scene(Protocol):
    """Objects on the table and the success criterion."""

    def add(self, spec: mujoco.MjSpec, sides: tuple[str, ...]) -> None:
        """
        Add bodies to the world. Called once, before the model is compiled.

        :param sides: 'left', 'right': the arms of the robot.
        """
        ...

    def reset(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """
        Draw the positions and colors of the bodies. Called at every reset.

        The arms are at home, and the rest of `data` has its initial values.
        """
        ...

    def after_step(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Update the state of the task. Called after every physics step."""
        ...

    def state(self) -> TaskState:
        """Return the state of the task."""
        ...
