"""The chunk that is being executed or watched, and how much of it has been seen."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lingbot_va_ros.motion.plan import Plan
from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.policy.runtime.camera_buffer import Observations, StampedImage
from lingbot_va_ros.specs.checkpoint_config import IMAGES_PER_FRAME


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

    :param chunk: as the engine predicted it; None, as the next two, for a person's motion.
    :param published: as it is told, with a `chunk_id` that counts only once it has begun.
    :param plan: one that holds all of its actions.
    :param start_ns: ROS time of where it started from, the knot before its first action.
    :param picked: images of latent frames that are not encoded yet, one dictionary an image time.
    :param frames: latent frames that the engine has seen.
    :param imagined: (ROS time, picture) of what it foretold and is still to come.
    :param by_person: whether a person moves the arm by now.
    :param cut_short: whether it ends before its grid would.
    """

    chunk: Any
    published: PublishedChunk | None
    plan: Plan | None
    start_ns: int
    action_times: list[int]
    image_times: list[int]
    begun: bool = False
    next_image: int = 0
    picked: list[dict[str, StampedImage]] = field(default_factory=list)
    frames: int = 0
    fault: str = ''
    imagined: deque[tuple[int, np.ndarray]] = field(default_factory=deque)
    by_person: bool = False
    cut_short: bool = False

    @property
    def end_ns(self) -> int:
        """ROS time of its last action."""
        return self.action_times[-1]

    @property
    def all_picked(self) -> bool:
        """Whether every image that it needs is here."""
        return self.next_image == len(self.image_times)

    def frame_times(self, actions_per_frame: int) -> tuple[int, int]:
        """Return when the next latent frame to be seen begins and ends, ROS time in ns."""
        first = self.frames * actions_per_frame
        begin_ns = self.action_times[first - 1] if first else self.start_ns
        return begin_ns, self.action_times[first + actions_per_frame - 1]

    def end_at(self, time_ns: int, actions_per_frame: int) -> None:
        """Leave out the latent frames that end later than a time and were not seen yet."""
        ends = self.action_times[actions_per_frame - 1::actions_per_frame]
        frames = max(self.frames, sum(end <= time_ns for end in ends))
        if frames == len(ends):
            return
        self.cut_short = True
        self.action_times = self.action_times[:frames * actions_per_frame]
        self.image_times = self.image_times[:frames * IMAGES_PER_FRAME]
        self.next_image = min(self.next_image, len(self.image_times))
        del self.picked[(frames - self.frames) * IMAGES_PER_FRAME:]

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


def watched(start_ns: int, actions: int, period: float, images_every: int) -> Running:
    """
    Return a chunk of what a person does from a time on, on the grid of a predicted one.

    :param actions: how many action periods it takes.
    :param period: seconds.
    :param images_every: see `make_running`.
    """
    times = [start_ns + round(i * period * NANOSECONDS) for i in range(1, actions + 1)]
    return Running(
        None, None, None, start_ns, times, times[images_every - 1::images_every], begun=True,
        by_person=True)
