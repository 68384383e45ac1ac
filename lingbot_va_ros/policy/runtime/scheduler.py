"""Runs the sense-predict-execute-commit loop, synchronously or ahead of the running chunk."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING

from lingbot_va_ros.motion.plan_slot import PlanSlot
from lingbot_va_ros.policy.errors import NotExecutable
from lingbot_va_ros.policy.runtime.activation import Activation, figures
from lingbot_va_ros.policy.runtime.active_chunk import ActiveChunk
from lingbot_va_ros.policy.runtime.active_episode import ActiveEpisode
from lingbot_va_ros.policy.runtime.assignment import Assignment
from lingbot_va_ros.policy.runtime.camera_buffer import CameraFault
from lingbot_va_ros.policy.runtime.chunk_actions import is_executed
from lingbot_va_ros.policy.runtime.clock import Clock
from lingbot_va_ros.policy.runtime.events import PolicyEvents
from lingbot_va_ros.policy.runtime.instruction_text import at_once, RunAside
from lingbot_va_ros.policy.runtime.latency import Latency
from lingbot_va_ros.policy.runtime.pauses import PauseAfterCut
from lingbot_va_ros.policy.runtime.prediction_watch import PredictionWatch
from lingbot_va_ros.policy.runtime.predictor import Predictor
from lingbot_va_ros.policy.runtime.requests import RequestQueue
from lingbot_va_ros.policy.runtime.robot_interface import RobotInterface, RuntimeSettings
from lingbot_va_ros.policy.runtime.snapshot_store import confirm_restored, SnapshotStore
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


class Scheduler:
    """
    One policy at work, one small step at a time.

    Used by the inference thread alone, which owns it and the engine. It decides the next step; the
    chunks of the arm are in `ActiveEpisode`. A single-threaded simulation calls `advance` in a
    loop, with a clock whose `wait` advances the simulated robot.

    :param slot: the plan that the control thread publishes.
    :param requests: those of other threads; one that waits stops a prediction.
    :param aside: has the encoding of a text done; by default at once, in the calling thread.
    """

    def __init__(
        self, slot: PlanSlot, clock: Clock, events: PolicyEvents, requests: RequestQueue,
        aside: RunAside = at_once,
    ):
        self.status = RuntimeStatus()
        self.engine: Engine | None = None  # the loaded one
        self.active = False  # whether the policy works, between `start` and `stop`
        self._slot = slot
        self._clock = clock
        self._events = events
        self._requests = requests
        self._latency = Latency()
        self._snapshots = SnapshotStore(0)
        # Stays after `stop`, until the next `start` or `unload`.
        self._activation: Activation | None = None
        self._assignment = Assignment(clock, aside)
        self._pause = PauseAfterCut(clock)

    @property
    def episode(self) -> ActiveEpisode | None:
        """The episode of the newest activation, or None before any."""
        return self._activation.episode if self._activation is not None else None

    @property
    def continuous(self) -> bool:
        """Whether the arm is meant to go on from chunk to chunk without a stop."""
        return self.episode is not None and self.episode.continuous

    # Requests, served between two steps

    def load(self, engine: Engine, max_snapshots: int) -> None:
        """Take an engine; its statistics begin at none."""
        self.engine, self._snapshots = engine, SnapshotStore(max_snapshots)
        self._activation = None
        self._latency.clear()
        self._assignment.forget_result()
        self._report(PolicyMode.IDLE, 'inactive')

    def unload(self) -> None:
        """Release the engine, what it holds on the device, and the snapshots."""
        self._assignment.end_encoding()
        self.engine, self._activation, self.active = None, None, False
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
        recorder = TakeoverRecorder(episode)
        watch = PredictionWatch(
            episode, recorder, self._requests, self._assignment,
            lambda: self._report(PolicyMode.RUNNING))
        self._activation = Activation(
            episode, Predictor(episode, self._slot, self._requests, self._latency, watch),
            recorder)
        self.active = True
        self._pause.forget()
        engine.keep_images(settings.last_chunk_only)
        self.set_instruction(instruction)

    def stop(self, reason: str) -> None:
        """Stop working; the complete frames of the running chunk are committed."""
        if self.active and self._activation is not None:
            self._assignment.end(Outcome.STOPPED, reason)
            self._activation.truncate()
            self._activation.recorder.abandon()
        self.active = False
        self._report(PolicyMode.IDLE, reason)

    def fail(self, reason: str) -> None:
        """Stop working after an exception; nothing more is asked of the engine."""
        self.active = False
        if self._activation is not None:
            self._activation.drop()
            self._activation.recorder.abandon()
        self._assignment.end(Outcome.FAULT, reason)

    def reset(self, instruction: str) -> int:
        """
        Forget the episode, after a new epoch was begun; return the forgotten frames.

        :param instruction: the next task; an empty one keeps the present one.
        """
        if self._activation is not None:
            self._activation.restart()
        self._pause.forget()
        forgotten = self.engine.reset() if self.engine is not None else 0
        if normalize_instruction(instruction):
            self._use_instruction(instruction)
        self._refresh()
        return forgotten

    def restart_time(self, step_ns: int) -> None:
        """Forget the plan and the chunks on their way: the clock has stepped."""
        self._slot.clear()
        if self._activation is not None:
            self._activation.restart_time(step_ns)

    def set_instruction(self, instruction: str) -> None:
        """Change the task without forgetting; a task of `begin_task` ends. See `encoded`."""
        instruction = normalize_instruction(instruction)
        if instruction != self._assignment.instruction:
            self._assignment.end(Outcome.PREEMPTED, 'set_instruction took its place')
        self._assignment.forget_result()
        self._use_instruction(instruction)
        self._refresh()

    def encoded(self) -> Future[None]:
        """Return a future that is done when the present instruction is encoded, or not wanted."""
        return self._assignment.encoded(self.engine)

    def set_sampling(self, video: Sampling, action: Sampling, imagine_steps: int) -> None:
        """
        Change steps and guidance.

        :raises ValueError: the engine cannot take them, or none is loaded.
        """
        engine = self._loaded()
        engine.set_sampling(video, action, imagine_steps)
        self._latency.forget_ahead()

    def save(self, name: str) -> int:
        """
        Keep a snapshot of the episode and return its frames.

        May be called between two denoising steps: the prediction takes no part in it.

        :raises ValueError: see `SnapshotStore.save`, or no engine is loaded.
        """
        return self._snapshots.save(
            name, self._loaded(), self.episode, self._assignment.instruction)

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
        self._use_instruction(self._assignment.instruction_after_restore(saved.instruction))
        self._refresh()
        return engine.memory_frames

    def begin_task(self, task: Task) -> None:
        """
        Work on a task from here on; one that is worked on ends.

        A text that cannot be encoded ends it with the outcome `FAULT`. The caller has begun a new
        epoch unless the memory is to be kept.

        :raises ValueError: the policy is inactive, or there is no instruction.
        """
        if not self.active or self._activation is None:
            raise ValueError('the policy is inactive')
        instruction = normalize_instruction(task.instruction) or self._assignment.instruction
        if not instruction:
            raise ValueError('no instruction')
        self._assignment.end(Outcome.PREEMPTED, 'a newer goal took its place')
        if task.keep_memory:
            self._activation.truncate()
        else:
            self.reset('')
        self._use_instruction(instruction)
        task.instruction = instruction
        self._assignment.begin(task)
        self._refresh()

    def cancel_task(self, task: Task) -> None:
        """End a task if it is still worked on."""
        if self._assignment.task is task and self._activation is not None:
            self._finish_task(self._activation, Outcome.CANCELED, 'cancelled')

    def allow_retry(self) -> None:
        """Clear the last rejection so that the next step predicts again."""
        if self._activation is not None:
            self._activation.predictor.allow_retry()
            self._pause.forget()

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
        not_ready, taken_by = robot.not_ready_reason(), robot.control.not_owner_reason()
        recorded = self._acknowledge_takeover(activation)
        end = self._assignment.update(robot.ros_ns(), taken_by, recorded)
        if end is not None:
            self._finish_task(activation, *end)
            return
        if self._encode(activation, not_ready, taken_by):
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
            if not_ready:
                self._pause.cut(not_ready)
            self._report(PolicyMode.HOLDING, not_ready or taken_by or '')
        else:
            self._follow(activation, running)

    def _continue_from_rest(
        self, activation: Activation, not_ready: str | None, taken_by: str | None,
    ) -> None:
        """Predict from rest and begin the chunk, or say why not."""
        episode, predictor = activation.episode, activation.predictor
        episode.hold_measured_position()
        if self._assignment.finished:
            self._rest(episode, PolicyMode.IDLE, self._assignment.finished)
            return
        if not_ready:
            predictor.begin_anew()
            self._rest(episode, PolicyMode.HOLDING, not_ready)
            return
        if not self._assignment.instruction:
            self._rest(episode, PolicyMode.WAITING, 'no instruction')
            return
        rejection = predictor.rejection(taken_by)
        if not taken_by:
            rejection = self._pause.reason() or rejection
        if rejection is not None:
            self._rest(episode, PolicyMode.HOLDING, rejection)
            return
        if predictor.ready is None or (not taken_by and predictor.is_stale()):
            try:
                predictor.predict_from_rest()
            except CameraFault as fault:
                self._report(PolicyMode.HOLDING, str(fault))
            # A prediction may take long: look again before anything moves.
            not_ready = episode.robot.not_ready_reason()
            taken_by = episode.robot.control.not_owner_reason()
        if not_ready:
            return
        if predictor.ready is None:
            self._clock.wait(POLL)
        elif taken_by:
            self._rest(episode, PolicyMode.HOLDING, taken_by)
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
            self._pause.cut(running.fault)
            self._report(PolicyMode.HOLDING, running.fault)
        elif running.all_picked and is_executed(episode.robot, running):
            episode.advance_chunk()
            predictor.chunk_committed()
            self._pause.forget()
            self._refresh()
            self._assignment.count_chunk()
        elif predictor.is_due(running, self._assignment.wants_chunk(self.engine)):
            if predictor.predict_ahead(running):
                self._report(PolicyMode.RUNNING)
        else:
            if not running.all_picked:  # the next prediction does not wait for a frame any more
                episode.forget_encoding_time()
            self._clock.wait(POLL)

    def _acknowledge_takeover(self, activation: Activation) -> bool:
        """
        Notice a person who takes or gives back the arm; return whether the motion is recorded.

        Where takeovers are not kept, one that begins ends the episode.
        """
        episode, recorder = activation.episode, activation.recorder
        if recorder.acknowledge_takeover() and (
                episode.engine.began or episode.running is not None):
            self._slot.stop(new_epoch=True)
            self.reset('')
        return recorder.update(wanted=self._assignment.wants_motion)

    def _record(self, activation: Activation, taken_by: str | None) -> None:
        """Record a person's motion, and the rest of it when the arm was given back."""
        worked, reason = activation.record(taken_by)
        self._report(PolicyMode.HOLDING, reason)
        if not worked:
            self._clock.wait(POLL)

    def _rest(self, episode: ActiveEpisode, mode: PolicyMode, reason: str) -> None:
        episode.expect_stop()
        self._report(mode, reason)
        self._clock.wait(REST)

    # Tasks and instructions

    def _loaded(self) -> Engine:
        if self.engine is None:
            raise ValueError('the policy is not configured')
        return self.engine

    def _use_instruction(self, instruction: str) -> None:
        if instruction == self._assignment.instruction:
            return
        if self._activation is not None:
            self._activation.drop_predicted(stops=not instruction)
        self._assignment.want(instruction, self.engine)

    def encode_waiting(self, at_rest: bool = True) -> bool:
        """
        Take a step of encoding an instruction that waits for it; return whether that is all to do.

        :param at_rest: whether no chunk is on its way; one is followed while a thread encodes.
        """
        worked, ended, error = self._assignment.encode(self.engine)
        if ended:
            self._refresh()
            self._assignment.settle(error)
        elif worked and at_rest:
            self._clock.wait(POLL)
        if error is not None and self._assignment.task and self._activation:
            self._finish_task(
                self._activation, Outcome.FAULT, f'the instruction cannot be encoded: {error}')
        return worked and (ended or at_rest)

    def _encode(
        self, activation: Activation, not_ready: str | None, taken_by: str | None,
    ) -> bool:
        """Encode an instruction at a fit moment; return whether that is all to do."""
        if not self._assignment.is_encoding_due(activation.episode.engine, activation.at_rest):
            return False
        why = activation.rest_for(self._assignment.encoding_line, not_ready, taken_by)
        if why is not None:
            self._report(*why)
        return self.encode_waiting(activation.at_rest)

    def _finish_task(self, activation: Activation, outcome: Outcome, message: str) -> None:
        """End the task and rest until there is another."""
        activation.truncate()
        self._use_instruction('')
        self._report(PolicyMode.IDLE, self._assignment.finish(outcome, message))
        self._assignment.end(outcome, message)

    def _refresh(self) -> None:
        self._report(self.status.mode, self.status.reason)

    def _report(self, mode: PolicyMode, reason: str = '') -> None:
        """Tell the status, if it differs from the one before."""
        status = RuntimeStatus(
            mode=mode, reason=reason, instruction=self._assignment.instruction,
            inference_seconds=self._latency.newest, inference_seconds_p95=self._latency.p95,
            **figures(self.engine, self.episode))
        if status != self.status:
            self.status = status
            self._events.status_changed(status)
