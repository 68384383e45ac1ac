"""The chunks that the arm executes: put into the plan, seen by the cameras, remembered."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from lingbot_va_ros.motion.plan import Plan
from lingbot_va_ros.motion.plan_slot import PlanSlot
from lingbot_va_ros.motion.splice import continued, resumed
from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.policy.runtime.active_chunk import make_running, PublishedChunk, Running
from lingbot_va_ros.policy.runtime.camera_buffer import CameraFault
from lingbot_va_ros.policy.runtime.chunk_actions import executed_actions, is_silent
from lingbot_va_ros.policy.runtime.latency import Latency
from lingbot_va_ros.policy.runtime.robot_interface import World
from lingbot_va_ros.specs.checkpoint_config import IMAGES_PER_FRAME

if TYPE_CHECKING:  # torch is imported when a checkpoint is loaded, not when a node starts
    from lingbot_va_ros.policy.inference.engine import Chunk, Engine


@dataclasses.dataclass(frozen=True)
class Ready:
    """
    A predicted chunk that is not in the plan yet.

    :param observed_ns: stamp of the newest image that it saw.
    :param seconds: that it took, of the steady clock.
    """

    chunk: Chunk
    epoch: int
    observed_ns: int
    seconds: float


class Execution:
    """
    What the arm executes, and what comes of it.

    The arm executes *running*. In the asynchronous schedules the chunk after it, *following*,
    joins the plan meanwhile; it becomes the running one when that has been seen to its end and is
    remembered, which is a little after the arm has gone on to it.

    :param slot: where plans go.
    :param latency: told how long latent frames take to encode.
    :param on_chunk: called with a PublishedChunk when it begins, under the slot's lock; must be
        quick.
    :param on_imagined: called with an imagined picture, uint8 [H, W, 3], and the ROS time in
        nanoseconds that it foretells, when that time has come.
    :param on_begun: called when a chunk has begun.
    :param on_remembered: called when the memory has grown.
    :param steady: seconds of the steady clock.
    """

    def __init__(
        self, slot: PlanSlot, latency: Latency, on_chunk: Callable[[PublishedChunk], None],
        on_imagined: Callable[[np.ndarray, int], None], on_begun: Callable[[], None],
        on_remembered: Callable[[], None], steady: Callable[[], float],
    ):
        self.engine: Engine | None = None
        self.world: World | None = None
        self.running: Running | None = None
        self.following: Running | None = None
        self.chunk_id = 0  # of the next one that begins
        # Whether the arm is meant to go on from chunk to chunk without a stop.
        self.flowing = False
        self.observed_ns = 0  # stamp of the newest image that the engine has seen
        self.seen_since = 0.0  # steady time when it began to see the newest frame
        self._slot = slot
        self._latency = latency
        self._on_chunk = on_chunk
        self._on_imagined = on_imagined
        self._on_begun = on_begun
        self._on_remembered = on_remembered
        self._steady = steady

    # Into the plan.

    def begin(self, ready: Ready) -> None:
        """
        Put a chunk into the plan, from rest.

        :raises NotExecutable: the arm cannot take it.
        """
        world = self.world
        plan, _ = self._slot.look()
        if plan is None:
            raise RuntimeError('a chunk without a position to start from')
        joints = world.to_joints(ready.chunk.actions, plan.positions[-1])
        plan, now = self._slot.look()  # it took a while
        if plan is None:
            return  # dropped with its epoch; what asked for that is about to be answered
        plan, first_due = resumed(
            plan, joints, self.engine.policy.action_period, now, world.max_velocity)
        run = self._run_of(ready, plan, int(plan.times_ns[-len(joints) - 1]), first_due)
        if self._slot.put(plan, ready.epoch, lambda: self._tell(run)):
            self.running = run
            self._begun(run)
            self._foretell(run)

    def to_joints_behind(self, chunk: Chunk) -> np.ndarray:
        """
        Return the joint positions [n, J] of a chunk behind the running one.

        :raises NotExecutable: the arm cannot take it.
        """
        return self.world.to_joints(chunk.actions, self.running.plan.positions[-1])

    def join(self, ready: Ready, joints: np.ndarray) -> None:
        """Let the plan go on through a further chunk, of joint positions [n, J]."""
        world, run = self.world, self.running
        _, now = self._slot.look()
        plan, first_due = continued(
            run.plan, joints, self.engine.policy.action_period, now, world.reaction,
            world.max_velocity, run.start_ns)
        following = self._run_of(
            ready, plan, int(plan.times_ns[-len(joints) - 1]), first_due)
        if self._slot.put(plan, ready.epoch):
            self.following = following
            self.attend()

    def take_back(self) -> None:
        """Take the following chunk out of the plan, if there is time."""
        run, following = self.running, self.following
        if following is None or following.begun:
            return
        _, now = self._slot.look()
        # Until its last stretch the plan was the same without it.
        if now + round(self.world.reaction * NANOSECONDS) <= run.action_times[-2] and (
                self._slot.put(run.plan, following.published.epoch)):
            self.following = None

    def _run_of(self, ready: Ready, plan: Plan, start_ns: int, first_due: int) -> Running:
        policy, count = self.engine.policy, len(ready.chunk.actions)
        published = PublishedChunk(
            ready.epoch, self.chunk_id, first_due, ready.observed_ns, policy.action_period,
            plan.positions[-count:], plan.velocities[-count:], ready.seconds,
            ready.chunk.grounded)
        return make_running(ready.chunk, published, plan, start_ns, policy.images_every)

    def _tell(self, run: Running) -> None:
        self._on_chunk(dataclasses.replace(run.published, chunk_id=self.chunk_id))

    def _begun(self, run: Running) -> None:
        self.chunk_id += 1
        run.begun = True
        self.flowing = self.world.schedule != 'sync'
        self._on_begun()

    def _foretell(self, run: Running) -> None:
        """Prepare the pictures of what a chunk imagines, where somebody wants them."""
        if self.world.wants_imagined():
            run.imagined.extend(zip(run.image_times, self.engine.imagined_video(run.chunk)))

    # Seen.

    def attend(self) -> None:
        """Do what the clock asks for: quick, and done between denoising steps as well."""
        world, run, following = self.world, self.running, self.following
        now = world.clock()
        while run.imagined and now >= run.imagined[0][0]:
            due, picture = run.imagined.popleft()
            self._on_imagined(picture, due)
        if following is not None and not following.begun and now >= following.start_ns:
            if self._slot.tell(following.published.epoch, lambda: self._tell(following)):
                self._begun(following)
        try:
            run.pick(world.observations, world.max_camera_skew())
        except CameraFault as fault:
            run.fault = str(fault)

    def encode(self, run: Running) -> None:
        """Let the engine see the latent frames whose images are all here."""
        while len(run.picked) >= IMAGES_PER_FRAME and self.encode_frame(run):
            pass

    def encode_frame(self, run: Running) -> bool:
        """Let the engine see one latent frame, whose images are here; False where it cannot."""
        images = run.picked[:IMAGES_PER_FRAME]
        since = self._steady()
        try:
            converted = {
                name: [self.world.to_rgb(name, entry[name].image) for entry in images]
                for name in images[0]}
        except CameraFault as fault:
            run.fault = str(fault)
            return False
        self.engine.see(converted)
        self.seen_since = since
        self._latency.add_encoding(self._steady() - since)
        self.observed_ns = max(entry.stamp_ns for entry in images[-1].values())
        del run.picked[:IMAGES_PER_FRAME]
        run.frames += 1
        return True

    # Remembered.

    def remember(self) -> None:
        """Write the running chunk, which has been executed to its end; go on with the next."""
        written = self.commit(self.running)
        self.running, self.following = self.following, None
        if self.running is None:
            return
        if written:
            self._foretell(self.running)
        else:  # what was predicted behind it has no past in the memory
            self.cut_off()

    def cut_off(self) -> None:
        """End what is executed here: stop, remember its complete frames, drop the rest."""
        runs: list[Running] = [
            run for run in (self.running, self.following) if run is not None]
        self.drop()
        self._slot.stop()
        for run in runs:
            if run.by_person:  # seen as far as there was motion
                run.picked.clear()
            self.encode(run)
            if not self.commit(run) or run.picked or not run.all_picked:
                return

    def drop(self) -> None:
        """Forget what is on the way."""
        self.running = self.following = None
        self.flowing = False

    def confirm(self, executed: np.ndarray) -> None:
        """Write the frames that the engine has seen and what was executed, [n, used]."""
        self.engine.commit(executed)
        if self.world.last_chunk_only:
            self.engine.keep_last_chunk()
        self._on_remembered()

    def executed_actions(self, run: Running) -> np.ndarray:
        """Return what was executed during the frames that were seen of a chunk, [n, used]."""
        return executed_actions(
            self.world, run, run.frames * self.engine.policy.actions_per_frame)

    def commit(self, run: Running) -> bool:
        """
        Write the complete frames of a chunk and what was executed during them.

        Where nothing was reported as executed, nothing is written: the prediction never stands in.

        :returns: whether something was written.
        """
        if not run.frames or is_silent(self.world, run):
            self.engine.drop_seen()
            return False
        self.confirm(self.executed_actions(run))
        return True
