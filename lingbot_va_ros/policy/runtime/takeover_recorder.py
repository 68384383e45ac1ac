"""What a person does with the arm, seen and remembered as if the policy had done it."""

from __future__ import annotations

import numpy as np

from lingbot_va_ros.motion.plan_slot import PlanSlot
from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.policy.runtime.active_chunk import Running, watched
from lingbot_va_ros.policy.runtime.active_episode import Execution
from lingbot_va_ros.policy.runtime.camera_buffer import CameraFault
from lingbot_va_ros.policy.runtime.chunk_actions import EXECUTED_GRACE, is_executed
from lingbot_va_ros.specs.checkpoint_config import IMAGES_PER_FRAME

# A latent frame during which no joint was commanded further than this (rad or m) shows no motion.
STILL = 1e-3
SILENCE = 0.25  # seconds without a command: nobody moves the arm


class Takeover:
    """
    The observation grid while a person moves the arm; it follows the motion.

    The chunk that runs goes on under the person's hand, chunks of as many frames come behind it.
    A latent frame without motion is left out: what is complete of the chunk is remembered then,
    and the next one begins with the next motion. Used by the inference thread alone.

    :param execution: its running chunk is the one that is seen here.
    :param slot: where the policy's own plan ends when a person takes the arm.
    """

    def __init__(self, execution: Execution, slot: PlanSlot):
        self.since_ns: int | None = None  # ROS time; None while no person is watched
        self._execution = execution
        self._slot = slot
        # Stamp and positions [J] from which the chunk begins that is to be opened next.
        self._opening: tuple[int, np.ndarray] | None = None
        self._looked_ns = 0  # stamp of the newest command that was looked at for motion
        self._newest = self._at = None  # [J]: that command, and the one at which the arm rests
        self._let_go_ns = 0

    def begin(self, since_ns: int) -> None:
        """Let the grid go on under the hand of a person who has had the arm since a time."""
        execution = self._execution
        run, following = execution.running, execution.following
        self.since_ns = since_ns
        self._seek(since_ns)
        if run is None or run.by_person:
            return
        self._slot.stop()
        execution.flowing = False
        if following is not None and not following.begun:
            execution.following = following = None
        period = execution.engine.policy.action_period
        if since_ns < run.action_times[0] - period * NANOSECONDS:
            execution.running = None  # still on its way to the first action
            return
        for taken in filter(None, (run, following)):
            taken.by_person = True
            taken.imagined.clear()

    def start_over(self) -> None:
        """Leave out what was on its way and what has been done so far."""
        if self.since_ns is not None and self._execution.world is not None:
            self._seek(self._execution.world.clock())

    def end(self, at_ns: int) -> None:
        """
        Keep to what was complete when the person let go of the arm.

        `step` goes on until that is remembered and nothing is running any more.
        """
        execution = self._execution
        self.since_ns, self._opening, self._let_go_ns = None, None, at_ns
        run, following = execution.running, execution.following
        if run is None or not run.by_person:
            return
        per_frame = execution.engine.policy.actions_per_frame
        for taken in filter(None, (run, following)):
            taken.end_at(at_ns, per_frame)
        if run.cut_short or (following is not None and not following.action_times):
            execution.following = None
        if not run.action_times:
            execution.running = None

    def step(self) -> bool:
        """
        Take one small step; returns whether something was encoded or written.

        :raises CameraFault: an image is missing; what was complete before is remembered.
        """
        execution = self._execution
        if execution.running is None and not self._open():
            return False
        try:
            return self._see(execution.running)
        except CameraFault:
            self._rest(execution.running)
            self.start_over()
            raise

    def _open(self) -> bool:
        """Begin a chunk where motion begins; the first of all begins the episode."""
        execution, engine, world = self._execution, self._execution.engine, self._execution.world
        if self.since_ns is None:
            return False
        if self._opening is None:
            self._opening = self._motion_begins()
        if self._opening is None or not world.observations.reached(self._opening[0]):
            return False
        (start_ns, start), self._opening = self._opening, None
        if not engine.began:
            try:
                images = world.observations.pick(start_ns, world.max_camera_skew())
                engine.see_first(
                    {name: world.to_rgb(name, entry.image) for name, entry in images.items()})
            except CameraFault:
                self.start_over()
                raise
            world.begin(start)
            execution.observed_ns = max(entry.stamp_ns for entry in images.values())
        execution.running = self._chunk_from(start_ns)
        return True

    def _chunk_from(self, start_ns: int) -> Running:
        policy = self._execution.engine.policy
        # The first frame of an episode is its first image alone.
        frames = policy.frames_per_chunk - (not self._execution.engine.began)
        return watched(
            start_ns, frames * policy.actions_per_frame, policy.action_period, policy.images_every)

    def _see(self, run: Running) -> bool:
        """Take a running chunk's images, encode one frame, or write the chunk at its end."""
        execution, world = self._execution, self._execution.world
        run.pick(world.observations, world.max_camera_skew())
        per_frame = execution.engine.policy.actions_per_frame
        if run.frames * per_frame >= len(run.action_times):
            if not is_executed(world, run):
                return False
            self._remember(run)
            return True
        if self.since_ns is None and world.clock() > self._let_go_ns + _ns(EXECUTED_GRACE):
            self._rest(run)  # images or reports that have not come by now will not come
            return True
        begin_ns, end_ns = run.frame_times(per_frame)
        if (world.executed.newest_ns or 0) < end_ns:
            if world.clock() > end_ns + _ns(SILENCE):
                self._rest(run)
                self._seek(end_ns)
            return False
        if len(run.picked) < IMAGES_PER_FRAME:
            return False
        since_ns = self.since_ns or 0
        resumes_ns = self._without_motion(begin_ns, end_ns) if end_ns > since_ns else None
        if resumes_ns is not None:
            self._rest(run)
            self._seek(resumes_ns)
            return True
        if not execution.encode_frame(run):
            raise CameraFault(run.fault)
        execution.seen_since = 0.0
        return True

    def _remember(self, run: Running) -> None:
        """Write a chunk that is complete; the grid goes on behind it."""
        execution = self._execution
        written = execution.commit(run)
        execution.running, execution.following = execution.following if written else None, None
        if execution.running is None and self.since_ns is not None:
            if written and not run.cut_short:
                execution.running = self._chunk_from(run.end_ns)
            else:
                self._seek(max(self.since_ns, run.end_ns))

    def _rest(self, run: Running) -> None:
        """Write the complete frames of a chunk that will not be completed."""
        run.picked.clear()
        self._execution.running = self._execution.following = None
        self._execution.commit(run)

    # Motion, as it was commanded

    def _seek(self, from_ns: int) -> None:
        """Look for the next motion from a time on."""
        self._looked_ns, self._at, self._opening = from_ns, None, None

    def _motion_begins(self) -> tuple[int, np.ndarray] | None:
        """Return the last command before a motion, (stamp, [J]), or None: the arm rests."""
        for stamp_ns, q in self._execution.world.executed.after(self._looked_ns):
            if self._at is None or stamp_ns - self._looked_ns > _ns(SILENCE):
                self._at = q
            elif np.abs(q - self._at).max() > STILL:
                return self._looked_ns, self._newest
            self._looked_ns, self._newest = stamp_ns, q
        return None

    def _without_motion(self, begin_ns: int, end_ns: int) -> int | None:
        """Return from when on to look for motion where a frame shows none, else None."""
        commands = [entry for entry in self._execution.world.executed.after(begin_ns - 1)
                    if entry[0] <= end_ns]
        stamps = [begin_ns, *(stamp_ns for stamp_ns, _ in commands), end_ns]
        gaps = np.flatnonzero(np.diff(stamps) > _ns(SILENCE))
        if len(gaps):
            return stamps[gaps[-1] + 1]
        moves = commands and np.ptp(np.stack([q for _, q in commands]), axis=0).max() > STILL
        return None if moves else begin_ns


def _ns(seconds: float) -> int:
    return round(seconds * NANOSECONDS)
