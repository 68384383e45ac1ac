"""A chunk on its way: when its actions and images are due, and how much of it has been seen."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lingbot_va_ros.motion.plan import Plan
from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.policy.runtime.camera_buffer import StampedImage
from lingbot_va_ros.policy.runtime.plan_time_views import Cameras
from lingbot_va_ros.specs.checkpoint_config import IMAGES_PER_FRAME

if TYPE_CHECKING:  # torch is imported when a checkpoint is loaded, not when a node starts
    from lingbot_va_ros.policy.inference.engine import Chunk


@dataclass(frozen=True)
class PublishedChunk:
    """
    A chunk that is in the plan, as `ActionChunk` publishes it.

    :param first_due_ns: ROS time in nanoseconds when the first action is due.
    :param observation_ns: stamp of the newest image that the prediction saw.
    :param period: seconds between actions.
    :param positions: joint positions [n, J] in rad (m), float64.
    :param velocities: joint velocities [n, J], float64.
    :param inference_seconds: duration of the prediction on the steady clock.
    :param grounded: see `Chunk`.
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


@dataclass(frozen=True)
class PlannedMotion:
    """
    A predicted chunk as a motion of the joints.

    :param chunk: as the engine predicted it.
    :param published: its message; the `chunk_id` is final only once the chunk has begun.
    :param plan: one that holds all of its actions.
    """

    chunk: Chunk
    published: PublishedChunk
    plan: Plan


@dataclass
class ActiveChunk:
    """
    A chunk that the arm executes, or that a person's motion fills.

    :param planned: the policy's motion; None for a chunk that a person began.
    :param start_ns: ROS time of the knot before its first action.
    :param action_times: ROS time in nanoseconds when each action is due.
    :param image_times: ROS time in nanoseconds of the images that show it.
    :param begun: whether the arm has reached `start_ns`.
    :param next_image: index of the next image to pick.
    :param picked: images of latent frames that are not encoded yet, one dictionary an image time.
    :param seen_frames: latent frames that the engine has encoded.
    :param fault: the camera fault that ends it, one line, or nothing.
    :param imagined: (ROS time, picture) of the imagined video that is still to be published.
    :param by_person: whether a person moves the arm by now.
    :param shortened: whether it ends before its grid would.
    """

    planned: PlannedMotion | None
    start_ns: int
    action_times: list[int]
    image_times: list[int]
    begun: bool = False
    next_image: int = 0
    picked: list[dict[str, StampedImage]] = field(default_factory=list)
    seen_frames: int = 0
    fault: str = ''
    imagined: deque[tuple[int, np.ndarray]] = field(default_factory=deque)
    by_person: bool = False
    shortened: bool = False

    @property
    def motion(self) -> PlannedMotion:
        """
        The policy's motion.

        :raises RuntimeError: a person began the chunk, so that no plan holds it.
        """
        if self.planned is None:
            raise RuntimeError('no plan holds a chunk that a person began')
        return self.planned

    @property
    def plan(self) -> Plan:
        """The plan that holds all of its actions; see `motion`."""
        return self.motion.plan

    @property
    def end_ns(self) -> int:
        """ROS time of its last action."""
        return self.action_times[-1]

    @property
    def all_picked(self) -> bool:
        """Whether every image that it needs was picked."""
        return self.next_image == len(self.image_times)

    def frame_times(self, actions_per_frame: int) -> tuple[int, int]:
        """Return begin and end of the next latent frame to be seen, ROS time in ns."""
        first = self.seen_frames * actions_per_frame
        begin_ns = self.action_times[first - 1] if first else self.start_ns
        return begin_ns, self.action_times[first + actions_per_frame - 1]

    def hand_over(self) -> None:
        """Let a person's motion complete the chunk; what it imagined shows another motion."""
        self.by_person = True
        self.imagined.clear()

    def drop_picked(self) -> None:
        """Drop the images of latent frames that will not be encoded."""
        self.picked.clear()

    def end_at(self, time_ns: int, actions_per_frame: int) -> None:
        """Leave out the latent frames that end after a ROS time and were not seen yet."""
        ends = self.action_times[actions_per_frame - 1::actions_per_frame]
        frames = max(self.seen_frames, sum(end <= time_ns for end in ends))
        if frames == len(ends):
            return
        self.shortened = True
        self.action_times = self.action_times[:frames * actions_per_frame]
        self.image_times = self.image_times[:frames * IMAGES_PER_FRAME]
        self.next_image = min(self.next_image, len(self.image_times))
        del self.picked[(frames - self.seen_frames) * IMAGES_PER_FRAME:]

    def pick(self, cameras: Cameras, max_skew: float) -> None:
        """
        Take the images that have become available since the last call.

        :param max_skew: seconds that an image may be off its time.
        :raises CameraFault: a camera's nearest image is further off.
        """
        while not self.all_picked and cameras.reached(self.image_times[self.next_image]):
            self.picked.append(cameras.pick(self.image_times[self.next_image], max_skew))
            self.next_image += 1


def predicted_chunk(motion: PlannedMotion, start_ns: int, images_every: int) -> ActiveChunk:
    """
    Return the active chunk of a predicted motion.

    An image is due when the action that it follows is reached.

    :param images_every: actions from one image to the next.
    """
    published = motion.published
    step = published.period * NANOSECONDS
    due = [published.first_due_ns + round(i * step) for i in range(len(published.positions))]
    return ActiveChunk(motion, start_ns, due, due[images_every - 1::images_every])


def recorded_chunk(start_ns: int, actions: int, period: float, images_every: int) -> ActiveChunk:
    """
    Return an active chunk of a person's motion, on the same grid as a predicted one.

    :param actions: number of action periods that it takes.
    :param period: seconds.
    :param images_every: actions from one image to the next.
    """
    times = [start_ns + round(i * period * NANOSECONDS) for i in range(1, actions + 1)]
    return ActiveChunk(
        None, start_ns, times, times[images_every - 1::images_every], begun=True, by_person=True)
