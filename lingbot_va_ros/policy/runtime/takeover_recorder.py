"""Records a person's motion into the memory as if the policy had made it."""

from __future__ import annotations

import numpy as np

from lingbot_va_ros.motion.time import to_nanoseconds
from lingbot_va_ros.policy.runtime.active_chunk import ActiveChunk, recorded_chunk
from lingbot_va_ros.policy.runtime.active_episode import ActiveEpisode
from lingbot_va_ros.policy.runtime.camera_buffer import CameraFault
from lingbot_va_ros.policy.runtime.chunk_actions import EXECUTED_GRACE, is_executed
from lingbot_va_ros.policy.runtime.plan_time_views import ExecutedCommands
from lingbot_va_ros.specs.checkpoint_config import IMAGES_PER_FRAME

# A latent frame during which no joint was commanded further than this (rad or m) shows no motion.
STILL = 1e-3
SILENCE = 0.25  # seconds without a command: the arm is not moved


class TakeoverRecorder:
    """
    The observation grid while a person moves the arm; it follows the motion.

    The chunk that runs goes on under the person's hand, chunks of as many frames come behind it.
    A latent frame without motion is left out: the complete frames of the chunk are committed then,
    and the next chunk begins with the next motion. Used by the inference thread alone.

    :param episode: its running chunk is the one that is recorded.
    """

    def __init__(self, episode: ActiveEpisode):
        self._episode = episode
        self._recording = False
        # ROS time since which the person has had the arm that was noticed last.
        self._person_since: int | None = None
        self._keeps = True  # whether that person's motion is recorded
        self._unrecorded_until = episode.robot.clock.now_ns()
        self._since_ns = 0  # of the recording
        self._let_go_ns = 0
        # Stamp and positions [J] from which the chunk begins that is to be opened next.
        self._opening: tuple[int, np.ndarray] | None = None
        self._searched_ns = 0  # stamp of the newest command that was searched for motion
        self._newest: np.ndarray | None = None  # [J]: that command
        self._rest: np.ndarray | None = None  # [J]: the command at which the arm rests

    @property
    def recording(self) -> bool:
        """Whether a person has the arm whose motion is recorded."""
        return self._recording

    def has_unseen_takeover(self) -> bool:
        """Return whether a person has taken the arm who was not noticed yet."""
        since = self._episode.robot.control.person_since()
        return since is not None and since != self._person_since

    def acknowledge_takeover(self) -> bool:
        """Notice the owner of the arm; return whether a person took it who ends the episode."""
        robot, ends = self._episode.robot, False
        if self.has_unseen_takeover():
            self._keeps = robot.live().takeover_memory == 'keep'
            ends = not self._keeps
        self._person_since = robot.control.person_since()
        return ends

    def update(self, wanted: bool) -> bool:
        """
        Begin or end recording with the person who was noticed; return whether it goes on.

        :param wanted: whether there is a task to record for.
        """
        robot, since = self._episode.robot, self._person_since
        recorded = since is not None and self._keeps and robot.executed is not None and wanted
        if recorded and since is not None:
            if not self._recording:
                self._begin(max(since, self._unrecorded_until))
            return True
        if self._recording:
            self._end(robot.control.since_ns if since is None else robot.clock.now_ns())
        if since is not None:
            self._unrecorded_until = robot.clock.now_ns()
        return False

    def start_over(self) -> None:
        """Leave out the motion so far; the next chunk begins with motion from now on."""
        if self._recording:
            self._search_from(self._episode.robot.clock.now_ns())

    def restart_time(self) -> None:
        """Leave out the motion so far, whose times mean nothing: the clock has stepped."""
        now = self._episode.robot.clock.now_ns()
        self._unrecorded_until = self._since_ns = self._let_go_ns = now
        self._search_from(now)

    def abandon(self) -> None:
        """Record nothing any more (the policy stops)."""
        self._recording = False

    def step(self) -> bool:
        """
        Take one small step; return whether something was encoded or committed.

        After the person has let go, steps go on until all that was complete is committed.

        :raises CameraFault: an image is missing; the frames that were complete are committed.
        """
        if self._episode.running is None:
            self._open()
        recorded = self._episode.running
        if recorded is None:
            return False
        try:
            return self._observe(recorded)
        except CameraFault:
            self._commit_unfinished(recorded)
            self.start_over()
            raise

    def _begin(self, since_ns: int) -> None:
        """Let the grid go on under the hand of a person who has had the arm since a time."""
        self._recording, self._since_ns = True, since_ns
        self._search_from(since_ns)
        self._hand_over(since_ns)

    def _end(self, at_ns: int) -> None:
        """Keep to the frames that were complete when the person let go of the arm."""
        self._recording, self._opening, self._let_go_ns = False, None, at_ns
        self._leave_out_after(at_ns)

    def _hand_over(self, since_ns: int) -> None:
        """
        Let the person's motion complete the chunks that have begun, and drop those that have not.

        :param since_ns: ROS time since which the person has had the arm.
        """
        episode = self._episode
        running, following = episode.running, episode.following
        if running is None or running.by_person:
            return
        episode.stop_plan()
        if following is not None and not following.begun:
            following = None
        period_ns = to_nanoseconds(episode.engine.policy.action_period)
        if since_ns < running.action_times[0] - period_ns:
            # Still on its way to the first action; one behind it cannot have begun.
            episode.replace_chunks(None, following)
            return
        episode.replace_chunks(running, following)
        for chunk in (running, following):
            if chunk is not None:
                chunk.hand_over()

    def _leave_out_after(self, at_ns: int) -> None:
        """Leave out the frames that the person had not completed at a ROS time."""
        episode = self._episode
        running, following = episode.running, episode.following
        if running is None or not running.by_person:
            return
        for chunk in (running, following):
            if chunk is not None:
                chunk.end_at(at_ns, episode.engine.policy.actions_per_frame)
        if running.shortened or (following is not None and not following.action_times):
            following = None
        episode.replace_chunks(running if running.action_times else None, following)

    def _record_from(self, start_ns: int) -> None:
        """Let the person's motion fill a chunk that begins at a ROS time."""
        policy = self._episode.engine.policy
        # The first frame of an episode is its first image alone.
        frames = policy.frames_per_chunk - (not self._episode.engine.began)
        self._episode.replace_chunks(recorded_chunk(
            start_ns, frames * policy.actions_per_frame, policy.action_period,
            policy.images_every), self._episode.following)

    def _open(self) -> None:
        """Begin a chunk where motion begins; the first of all begins the episode."""
        episode, robot = self._episode, self._episode.robot
        if not self._recording:
            return
        if self._opening is None:
            self._opening = self._find_motion()
        if self._opening is None or not robot.cameras.reached(self._opening[0]):
            return
        (start_ns, start), self._opening = self._opening, None
        if not episode.engine.began:
            try:
                images = robot.cameras.pick(start_ns, robot.live().max_camera_skew)
                episode.observe_first(images, start)
            except CameraFault:
                self.start_over()
                raise
        self._record_from(start_ns)

    def _observe(self, recorded: ActiveChunk) -> bool:
        """Pick a recorded chunk's images, encode one frame, or commit the chunk at its end."""
        episode, robot = self._episode, self._episode.robot
        recorded.pick(robot.cameras, robot.live().max_camera_skew)
        per_frame = episode.engine.policy.actions_per_frame
        if recorded.seen_frames * per_frame >= len(recorded.action_times):
            if not is_executed(robot, recorded):
                return False
            self._commit(recorded)
            return True
        now = robot.clock.now_ns()
        timeline = robot.timeline
        if not self._recording and timeline.seconds(self._let_go_ns, now) > EXECUTED_GRACE:
            # Images or reports that have not come by now will not come.
            self._commit_unfinished(recorded)
            return True
        begin_ns, end_ns = recorded.frame_times(per_frame)
        if (self._executed.newest_ns or 0) < end_ns:
            if timeline.seconds(end_ns, robot.clock.now_ns()) > SILENCE:
                self._commit_unfinished(recorded)
                self._search_from(end_ns)
            return False
        if len(recorded.picked) < IMAGES_PER_FRAME:
            return False
        since_ns = self._since_ns if self._recording else 0
        resumes_ns = self._without_motion(begin_ns, end_ns) if end_ns > since_ns else None
        if resumes_ns is not None:
            self._commit_unfinished(recorded)
            self._search_from(resumes_ns)
            return True
        if not episode.encode_frame(recorded):
            raise CameraFault(recorded.fault)
        episode.forget_encoding_time()
        return True

    def _commit(self, recorded: ActiveChunk) -> None:
        """Commit a chunk that is complete; the grid goes on behind it."""
        written, following = self._episode.commit(recorded), self._episode.following
        self._episode.replace_chunks(following if written else None, None)
        if self._episode.running is None and self._recording:
            if written and not recorded.shortened:
                self._record_from(recorded.end_ns)
            else:
                self._search_from(max(self._since_ns, recorded.end_ns))

    def _commit_unfinished(self, recorded: ActiveChunk) -> None:
        """Commit the complete frames of a chunk that will not be completed."""
        recorded.drop_picked()
        self._episode.replace_chunks(None, None)
        self._episode.commit(recorded)

    # Motion, as it was commanded

    @property
    def _executed(self) -> ExecutedCommands:
        executed = self._episode.robot.executed
        if executed is None:
            raise RuntimeError('a takeover is recorded from executed commands, and there are none')
        return executed

    def _search_from(self, from_ns: int) -> None:
        """Search for the next motion from a ROS time on."""
        self._searched_ns, self._rest, self._opening = from_ns, None, None

    def _find_motion(self) -> tuple[int, np.ndarray] | None:
        """Return the last command before a motion, (stamp, [J]), or None: the arm rests."""
        timeline = self._episode.robot.timeline
        for stamp_ns, q in self._executed.after(self._searched_ns):
            if self._rest is None or self._newest is None or (
                    timeline.seconds(self._searched_ns, stamp_ns) > SILENCE):
                self._rest = q
            elif np.abs(q - self._rest).max() > STILL:
                return self._searched_ns, self._newest
            self._searched_ns, self._newest = stamp_ns, q
        return None

    def _without_motion(self, begin_ns: int, end_ns: int) -> int | None:
        """Return the ROS time from which to search if a frame shows no motion, else None."""
        commands = [
            entry for entry in self._executed.after(begin_ns - 1) if entry[0] <= end_ns]
        stamps = [begin_ns, *(stamp_ns for stamp_ns, _ in commands), end_ns]
        ros_ns = self._episode.robot.timeline.to_ros_times(np.array(stamps, np.int64))
        gaps = np.flatnonzero(np.diff(ros_ns) > to_nanoseconds(SILENCE))
        if len(gaps):
            return stamps[gaps[-1] + 1]
        moves = commands and np.ptp(np.stack([q for _, q in commands]), axis=0).max() > STILL
        return None if moves else begin_ns
