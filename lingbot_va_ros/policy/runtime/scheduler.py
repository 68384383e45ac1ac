"""Runs the sense-predict-execute-commit loop, synchronously or ahead of the running chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TYPE_CHECKING

from lingbot_va_ros.motion.plan_slot import PlanSlot
from lingbot_va_ros.policy.errors import NotExecutable, PredictionAborted
from lingbot_va_ros.policy.runtime.active_chunk import ActiveChunk
from lingbot_va_ros.policy.runtime.active_episode import ActiveEpisode
from lingbot_va_ros.policy.runtime.camera_buffer import CameraFault
from lingbot_va_ros.policy.runtime.chunk_actions import is_executed
from lingbot_va_ros.policy.runtime.clock import Clock
from lingbot_va_ros.policy.runtime.events import PolicyEvents
from lingbot_va_ros.policy.runtime.latency import Latency
from lingbot_va_ros.policy.runtime.predictor import Predictor
from lingbot_va_ros.policy.runtime.requests import RequestQueue
from lingbot_va_ros.policy.runtime.robot_interface import RobotInterface, RuntimeSettings
from lingbot_va_ros.policy.runtime.snapshot_store import (
    confirm_restored,
    saved_episode,
    SnapshotStore,
)
from lingbot_va_ros.policy.runtime.status import PolicyMode, RuntimeStatus
from lingbot_va_ros.policy.runtime.takeover_recorder import TakeoverRecorder
from lingbot_va_ros.policy.runtime.task import normalize_instruction, Outcome, Task
from lingbot_va_ros.specs.policy_file import Sampling

if TYPE_CHECKING:  # torch is imported when a checkpoint is loaded, not when a node starts
    from lingbot_va_ros.policy.inference.engine import Engine

POLL = 0.005  # seconds between two looks at cameras and clock while a chunk is executed
# The same while none is: requests, images of all cameras and another control mode wake it anyway,
# and more looks would take the interpreter from the threads that bring them.
REST = 0.02


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

    def restart(self) -> None:
        """Forget the chunks, and number the next ones from 0."""
        self.drop()
        self.episode.restart_numbering()


def _figures(engine: Engine | None, episode: ActiveEpisode | None) -> dict[str, Any]:
    """Return the figures of a RuntimeStatus that engine and episode know."""
    if engine is None:
        return {}
    policy = engine.policy
    return {
        'chunk_id': max(0, episode.next_chunk_id - 1) if episode is not None else 0,
        'memory_frames': engine.memory_frames, 'memory_capacity': engine.memory_capacity,
        'chunk_seconds':
            policy.frames_per_chunk * policy.actions_per_frame * policy.action_period}


class Scheduler:
    """
    One policy at work, one small step at a time.

    Used by the inference thread alone, which owns it and the engine. It decides the next step; the
    chunks of the arm are in `ActiveEpisode`. A single-threaded simulation calls `advance` in a
    loop, with a clock whose `wait` advances the simulated robot.

    :param slot: the plan that the control thread publishes.
    :param requests: those of other threads; one that waits stops a prediction.
    """

    def __init__(
        self, slot: PlanSlot, clock: Clock, events: PolicyEvents, requests: RequestQueue,
    ):
        self.status = RuntimeStatus()
        self._slot = slot
        self._clock = clock
        self._events = events
        self._requests = requests
        self._latency = Latency()
        self._engine: Engine | None = None
        self._snapshots = SnapshotStore(0)
        # Stays after `stop`, until the next `start` or `unload`.
        self._activation: Activation | None = None
        self._active = False
        self._instruction = ''
        self._task: Task | None = None
        self._finished = ''  # the result of the last task, until there is another

    @property
    def active(self) -> bool:
        """Whether the policy works, between `start` and `stop`."""
        return self._active

    @property
    def engine(self) -> Engine | None:
        """The loaded engine, or None."""
        return self._engine

    @property
    def episode(self) -> ActiveEpisode | None:
        """The episode of the newest activation, or None before any."""
        return self._activation.episode if self._activation is not None else None

    @property
    def continuous(self) -> bool:
        """Whether the arm is meant to go on from chunk to chunk without a stop."""
        episode = self.episode
        return episode is not None and episode.continuous

    # Requests, served between two steps

    def load(self, engine: Engine, max_snapshots: int) -> None:
        """Take an engine; its statistics begin at none."""
        self._engine, self._snapshots = engine, SnapshotStore(max_snapshots)
        self._activation = None
        self._latency.clear()
        self._finished = ''
        self._report(PolicyMode.IDLE, 'inactive')

    def unload(self) -> None:
        """Release the engine, what it holds on the device, and the snapshots."""
        self._engine, self._activation, self._active = None, None, False
        self._snapshots = SnapshotStore(0)
        self._report(PolicyMode.IDLE, 'unconfigured')

    def start(self, robot: RobotInterface, settings: RuntimeSettings, instruction: str) -> None:
        """
        Begin to work; with an empty instruction the policy waits for one.

        :raises ValueError: no engine is loaded.
        """
        engine = self._loaded()
        episode = ActiveEpisode(
            engine, robot, settings, self._slot, self._latency, self._events, self.episode)
        self._activation = Activation(
            episode, Predictor(episode, self._slot, self._requests, self._latency, self),
            TakeoverRecorder(episode))
        self._active = True
        engine.keeps_images = settings.last_chunk_only
        self.set_instruction(instruction)

    def stop(self, reason: str) -> None:
        """Stop working; the complete frames of the running chunk are committed."""
        if self._active and self._activation is not None:
            self._end_task(Outcome.STOPPED, reason)
            self._activation.truncate()
            self._activation.recorder.abandon()
        self._active = False
        self._report(PolicyMode.IDLE, reason)

    def fail(self, reason: str) -> None:
        """Stop working after an exception; nothing more is asked of the engine."""
        self._active = False
        if self._activation is not None:
            self._activation.drop()
            self._activation.recorder.abandon()
        self._end_task(Outcome.FAULT, reason)

    def reset(self, instruction: str) -> int:
        """
        Forget the episode, after a new epoch was begun; return the forgotten frames.

        :param instruction: the next task; an empty one keeps the present one.
        """
        if self._activation is not None:
            self._activation.restart()
        forgotten = self._engine.reset() if self._engine is not None else 0
        if normalize_instruction(instruction):
            self._use_instruction(instruction)
        self._refresh()
        return forgotten

    def set_instruction(self, instruction: str) -> None:
        """Change the task without forgetting; a task of `begin_task` ends."""
        instruction = normalize_instruction(instruction)
        if self._task is not None and instruction != self._instruction:
            self._end_task(Outcome.PREEMPTED, 'set_instruction took its place')
        self._finished = ''
        self._use_instruction(instruction)
        self._refresh()

    def set_sampling(self, video: Sampling, action: Sampling, imagine_steps: int) -> None:
        """
        Change steps and guidance.

        :raises ValueError: the engine cannot take them, or none is loaded.
        """
        engine = self._loaded()
        engine.set_sampling(video, action)
        engine.imagine_steps = imagine_steps
        self._latency.forget_ahead()

    def save(self, name: str) -> int:
        """
        Keep a snapshot of the episode and return its frames.

        May be called between two denoising steps: the prediction takes no part in it.

        :raises ValueError: see `SnapshotStore.check`, or no engine is loaded.
        """
        engine = self._loaded()
        self._snapshots.check(name)
        saved = saved_episode(engine, self.episode, self._instruction)
        self._snapshots.keep(name, saved)
        return saved.frames

    def restore(self, name: str) -> int:
        """
        Put the episode back to a snapshot in a new epoch, and return its frames.

        The frames that had been seen of the running chunk are committed, as where it is truncated.

        :raises ValueError: there is no such snapshot, it is of another checkpoint, or no engine is
            loaded.
        """
        engine = self._loaded()
        saved = self._snapshots.find(name)
        engine.restore(saved.engine)
        self._slot.stop(new_epoch=True)
        if self._activation is not None:
            self._activation.restart()
        confirm_restored(saved, engine, self.episode)
        self._use_instruction(saved.instruction if self._task is None else self._task.instruction)
        self._refresh()
        return engine.memory_frames

    def begin_task(self, task: Task) -> None:
        """
        Work on a task from here on; one that is worked on ends.

        The caller has begun a new epoch unless the memory is to be kept.

        :raises ValueError: the policy is inactive, or there is no instruction.
        """
        if not self._active or self._activation is None:
            raise ValueError('the policy is inactive')
        instruction = normalize_instruction(task.instruction) or self._instruction
        if not instruction:
            raise ValueError('no instruction')
        self._end_task(Outcome.PREEMPTED, 'a newer goal took its place')
        if task.keep_memory:
            self._activation.truncate()
        else:
            self.reset('')
        self._use_instruction(instruction)
        task.instruction = instruction
        self._task, self._finished = task, ''
        self._refresh()

    def cancel_task(self, task: Task) -> None:
        """End a task if it is still worked on."""
        if self._task is task and self._activation is not None:
            self._finish_task(self._activation, Outcome.CANCELED, 'cancelled')

    def allow_retry(self) -> None:
        """Clear the last rejection so that the next step predicts again."""
        if self._activation is not None:
            self._activation.predictor.allow_retry()

    # Steps

    def advance(self) -> None:
        """
        Take the next small step; never longer than a prediction.

        :raises PredictionAborted: a request, a lost robot or another owner of the arm stopped it.
        :raises RuntimeError: the policy was never started.
        """
        activation = self._activation
        if activation is None:
            raise RuntimeError('advance before start')
        episode, robot = activation.episode, activation.episode.robot
        not_ready, taken_by = robot.not_ready_reason(), robot.control.reason()
        recorded = self._notice_person(activation)
        if self._task is not None:
            end = self._task.update(self._clock.now_ns(), taken_by, recorded)
            if end is not None:
                self._finish_task(activation, *end)
                return
        if recorded and not not_ready:
            self._record(activation, taken_by)
            return
        if recorded:
            activation.recorder.start_over()
        running = episode.running
        if running is None:
            self._continue_from_rest(activation, not_ready, taken_by)
        elif running.by_person and not not_ready:
            self._record(activation, taken_by)
        elif not_ready or taken_by:
            activation.truncate()
            self._report(PolicyMode.HOLDING, not_ready or taken_by or '')
        else:
            self._follow(activation, running)

    def check(self) -> None:
        """
        Look up from a prediction, before each forward (`Interrupt`).

        :raises PredictionAborted: a request, a person or a fault comes first.
        """
        self._requests.serve(up_to_interrupting=True)
        activation = self._activation
        if self._requests.waiting or activation is None or activation.recorder.person_is_new():
            raise PredictionAborted
        robot, running = activation.episode.robot, activation.episode.running
        if running is not None:  # the arm moves meanwhile
            if activation.episode.poll():
                self._report(PolicyMode.RUNNING)
            if running.fault or robot.not_ready_reason() or robot.control.reason():
                raise PredictionAborted
        if self._task is not None and (
                self._task.update(self._clock.now_ns(), robot.control.reason())):
            raise PredictionAborted

    def _continue_from_rest(
        self, activation: Activation, not_ready: str | None, taken_by: str | None,
    ) -> None:
        """Predict from rest and begin the chunk, or say why not."""
        episode, predictor = activation.episode, activation.predictor
        episode.hold_measured_position()
        if self._finished:
            self._report(PolicyMode.IDLE, self._finished)
            self._clock.wait(REST)
            return
        if not_ready:
            predictor.begin_anew()
            self._hold(episode, not_ready)
            return
        if not self._instruction:
            episode.expect_stop()
            self._report(PolicyMode.WAITING, 'no instruction')
            self._clock.wait(REST)
            return
        rejection = predictor.rejection(taken_by)
        if rejection is not None:
            self._hold(episode, rejection)
            return
        if predictor.ready is None or (not taken_by and predictor.is_stale()):
            try:
                predictor.predict_from_rest()
            except CameraFault as fault:
                self._report(PolicyMode.HOLDING, str(fault))
            # A prediction may take long: look again before anything moves.
            not_ready = episode.robot.not_ready_reason()
            taken_by = episode.robot.control.reason()
        if not_ready:
            return
        if predictor.ready is None:
            self._clock.wait(POLL)
        elif taken_by:
            self._hold(episode, taken_by)
        else:
            try:
                if predictor.begin():
                    self._report(PolicyMode.RUNNING)
            except NotExecutable as error:
                episode.expect_stop()
                self._report(PolicyMode.HOLDING, str(error))

    def _follow(self, activation: Activation, running: ActiveChunk) -> None:
        """Encode the running chunk's images, predict the next, commit it when it has ended."""
        episode, predictor = activation.episode, activation.predictor
        if episode.poll():
            self._report(PolicyMode.RUNNING)
        episode.encode(running)
        if running.fault:
            activation.truncate()
            self._report(PolicyMode.HOLDING, running.fault)
        elif running.all_picked and is_executed(episode.robot, running):
            episode.advance_chunk()
            predictor.chunk_committed()
            self._refresh()
            if self._task is not None:
                self._task.chunks += 1
        elif predictor.is_due(running, self._task is None or self._task.wants_more(1)):
            if predictor.predict_ahead(running):
                self._report(PolicyMode.RUNNING)
        else:
            if not running.all_picked:  # the next prediction does not wait for a frame any more
                episode.forget_encoding_time()
            self._clock.wait(POLL)

    def _notice_person(self, activation: Activation) -> bool:
        """
        Notice a person who takes or gives back the arm; return whether the motion is recorded.

        Where takeovers are not kept, one that begins ends the episode.
        """
        episode, recorder = activation.episode, activation.recorder
        if recorder.notice_person() and (episode.engine.began or episode.running is not None):
            self._slot.stop(new_epoch=True)
            self.reset('')
        return recorder.update(wanted=bool(self._instruction) and not self._finished)

    def _record(self, activation: Activation, taken_by: str | None) -> None:
        """Record a person's motion, and the rest of it when the arm was given back."""
        activation.predictor.begin_anew()
        reason = taken_by or 'the arm was given back'
        if activation.recorder.recording:
            reason = f'{taken_by}; what the person does is remembered'
        try:
            worked = activation.recorder.step()
        except CameraFault as fault:
            worked, reason = False, str(fault)
        activation.episode.hold_measured_position()
        self._report(PolicyMode.HOLDING, reason)
        if not worked:
            self._clock.wait(POLL)

    def _hold(self, episode: ActiveEpisode, reason: str) -> None:
        episode.expect_stop()
        self._report(PolicyMode.HOLDING, reason)
        self._clock.wait(REST)

    # Tasks and instructions

    def _loaded(self) -> Engine:
        if self._engine is None:
            raise ValueError('the policy is not configured')
        return self._engine

    def _use_instruction(self, instruction: str) -> None:
        if self._engine is not None and instruction:
            self._engine.set_instruction(instruction)
        activation = self._activation
        if instruction != self._instruction and activation is not None:
            activation.predictor.discard()  # predicted for another task
            if not instruction and activation.episode.running is not None:
                activation.truncate()
            activation.episode.withdraw_next()
        self._instruction = instruction

    def _finish_task(self, activation: Activation, outcome: Outcome, message: str) -> None:
        """End the task and rest until there is another."""
        activation.truncate()
        self._use_instruction('')
        self._finished = f'run_task {outcome.name}: {message}'
        self._report(PolicyMode.IDLE, self._finished)
        self._end_task(outcome, message)

    def _end_task(self, outcome: Outcome, message: str) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.end(outcome, message)

    def _refresh(self) -> None:
        self._report(self.status.mode, self.status.reason)

    def _report(self, mode: PolicyMode, reason: str = '') -> None:
        """Tell the status, if it differs from the one before."""
        status = RuntimeStatus(
            mode=mode, reason=reason, instruction=self._instruction,
            inference_seconds=self._latency.newest, inference_seconds_p95=self._latency.p95,
            **_figures(self._engine, self.episode))
        if status != self.status:
            self.status = status
            self._events.status_changed(status)
