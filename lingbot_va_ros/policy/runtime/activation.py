"""The parts of an active policy that one activation makes: episode, predictor, recorder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TYPE_CHECKING

from lingbot_va_ros.policy.runtime.active_episode import ActiveEpisode
from lingbot_va_ros.policy.runtime.camera_buffer import CameraFault
from lingbot_va_ros.policy.runtime.predictor import Predictor
from lingbot_va_ros.policy.runtime.status import PolicyMode
from lingbot_va_ros.policy.runtime.takeover_recorder import TakeoverRecorder

if TYPE_CHECKING:  # torch is imported when a checkpoint is loaded, not when a node starts
    from lingbot_va_ros.policy.inference.engine import Engine


@dataclass(frozen=True)
class Activation:
    """The episode that `Scheduler.start` makes active, its predictor and its recorder."""

    episode: ActiveEpisode
    predictor: Predictor
    recorder: TakeoverRecorder

    def truncate(self) -> None:
        """Stop the arm here, commit the complete frames, and drop the rest."""
        self.predictor.discard()
        self.episode.truncate()
        self.recorder.start_over()

    def drop(self) -> None:
        """Forget the chunks that are predicted or active."""
        self.predictor.discard()
        self.episode.drop()
        self.recorder.start_over()

    def drop_predicted(self, stops: bool) -> None:
        """
        Drop what was predicted for another instruction.

        :param stops: the running chunk ends here too.
        """
        self.predictor.discard()
        if stops and self.episode.running is not None:
            self.truncate()
        self.episode.withdraw_next()

    def restart_time(self, step_ns: int) -> None:
        """Forget the chunks, whose times mean nothing any more: the clock has stepped."""
        self.predictor.discard()
        self.episode.drop()
        self.episode.engine.drop_observed()
        self.episode.shift_observed(step_ns)
        self.recorder.restart_time()

    def restart(self) -> None:
        """Forget the chunks, and number the next ones from 0."""
        self.drop()
        self.episode.restart_numbering()

    @property
    def at_rest(self) -> bool:
        """Whether the policy has no chunk on its way; a person may have one."""
        running = self.episode.running
        return running is None or running.by_person

    def rest_for(
        self, line: str, not_ready: str | None, taken_by: str | None,
    ) -> tuple[PolicyMode, str] | None:
        """
        Rest while something takes its time, and return what the status has to say.

        :param line: what takes its time.
        :param not_ready: why the robot is not ready, as `taken_by` for its owner: one line, or
            None.
        :returns: mode and reason; None for a quick thing while a chunk is on its way.
        """
        if self.at_rest:
            self.episode.hold_measured_position()
            self.episode.expect_stop()
        if not_ready or taken_by:
            return PolicyMode.HOLDING, f'{not_ready or taken_by}; {line}'
        return (PolicyMode.WAITING, line) if self.at_rest else None

    def record(self, taken_by: str | None) -> tuple[bool, str]:
        """
        Record a person's motion, and the rest of it when the arm was given back.

        :param taken_by: why the policy does not move the arm (one line), or None.
        :returns: whether there was something to do, and what the policy waits for, one line.
        """
        self.predictor.begin_anew()
        reason = taken_by or 'the arm was given back'
        if self.recorder.recording:
            reason = f'{taken_by}; what the person does is remembered'
        try:
            worked = self.recorder.step()
        except CameraFault as fault:
            worked, reason = False, str(fault)
        self.episode.hold_measured_position()
        return worked, reason


def figures(engine: Engine | None, episode: ActiveEpisode | None) -> dict[str, Any]:
    """Return the figures of a RuntimeStatus that engine and episode know."""
    if engine is None:
        return {}
    policy = engine.policy
    return {
        'chunk_id': max(0, episode.next_chunk_id - 1) if episode is not None else 0,
        'memory_frames': engine.memory_frames, 'memory_capacity': engine.memory_capacity,
        'chunk_seconds':
            policy.frames_per_chunk * policy.actions_per_frame * policy.action_period}
