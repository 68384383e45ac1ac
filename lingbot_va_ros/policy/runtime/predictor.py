"""Predictions of an active episode: from rest, or ahead of the running chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lingbot_va_ros.motion.plan_slot import PlanSlot
from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.policy.errors import NotExecutable
from lingbot_va_ros.policy.interrupt import Interrupt
from lingbot_va_ros.policy.runtime.active_chunk import ActiveChunk
from lingbot_va_ros.policy.runtime.active_episode import ActiveEpisode, PredictedChunk
from lingbot_va_ros.policy.runtime.chunk_actions import expected_actions
from lingbot_va_ros.policy.runtime.latency import Latency
from lingbot_va_ros.policy.runtime.requests import RequestQueue

if TYPE_CHECKING:  # torch is imported when a checkpoint is loaded, not when a node starts
    from lingbot_va_ros.policy.inference.engine import Chunk

POLL = 0.005  # seconds between two looks at the padded latency
FIRST_IMAGE_AGE = 0.5  # seconds that a chunk may wait to begin an episode before it is redone
# Seconds until an episode is begun anew whose first chunk the robot could not execute.
BEGIN_AGAIN = 2.0


class Predictor:
    """
    Predicts the next chunk, and keeps the one that waits for the arm.

    Used by the inference thread alone.

    :param requests: a prediction begins only at a moment without requests.
    :param latency: told the durations of predictions.
    :param interrupt: checked before every forward.
    """

    def __init__(
        self, episode: ActiveEpisode, slot: PlanSlot, requests: RequestQueue, latency: Latency,
        interrupt: Interrupt,
    ):
        self._episode = episode
        self._slot = slot
        self._requests = requests
        self._latency = latency
        self._interrupt = interrupt
        self._ready: PredictedChunk | None = None
        self._rejection: tuple[str, float] | None = None  # the reason, and the steady time
        self._ahead_rejected = False  # the arm cannot take the chunk that was predicted ahead

    # From rest

    @property
    def ready(self) -> PredictedChunk | None:
        """The chunk that waits to begin from rest, or None."""
        return self._ready

    def discard(self) -> None:
        """Drop the chunk that waits, and predict ahead again."""
        self._ready, self._ahead_rejected = None, False

    def begin_anew(self) -> None:
        """Drop the chunk that waits and the last rejection: the arm may be elsewhere."""
        self._ready = self._rejection = None

    def allow_retry(self) -> None:
        """Clear the last rejection so that the next step predicts again."""
        self._rejection = None

    def chunk_committed(self) -> None:
        """Predict ahead again: the chunk that was rejected would be another one now."""
        self._ahead_rejected = False

    def rejection(self, taken_by: str | None) -> str | None:
        """
        Return why the chunk was rejected that would be predicted again, or None.

        The same memory gives the same chunk. Within an episode it takes a request, a robot that
        was not ready, or another owner of the arm to predict again. An episode that has not begun
        is tried again with a new image.

        :param taken_by: why the policy does not move the arm (one line), or None.
        """
        if self._rejection is None:
            return None
        reason, since = self._rejection
        waited = self._episode.robot.clock.steady() - since
        if taken_by or (not self._episode.engine.began and waited > BEGIN_AGAIN):
            self._rejection = None
            return None
        return reason

    def is_stale(self) -> bool:
        """Return whether the chunk that waits began from an image that is too old."""
        episode = self._episode
        age = (episode.robot.ros_ns() - episode.observed_ns) / NANOSECONDS
        return not episode.engine.began and age > FIRST_IMAGE_AGE

    def predict_from_rest(self) -> None:
        """
        Predict from the confirmed memory, with the arm at rest; the chunk is then `ready`.

        There is none where a request came first, or the joints' positions are not known.

        :raises CameraFault: the image that begins an episode is missing.
        :raises PredictionAborted: the interrupt asked for it.
        """
        episode, engine, robot = self._episode, self._episode.engine, self._episode.robot
        self._ready = None
        epoch = self._requests.unless_waiting(lambda: self._slot.epoch)
        if epoch is None:
            return
        since = robot.clock.steady()
        if engine.began:
            since = since if episode.encoding_since is None else episode.encoding_since
        else:
            measured = robot.joints.positions()
            if measured is None:  # cleared since the robot was ready
                return
            episode.observe_first(robot.cameras.newest(robot.live().max_camera_skew), measured)
        recordings = engine.graph_recordings
        chunk = _finite(engine.predict(self._interrupt))
        self._pad(since)
        seconds = robot.clock.steady() - since
        episode.forget_encoding_time()
        self._latency.add(seconds, recorded=engine.graph_recordings > recordings)
        self._ready = PredictedChunk(chunk, epoch, episode.observed_ns, seconds)

    def begin(self) -> bool:
        """
        Put the chunk that is ready into the plan, and return whether it has begun.

        :raises NotExecutable: the arm cannot take it; it is kept as a rejection.
        """
        ready, self._ready = self._ready, None
        if ready is None:
            return False
        try:
            return self._episode.begin(ready)
        except NotExecutable as error:
            self._rejection = (str(error), self._episode.robot.clock.steady())
            raise

    # Ahead

    def is_due(self, running: ActiveChunk, wanted: bool) -> bool:
        """
        Return whether the chunk after the running one must be predicted now to be in time.

        In time is before the last stretch of the plan, which is then passed at speed.

        :param wanted: whether a further chunk is wanted; if not, the motion is to end.
        """
        episode, settings = self._episode, self._episode.settings
        if not settings.schedule.predicts_ahead or self._ahead_rejected or (
                episode.following is not None):
            return False
        if not wanted:
            episode.expect_stop()
            return False
        now, needed = episode.robot.clock.now_ns(), self._latency.time_needed
        if now < running.start_ns or now >= running.end_ns:
            return False
        before = running.action_times[-2] if len(running.action_times) > 1 else running.start_ns
        left = episode.robot.timeline.seconds(now, before)
        return needed is None or left <= settings.reaction + needed

    def predict_ahead(self, running: ActiveChunk) -> bool:
        """
        Predict the chunk after the running one and let the plan go on through it.

        :returns: whether that chunk has begun already.
        :raises PredictionAborted: the interrupt asked for it.
        """
        episode, clock = self._episode, self._episode.robot.clock
        epoch = self._requests.unless_waiting(lambda: self._slot.epoch)
        if epoch is None:
            return False
        # What was encoded and committed right before belongs to its time, as from rest.
        since = clock.steady() if episode.encoding_since is None else episode.encoding_since
        observed, recordings = episode.observed_ns, episode.engine.graph_recordings
        chunk = _finite(episode.engine.predict_ahead(
            expected_actions(episode.robot, running), episode.settings.schedule.imagines,
            self._interrupt))
        self._pad(since)
        try:
            joints = episode.to_joints_behind(running, chunk)
        except NotExecutable:
            # The frames of this chunk may lead elsewhere: decided when it has ended.
            self._ahead_rejected = True
            return False
        seconds = clock.steady() - since
        episode.forget_encoding_time()
        self._latency.add(
            seconds, ahead=True, recorded=episode.engine.graph_recordings > recordings)
        return episode.join(running, PredictedChunk(chunk, epoch, observed, seconds), joints)

    def _pad(self, since: float) -> None:
        """Wait until the padded latency has passed, as if it were still predicting."""
        robot = self._episode.robot
        self._interrupt.check()
        while robot.clock.steady() < since + robot.live().padded_latency:
            robot.clock.wait(POLL)
            self._interrupt.check()


def _finite(chunk: Chunk) -> Chunk:
    """
    Return the chunk.

    :raises ValueError: an action is not finite.
    """
    wrong = np.count_nonzero(~np.isfinite(chunk.actions))
    if wrong:
        raise ValueError(f'the network predicted {wrong} actions that are not finite')
    return chunk
