"""The chunks of an active episode: put into the plan, seen by the cameras, committed to memory."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from lingbot_va_ros.motion.plan import Plan, resting_at
from lingbot_va_ros.motion.plan_slot import PlanSlot
from lingbot_va_ros.motion.splice import continued, resumed
from lingbot_va_ros.motion.time import to_seconds
from lingbot_va_ros.motion.timeline import PaceLimit
from lingbot_va_ros.policy.runtime.active_chunk import (
    ActiveChunk,
    PlannedMotion,
    predicted_chunk,
    PublishedChunk,
)
from lingbot_va_ros.policy.runtime.camera_buffer import CameraFault, StampedImage
from lingbot_va_ros.policy.runtime.chunk_actions import executed_actions, is_unreported
from lingbot_va_ros.policy.runtime.events import PolicyEvents
from lingbot_va_ros.policy.runtime.latency import Latency
from lingbot_va_ros.policy.runtime.robot_interface import RobotInterface, RuntimeSettings
from lingbot_va_ros.specs.checkpoint_config import IMAGES_PER_FRAME

if TYPE_CHECKING:  # torch is imported when a checkpoint is loaded, not when a node starts
    from lingbot_va_ros.policy.inference.engine import Chunk, Engine

# After its plan has ended, an arm still comes to rest for so long, s.
TRAILING = 0.5


@dataclasses.dataclass(frozen=True)
class PredictedChunk:
    """
    A predicted chunk that is not in the plan yet.

    :param observed_ns: stamp of the newest image that the prediction saw.
    :param seconds: duration of the prediction on the steady clock.
    """

    chunk: Chunk
    epoch: int
    observed_ns: int
    seconds: float


class ActiveEpisode:
    """
    The episode of an active policy and its chunks.

    Only this class puts chunks into the plan and commits them. While a person has the arm,
    `TakeoverRecorder` decides which chunks there are, through `replace_chunks`.

    The arm executes the *running* chunk. In the asynchronous schedules the *following* chunk joins
    the plan meanwhile. It becomes the running one when that has been seen to its end and is
    committed, which is a little after the arm has gone on to it.

    Used by the inference thread alone.

    :param slot: the plan that the control thread publishes.
    :param latency: told the durations of encoding a latent frame.
    :param previous: the episode before this activation, whose numbering goes on.
    """

    def __init__(
        self, engine: Engine, robot: RobotInterface, settings: RuntimeSettings, slot: PlanSlot,
        latency: Latency, events: PolicyEvents, previous: ActiveEpisode | None = None,
    ):
        self.engine = engine
        self.robot = robot
        self.settings = settings
        self._slot = slot
        self._latency = latency
        self._events = events
        self._running: ActiveChunk | None = None
        self._following: ActiveChunk | None = None
        self._continuous = False
        self._next_chunk_id: int = previous.next_chunk_id if previous is not None else 0
        self._observed_ns: int = previous.observed_ns if previous is not None else 0
        self._encoding_since: float | None = None

    @property
    def running(self) -> ActiveChunk | None:
        """The chunk that the arm executes, or that a person's motion fills."""
        return self._running

    @property
    def following(self) -> ActiveChunk | None:
        """The chunk that has joined the plan behind the running one."""
        return self._following

    @property
    def continuous(self) -> bool:
        """Whether the arm is meant to go on from chunk to chunk without a stop."""
        return self._continuous

    @property
    def next_chunk_id(self) -> int:
        """The number of the next chunk that begins."""
        return self._next_chunk_id

    @property
    def observed_ns(self) -> int:
        """The stamp of the newest image that the engine has encoded."""
        return self._observed_ns

    def shift_observed(self, step_ns: int) -> None:
        """Give the newest encoded image the stamp that it would have by a clock that stepped."""
        self._observed_ns += step_ns

    @property
    def encoding_since(self) -> float | None:
        """The steady time at which encoding for the next prediction began, or None."""
        return self._encoding_since

    # Into the plan

    def begin(self, ready: PredictedChunk) -> bool:
        """
        Put a chunk into the plan, from rest, and return whether it has begun.

        It has not where its epoch has passed.

        :raises NotExecutable: the arm cannot take it.
        """
        plan, _ = self._slot.current()
        if plan is None:
            raise RuntimeError('a chunk without a position to start from')
        joints = self.robot.to_joints(ready.chunk.actions, plan.positions[-1])
        plan, now = self._slot.current()  # the conversion took a while
        if plan is None:
            return False  # dropped with its epoch; the request that did so is about to be answered
        rest, period = plan, self.engine.policy.action_period
        plan, first_due = resumed(rest, joints, period, now, self.robot.limits.velocity)
        pace = self.robot.pace(plan, first_due, plan.end_ns)
        if pace < 1.0:  # the way to the first action is as fast as the actions
            plan, first_due = resumed(
                rest, joints, period, now, self.robot.limits.at_rate(pace).velocity)
        chunk = self._active_chunk(ready, plan, first_due)
        self._limit_pace((chunk,), at_rest=True)
        if not self._slot.put(plan, ready.epoch, lambda: self._publish(chunk)):
            return False
        self._running = chunk
        self._mark_begun(chunk)
        self._imagine(chunk)
        return True

    def to_joints_behind(self, running: ActiveChunk, chunk: Chunk) -> np.ndarray:
        """
        Return the joint positions [n, J] of a chunk behind the running one.

        :raises NotExecutable: the arm cannot take it.
        """
        return self.robot.to_joints(chunk.actions, running.plan.positions[-1])

    def join(self, running: ActiveChunk, ready: PredictedChunk, joints: np.ndarray) -> bool:
        """
        Let the plan go on through a further chunk, and return whether that has begun already.

        :param joints: its joint positions [n, J].
        """
        _, now = self._slot.current()
        limits, period = self.robot.limits, self.engine.policy.action_period
        reaction = to_seconds(self.robot.timeline.ahead(now, self.settings.reaction) - now)
        plan, first_due = continued(
            running.plan, joints, period, now, reaction, limits.velocity, running.start_ns)
        pace = self.robot.pace(plan, first_due, plan.end_ns)
        if pace < 1.0:
            plan, first_due = continued(
                running.plan, joints, period, now, reaction, limits.at_rate(pace).velocity,
                running.start_ns)
        following = self._active_chunk(ready, plan, first_due)
        self._limit_pace((running, following))
        if not self._slot.put(plan, ready.epoch):
            return False
        self._following = following
        return self.poll()

    def withdraw_next(self) -> None:
        """Take the following chunk out of the plan, if there is time."""
        running, following = self._running, self._following
        if running is None or following is None or following.begun:
            return
        _, now = self._slot.current()
        # Until its last stretch the plan was the same without it.
        reacted_ns = self.robot.timeline.ahead(now, self.settings.reaction)
        if reacted_ns <= running.action_times[-2] and (
                self._slot.put(running.plan, following.motion.published.epoch)):
            self._following = None
            self._limit_pace((running,))

    def expect_stop(self) -> None:
        """Note that the motion is meant to end: an end of the plan is no starvation."""
        self._continuous = False

    def hold_measured_position(self) -> None:
        """
        Rest at the measured position before the first plan, and after the arm was moved.

        An arm that the policy moves trails the plan: it counts as moved where it stays away.
        """
        measured = self.robot.joints.positions()
        if measured is None:
            return
        plan, now = self._slot.current()
        if plan is not None:
            trails = self.robot.control.not_owner_reason() is None
            if now < (self.robot.timeline.ahead(plan.end_ns, TRAILING) if trails else plan.end_ns):
                return
            moved = np.abs(plan.positions[-1] - measured) > self.settings.start_tolerance
            if not moved.any():
                return
        self._slot.put(resting_at(now, measured), self._slot.epoch)

    def _limit_pace(self, chunks: Sequence[ActiveChunk], at_rest: bool = False) -> None:
        """Let plan time run as slowly as the motions of chunks need, each as a whole."""
        robot = self.robot
        robot.timeline.set_limits(
            [PaceLimit(chunk.start_ns, chunk.end_ns, robot.pace(
                chunk.plan, chunk.start_ns, chunk.end_ns)) for chunk in chunks],
            robot.ros_ns(), at_rest)

    def _active_chunk(self, ready: PredictedChunk, plan: Plan, first_due_ns: int) -> ActiveChunk:
        policy, count = self.engine.policy, len(ready.chunk.actions)
        published = PublishedChunk(
            ready.epoch, self._next_chunk_id, first_due_ns, ready.observed_ns,
            policy.action_period, plan.positions[-count:], plan.velocities[-count:],
            ready.seconds, ready.chunk.grounded)
        return predicted_chunk(
            PlannedMotion(ready.chunk, published, plan), int(plan.times_ns[-count - 1]),
            policy.images_every)

    def _publish(self, chunk: ActiveChunk) -> None:
        self._events.chunk_begun(
            dataclasses.replace(chunk.motion.published, chunk_id=self._next_chunk_id))

    def _mark_begun(self, chunk: ActiveChunk) -> None:
        self._next_chunk_id += 1
        chunk.begun = True
        self._continuous = self.settings.schedule.predicts_ahead

    def _imagine(self, chunk: ActiveChunk) -> None:
        """Prepare the pictures that a chunk imagines, where they are wanted."""
        if chunk.planned is not None and self.robot.live().publish_predicted_video:
            pictures = self.engine.imagined_video(chunk.planned.chunk)
            chunk.imagined.extend(zip(chunk.image_times, pictures))

    # Seen

    def poll(self) -> bool:
        """
        Publish due frames, start the following chunk, collect images.

        Quick, as it is called before every forward of a prediction too.

        :returns: whether the following chunk has begun.
        """
        running, following = self._running, self._following
        if running is None:
            return False
        now, begun = self.robot.clock.now_ns(), False
        while running.imagined and now >= running.imagined[0][0]:
            due, picture = running.imagined.popleft()
            self._events.frame_imagined(picture, due)
        if following is not None and not following.begun and now >= following.start_ns:
            epoch = following.motion.published.epoch
            begun = self._slot.notify(epoch, lambda: self._publish(following))
            if begun:
                self._mark_begun(following)
        try:
            running.pick(self.robot.cameras, self.robot.live().max_camera_skew)
        except CameraFault as fault:
            running.fault = str(fault)
        return begun

    def observe_first(self, images: dict[str, StampedImage], joints: np.ndarray) -> None:
        """
        Begin the episode with an image of each camera.

        :param joints: the joint positions [J] at their time.
        :raises CameraFault: an image cannot be converted.
        """
        time_ns = self.robot.timeline.to_plan(min(entry.stamp_ns for entry in images.values()))
        shown = {name: self._convert(name, entry, time_ns) for name, entry in images.items()}
        self.engine.begin_episode({name: image for name, (_, image) in shown.items()})
        self.robot.action_map.begin(joints)
        self._observed_ns = max(entry.stamp_ns for entry, _ in shown.values())

    def encode(self, chunk: ActiveChunk) -> None:
        """Encode the latent frames of a chunk whose images were all picked."""
        while len(chunk.picked) >= IMAGES_PER_FRAME and self.encode_frame(chunk):
            pass

    def encode_frame(self, chunk: ActiveChunk) -> bool:
        """Encode one latent frame, whose images were picked; False sets the chunk's fault."""
        images = chunk.picked[:IMAGES_PER_FRAME]
        clock, since = self.robot.clock, self.robot.clock.steady()
        first = chunk.seen_frames * IMAGES_PER_FRAME
        times = chunk.image_times[first:first + IMAGES_PER_FRAME]
        try:
            shown = {
                name: [self._convert(name, entry[name], time_ns)
                       for entry, time_ns in zip(images, times, strict=True)]
                for name in images[0]}
        except CameraFault as fault:
            chunk.fault = str(fault)
            return False
        self.engine.observe({
            name: [image for _, image in entries] for name, entries in shown.items()})
        self._encoding_since = since
        self._latency.add_encoding(clock.steady() - since)
        self._observed_ns = max(entries[-1][0].stamp_ns for entries in shown.values())
        del chunk.picked[:IMAGES_PER_FRAME]
        chunk.seen_frames += 1
        return True

    def _convert(
        self, camera: str, entry: StampedImage, time_ns: int,
    ) -> tuple[StampedImage, np.ndarray]:
        """
        Convert the image that was picked for a time; its neighbor stands in for a bad one.

        :raises CameraFault: all images within `max_camera_skew` are bad.
        """
        while True:
            try:
                return entry, self.robot.to_rgb(camera, entry.image)
            except CameraFault:
                other = self.robot.cameras.stand_in(
                    camera, entry, time_ns, self.robot.live().max_camera_skew)
                if other is None:
                    raise
                entry = other

    def forget_encoding_time(self) -> None:
        """Note that the next prediction does not wait for the newest frame's encoding."""
        self._encoding_since = None

    # Committed

    def advance_chunk(self) -> bool:
        """
        Commit the running chunk, which has ended, and go on with the following one.

        :returns: whether the chunk was committed; where not, the following one is truncated too.
        """
        if self._running is None:
            return False
        written = self.commit(self._running)
        self._running, self._following = self._following, None
        if self._running is None:
            return written
        if written:
            self._imagine(self._running)
        else:  # the memory has no past for the chunk that was predicted behind it
            self.truncate()
        return written

    def truncate(self) -> None:
        """Stop the arm here, commit the complete frames of its chunks, and drop the rest."""
        chunks = [chunk for chunk in (self._running, self._following) if chunk is not None]
        self.drop()
        self._slot.stop()
        for chunk in chunks:
            if chunk.by_person:  # encoded as far as there was motion
                chunk.drop_picked()
            self.encode(chunk)
            if not self.commit(chunk) or chunk.picked or not chunk.all_picked:
                return

    def drop(self) -> None:
        """Forget the running and the following chunk."""
        self._running = self._following = None
        self._continuous = False
        self.robot.timeline.set_limits((), self.robot.ros_ns())

    def restart_numbering(self) -> None:
        """Number the next chunks from 0."""
        self._next_chunk_id = 0

    def confirm(self, executed: np.ndarray) -> None:
        """Commit the frames that the engine has seen and the executed actions [n, used]."""
        self.engine.commit(executed)
        if self.settings.last_chunk_only:
            self.engine.rebuild_from_last_chunk()

    def executed_actions(self, chunk: ActiveChunk) -> np.ndarray:
        """Return the executed actions [n, used] during the frames that were seen of a chunk."""
        return executed_actions(
            self.robot, chunk, chunk.seen_frames * self.engine.policy.actions_per_frame)

    def commit(self, chunk: ActiveChunk) -> bool:
        """
        Commit the complete frames of a chunk and the actions executed during them.

        Without a report of executed commands nothing is committed: the prediction never stands in.

        :returns: whether something was committed.
        """
        if not chunk.seen_frames or is_unreported(self.robot, chunk):
            self.engine.drop_observed()
            return False
        self.confirm(self.executed_actions(chunk))
        return True

    # Under a person's hand, for the recorder of takeovers

    def stop_plan(self) -> None:
        """Stop the arm here; the chunks stay as they are."""
        self._slot.stop()
        self._continuous = False

    def replace_chunks(self, running: ActiveChunk | None, following: ActiveChunk | None) -> None:
        """Go on with other chunks, which a person's motion fills; the plan stays as it is."""
        self._running, self._following = running, following
