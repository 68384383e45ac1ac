"""The chunk that is being executed, and how much of it has been seen."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Deque, Dict, List, Tuple

import numpy as np

from lingbot_va_ros.policy.observation import Observations, StampedImage
from lingbot_va_ros.policy.plan import NANOSECONDS, Plan


@dataclass(frozen=True)
class PublishedChunk:
    """
    A chunk that is in the plan.

    :param first_due_ns: ROS time when the first action is due.
    :param observation_ns: stamp of the newest image that it saw.
    :param period: seconds between actions; positions and velocities [n, J].
    """

    epoch: int
    chunk_id: int
    first_due_ns: int
    observation_ns: int
    period: float
    positions: np.ndarray
    velocities: np.ndarray
    inference_seconds: float
    grounded: bool


@dataclass
class Running:
    """
    A chunk on its way: when its actions and images are due, and what has come of them.

    :param chunk: as the engine predicted it.
    :param published: as it is told, with a `chunk_id` that counts only once it has begun.
    :param plan: one that holds all of its actions.
    :param start_ns: ROS time of where it started from, the knot before its first action.
    :param picked: images of latent frames that are not encoded yet, one dictionary an image time.
    :param frames: latent frames that the engine has seen.
    :param imagined: (ROS time, picture) of what it foretold and is still to come.
    """

    chunk: Any
    published: PublishedChunk
    plan: Plan
    start_ns: int
    action_times: List[int]
    image_times: List[int]
    begun: bool = False
    next_image: int = 0
    picked: List[Dict[str, StampedImage]] = field(default_factory=list)
    frames: int = 0
    fault: str = ''
    imagined: Deque[Tuple[int, np.ndarray]] = field(default_factory=deque)

    @property
    def end_ns(self) -> int:
        """ROS time of its last action."""
        return self.action_times[-1]

    @property
    def all_picked(self) -> bool:
        """Whether every image that it needs is here."""
        return self.next_image == len(self.image_times)

    def pick(self, observations: Observations, max_skew: float) -> None:
        """
        Take the images that have come since.

        :raises CameraFault: a camera's nearest image is too far off.
        """
        while not self.all_picked and observations.reached(self.image_times[self.next_image]):
            self.picked.append(
                observations.pick(self.image_times[self.next_image], max_skew))
            self.next_image += 1


def make_running(
    chunk: Any, published: PublishedChunk, plan: Plan, start_ns: int, images_every: int,
) -> Running:
    """
    Return a chunk on its way; an image is due when the action that it follows is reached.

    :param images_every: actions from one image to the next.
    """
    step = published.period * NANOSECONDS
    due = [published.first_due_ns + round(i * step) for i in range(len(published.positions))]
    return Running(
        chunk, published, plan, start_ns, due, due[images_every - 1::images_every])
