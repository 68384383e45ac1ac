"""What follows what: observe, predict, execute, remember, in the synchronous order or ahead."""

from __future__ import annotations

from collections.abc import Callable
import time
from typing import Any, TYPE_CHECKING

import numpy as np

from lingbot_va_ros.motion.plan import resting_at
from lingbot_va_ros.motion.plan_slot import PlanSlot
from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.policy.errors import NotExecutable, PredictionAborted
from lingbot_va_ros.policy.runtime.active_chunk import PublishedChunk, Running
from lingbot_va_ros.policy.runtime.active_episode import Execution, Ready
from lingbot_va_ros.policy.runtime.camera_buffer import CameraFault
from lingbot_va_ros.policy.runtime.chunk_actions import actions_on_the_way, is_executed, is_silent
from lingbot_va_ros.policy.runtime.latency import Latency
from lingbot_va_ros.policy.runtime.requests import Requests
from lingbot_va_ros.policy.runtime.robot_interface import World
from lingbot_va_ros.policy.runtime.snapshot_store import Saved, SavedEpisodes
from lingbot_va_ros.policy.runtime.status import Mode, Progress
from lingbot_va_ros.policy.runtime.takeover_recorder import Takeover
from lingbot_va_ros.policy.runtime.task import Outcome, Task

if TYPE_CHECKING:  # torch is imported when a checkpoint is loaded, not when a node starts
    from lingbot_va_ros.policy.inference.engine import Chunk, Engine

POLL = 0.005  # seconds between two looks at cameras and clock while something is executed
# The same while nothing is: requests, images of all cameras and another mode wake it anyway, and
# what it does meanwhile keeps the interpreter from those who bring them.
REST = 0.02
FIRST_IMAGE_AGE = 0.5  # seconds that a chunk may wait to begin an episode before it is redone
# Seconds until an episode is begun anew whose first chunk the robot could not execute.
BEGIN_AGAIN = 2.0


class Schedule:
    """
    One policy at work, one small step at a time.

    Used by the inference thread alone, which owns it and the engine. It decides what comes next;
    what the arm executes meanwhile is in `Execution`.

    :param slot: where plans go.
    :param requests: what makes a prediction stop between two denoising steps.
    :param on_change: called after every change of `progress`.
    :param on_chunk, on_imagined: see `Execution`.
    :param steady: seconds of the steady clock.
    """

    def __init__(
        self, slot: PlanSlot, requests: Requests, on_change: Callable[[], None],
        on_chunk: Callable[[PublishedChunk], None],
        on_imagined: Callable[[np.ndarray, int], None],
        steady: Callable[[], float] = time.monotonic,
    ):
        self.slot = slot
        self.progress = Progress()
        self.saved = SavedEpisodes(0)
        self.active = False
        self._requests = requests
        self._on_change = on_change
        self._steady = steady
        self._latency = Latency()
        self._execution = Execution(
            slot, self._latency, on_chunk, on_imagined, lambda: self._report(Mode.RUNNING),
            self._refresh, steady)
        self._takeover = Takeover(self._execution, slot)
        self._person_since: int | None = None  # who has the arm, as it was looked at last
        self._keeps = True  # whether what that person does is remembered
        self._unwatched_until = 0
        self._instruction = ''
        self._task: Task | None = None
        self._finished = ''  # how the last task ended, until there is another
        self._ahead_refused = False  # the arm could not take what was predicted ahead
        self._ready: Ready | None = None
        self._refused: tuple[str, float] | None = None  # why, and the steady time

    @property
    def engine(self) -> Engine | None:
        """The policy that works, or None."""
        return self._execution.engine

    @property
    def flowing(self) -> bool:
        """Whether the arm is meant to go on from chunk to chunk without a stop."""
        return self._execution.flowing

    @property
    def _world(self) -> World | None:
        return self._execution.world

    # What is asked for, between two steps.

    def load(self, engine: Engine, max_snapshots: int) -> None:
        """Take an engine and begin with its statistics at none."""
        self._execution.engine, self.saved = engine, SavedEpisodes(max_snapshots)
        self._execution.chunk_id = 0
        self._latency.clear()
        self._finished = ''
        self._report(Mode.IDLE, 'inactive')

    def unload(self) -> None:
        """Release the engine, what it holds on the device, and the snapshots."""
        self._execution.engine = self._execution.world = None
        self.saved = SavedEpisodes(0)
        self.active = False
        self._drop()
        self._takeover.since_ns = None
        self._report(Mode.IDLE, 'unconfigured')

    def start(self, world: World, instruction: str) -> None:
        """Begin to work; with an empty instruction it waits for one."""
        self._execution.world, self.active = world, True
        self.engine.keeps_images = world.last_chunk_only
        self._finished = ''
        self._person_since, self._unwatched_until = None, world.clock()
        self.set_instruction(instruction)

    def stop(self, reason: str) -> None:
        """Stop working; what is complete of the running chunk is remembered."""
        if self.active:
            self._end_task(Outcome.STOPPED, reason)
            self._cut_off()
        self.active = False
        self._takeover.since_ns = None
        self._report(Mode.IDLE, reason)

    def fail(self, reason: str) -> None:
        """Stop working after an exception; nothing more is asked of the engine."""
        self.active = False
        self._drop()
        self._takeover.since_ns = None
        self._end_task(Outcome.FAULT, reason)

    def reset(self, instruction: str) -> int:
        """Forget the episode, after a new epoch was begun; returns the forgotten frames."""
        self._drop()
        self._execution.chunk_id = 0
        forgotten = self.engine.reset() if self.engine is not None else 0
        if instruction:
            self._use_instruction(instruction)
        self._refresh()
        return forgotten

    def set_instruction(self, instruction: str) -> None:
        """Change the task without forgetting; what was asked for by `begin_task` ends."""
        if self._task is not None and instruction != self._instruction:
            self._end_task(Outcome.PREEMPTED, 'set_instruction took its place')
        self._finished = ''
        self._use_instruction(instruction)
        self._refresh()

    def set_sampling(self, video: Any, action: Any, imagine_steps: int) -> None:
        """
        Change steps and guidance.

        :raises ValueError: it cannot be.
        """
        self.engine.set_sampling(video, action)
        self.engine.imagine_steps = imagine_steps
        self._latency.forget_ahead()

    def save(self, name: str) -> int:
        """
        Keep a snapshot of the episode; returns its frames.

        May be called between two denoising steps: what is predicted takes no part in it.

        :raises ValueError: see `SavedEpisodes.check`.
        """
        if self.engine is None:
            raise ValueError('the policy is not configured')
        self.saved.check(name)
        engine, world, run = self.engine, self._world, self._execution.running
        frames, executed = engine.memory_frames, None
        poses = world.poses() if world is not None else None
        if run is not None and run.frames and not is_silent(world, run):
            executed = self._execution.executed_actions(run)
            after = world.poses()
            world.restore_poses(poses)
            poses = after
            frames = min(
                engine.memory_capacity, frames + run.frames + (0 if engine.began else 1))
        self.saved.keep(
            name, Saved(engine.snapshot(), executed, poses, self._instruction, frames))
        return frames

    def restore(self, name: str) -> int:
        """
        Put the episode back to a snapshot and begin a new epoch; returns its frames.

        What had been seen of the chunk that was running is confirmed, as where a chunk is cut off.

        :raises ValueError: there is no such snapshot, or it is of another checkpoint.
        """
        if self.engine is None:
            raise ValueError('the policy is not configured')
        saved = self.saved.find(name)
        self.engine.restore(saved.engine)
        self.slot.stop(new_epoch=True)
        self._drop()
        if saved.executed is None:
            self.engine.drop_seen()
        else:
            self._execution.confirm(saved.executed)
        if saved.poses is not None and self._world is not None:
            self._world.restore_poses(saved.poses)
        self._execution.chunk_id = 0
        self._use_instruction(saved.instruction if self._task is None else self._task.instruction)
        self._refresh()
        return self.engine.memory_frames

    def begin_task(self, task: Task) -> None:
        """
        Work on a task from here on; one that is worked on ends.

        The caller has begun a new epoch unless the memory is to be kept.

        :raises ValueError: the policy is inactive, or there is no instruction.
        """
        if not self.active:
            raise ValueError('the policy is inactive')
        instruction = task.instruction or self._instruction
        if not instruction:
            raise ValueError('no instruction')
        self._end_task(Outcome.PREEMPTED, 'a newer goal took its place')
        if task.keep_memory:
            self._cut_off()
        else:
            self.reset('')
        self._use_instruction(instruction)
        task.instruction = instruction
        self._task, self._finished = task, ''
        self._refresh()

    def cancel_task(self, task: Task) -> None:
        """End a task if it is still worked on."""
        if self._task is task:
            self._finish(Outcome.CANCELED, 'cancelled')

    # Steps.

    def advance(self) -> None:
        """
        Take the next small step; never longer than a prediction.

        :raises PredictionAborted: something is asked for.
        """
        world = self._world
        obstacle, elsewhere = world.obstacle(), world.elsewhere()
        watched = self._look_for_a_person()
        if self._task is not None:
            end = self._task.look(world.clock(), elsewhere, watched)
            if end is not None:
                self._finish(*end)
                return
        if watched and not obstacle:
            self._watch(elsewhere)
            return
        if watched:
            self._takeover.start_over()
        run = self._execution.running
        if run is not None:
            if run.by_person and not obstacle:
                self._watch(elsewhere)
            elif obstacle or elsewhere:
                self._cut_off()
                self._report(Mode.HOLDING, obstacle or elsewhere)
            else:
                self._follow()
            return
        self._stay_where_the_arm_is()
        if self._finished:
            self._report(Mode.IDLE, self._finished)
            self._requests.wait(REST)
            return
        if obstacle:
            self._ready = self._refused = None
            self._hold(obstacle)
            return
        if not self._instruction:
            self._execution.flowing = False
            self._report(Mode.WAITING, 'no instruction')
            self._requests.wait(REST)
            return
        if self._still_refused(elsewhere):
            self._hold(self._refused[0])
            return
        if self._ready is None or (not elsewhere and self._ready_is_stale()):
            self._ready = self._think()
            # A prediction may take long: look again before anything moves.
            obstacle, elsewhere = world.obstacle(), world.elsewhere()
        if obstacle:
            return
        if self._ready is None:
            self._requests.wait(POLL)
        elif elsewhere:
            self._hold(elsewhere)
        else:
            self._begin()

    def _look_for_a_person(self) -> bool:
        """
        Notice who has taken or given back the arm; returns whether a person is to be watched.

        Where takeovers are not kept, one that begins ends the episode.
        """
        world, takeover, since = self._world, self._takeover, self._world.person_since()
        if since is not None and since != self._person_since:
            self._keeps = world.takeover_memory() == 'keep'
            if not self._keeps and (self.engine.began or self._execution.running is not None):
                self.slot.stop(new_epoch=True)
                self.reset('')
        self._person_since = since
        watched = since is not None and self._keeps and world.executed is not None and bool(
            self._instruction) and not self._finished
        if watched and takeover.since_ns is None:
            takeover.begin(max(since, self._unwatched_until))
        elif not watched:
            if takeover.since_ns is not None:
                takeover.end(world.elsewhere_since() if since is None else world.clock())
            if since is not None:
                self._unwatched_until = world.clock()
        return watched

    def _watch(self, elsewhere: str | None) -> None:
        """See and remember what a person does, and the last of it when the arm was given back."""
        self._ready = self._refused = None
        reason = f'{elsewhere}; what the person does is remembered' if (
            self._takeover.since_ns is not None) else elsewhere or 'the arm was given back'
        try:
            worked = self._takeover.step()
        except CameraFault as fault:
            worked, reason = False, str(fault)
        self._stay_where_the_arm_is()
        self._report(Mode.HOLDING, reason)
        if not worked:
            self._requests.wait(POLL)

    def forgive(self) -> None:
        """Let a refused chunk be predicted again: what was asked for may change it."""
        self._refused = None

    def _hold(self, reason: str) -> None:
        self._execution.flowing = False
        self._report(Mode.HOLDING, reason)
        self._requests.wait(REST)

    def _stay_where_the_arm_is(self) -> None:
        """Hold as measured before the first plan, and after somebody else moved the arm."""
        world = self._world
        measured = world.measured()
        if measured is None:
            return
        plan, now = self.slot.look()
        if plan is not None:
            if now < plan.end_ns:
                return
            moved = np.abs(plan.positions[-1] - measured) > world.start_tolerance
            if not moved.any():
                return
        self.slot.put(resting_at(now, measured), self.slot.epoch)

    def _ready_is_stale(self) -> bool:
        """Return whether the chunk that waits began from an image that is no longer true."""
        age = (self._world.clock() - self._execution.observed_ns) / NANOSECONDS
        return not self.engine.began and age > FIRST_IMAGE_AGE

    def _still_refused(self, elsewhere: str | None) -> bool:
        """
        Return whether there is no sense in predicting again yet.

        The same memory gives the same chunk: within an episode it takes a request, an obstacle
        that goes, or somebody else who has had the arm. An episode that has not begun is tried
        again with a new image.
        """
        if self._refused is not None:
            waited = self._steady() - self._refused[1]
            if elsewhere or (not self.engine.began and waited > BEGIN_AGAIN):
                self._refused = None
        return self._refused is not None

    # Predicting.

    def _think(self) -> Ready | None:
        """Predict from what has been confirmed, with the arm at rest."""
        world, engine = self._world, self.engine
        epoch = self._requests.unless_waiting(lambda: self.slot.epoch)
        if epoch is None:
            return None
        since = self._steady()
        if not engine.began:
            measured = world.measured()
            if measured is None:  # forgotten since the last look for obstacles
                return None
            try:
                images = world.observations.newest(world.max_camera_skew())
                engine.see_first(
                    {name: world.to_rgb(name, entry.image) for name, entry in images.items()})
                world.begin(measured)
            except CameraFault as fault:
                self._report(Mode.HOLDING, str(fault))
                return None
            self._execution.observed_ns = max(entry.stamp_ns for entry in images.values())
        else:
            since = self._execution.seen_since or since
        chunk = engine.predict(self)
        self._pad(since)
        seconds = self._steady() - since
        self._execution.seen_since = 0.0
        self._latency.add(seconds)
        return Ready(_finite(chunk), epoch, self._execution.observed_ns, seconds)

    def _pad(self, since: float) -> None:
        """Wait until the padded latency has passed, as if it were still predicting."""
        self.check()
        while self._steady() < since + self._world.padded_latency():
            self._requests.wait(POLL)
            self.check()

    def check(self) -> None:
        """
        Look up from a prediction.

        :raises PredictionAborted: something is to be done first.
        """
        self._requests.serve(only_gentle=True)
        if self._requests.waiting:
            raise PredictionAborted
        world, run = self._world, self._execution.running
        since = world.person_since()
        if since is not None and since != self._person_since:  # a person has just taken the arm
            raise PredictionAborted
        if run is not None:  # the arm moves meanwhile
            self._execution.attend()
            if run.fault or world.obstacle() or world.elsewhere():
                raise PredictionAborted
        if self._task is not None and self._task.look(world.clock(), world.elsewhere()):
            raise PredictionAborted

    def _begin(self) -> None:
        """Put the chunk that is ready into the plan, from rest."""
        ready, self._ready = self._ready, None
        try:
            self._execution.begin(ready)
        except NotExecutable as error:
            self._execution.flowing = False
            self._refused = (str(error), self._steady())
            self._report(Mode.HOLDING, str(error))

    # While a chunk is executed.

    def _follow(self) -> None:
        """See what the running chunk shows, predict the next, remember it when it has ended."""
        execution, run = self._execution, self._execution.running
        execution.attend()
        execution.encode(run)
        if run.fault:
            self._cut_off()
            self._report(Mode.HOLDING, run.fault)
        elif run.all_picked and is_executed(self._world, run):
            execution.remember()
            self._ahead_refused = False
            if self._task is not None:
                self._task.chunks += 1
        elif self._is_time_to_predict(run):
            self._predict_ahead(run)
        else:
            if not run.all_picked:  # what is predicted next does not wait for a frame any more
                execution.seen_since = 0.0
            self._requests.wait(POLL)

    def _is_time_to_predict(self, run: Running) -> bool:
        """
        Return whether the chunk after the running one must be predicted now to be in time.

        In time is before the last stretch of the plan, which is then passed at speed.
        """
        world, execution = self._world, self._execution
        if world.schedule == 'sync' or execution.following is not None or self._ahead_refused:
            return False
        if self._task is not None and not self._task.wants_more(1):
            execution.flowing = False  # it is meant to end
            return False
        now, needed = world.clock(), self._latency.time_needed
        if now < run.start_ns or now >= run.end_ns:
            return False
        before = run.action_times[-2] if len(run.action_times) > 1 else run.start_ns
        return needed is None or (
            now >= before - round((world.reaction + needed) * NANOSECONDS))

    def _predict_ahead(self, run: Running) -> None:
        """Predict the chunk after the running one and let the plan go on through it."""
        world, execution = self._world, self._execution
        epoch = self._requests.unless_waiting(lambda: self.slot.epoch)
        if epoch is None:
            return
        # What was encoded and remembered right before belongs to its time, as in `_think`.
        since, observed = execution.seen_since or self._steady(), execution.observed_ns
        chunk = _finite(self.engine.predict_ahead(
            actions_on_the_way(world, run), world.schedule == 'async', self))
        self._pad(since)
        try:
            joints = execution.to_joints_behind(chunk)
        except NotExecutable:
            # What was really seen of this chunk may lead elsewhere: decided when it has ended.
            self._ahead_refused = True
            return
        seconds = self._steady() - since
        execution.seen_since = 0.0
        self._latency.add(seconds, ahead=True)
        execution.join(Ready(chunk, epoch, observed, seconds), joints)

    def _cut_off(self) -> None:
        self._ready, self._ahead_refused = None, False
        self._execution.cut_off()
        self._takeover.start_over()

    def _drop(self) -> None:
        """Forget what is on the way."""
        self._ready, self._ahead_refused = None, False
        self._execution.drop()
        self._takeover.start_over()

    # Tasks and instructions.

    def _use_instruction(self, instruction: str) -> None:
        if self.engine is not None and instruction:
            self.engine.set_instruction(instruction)
        if instruction != self._instruction:
            self._ready = None  # predicted for another task
            self._ahead_refused = False
            if not instruction and self._execution.running is not None:
                self._cut_off()
            self._execution.take_back()
        self._instruction = instruction

    def _finish(self, outcome: Outcome, message: str) -> None:
        """End the task and rest until there is another."""
        self._cut_off()
        self._use_instruction('')
        self._finished = f'run_task {outcome.name}: {message}'
        self._report(Mode.IDLE, self._finished)
        self._end_task(outcome, message)

    def _end_task(self, outcome: Outcome, message: str) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.end(outcome, message)

    def _refresh(self) -> None:
        self._report(self.progress.mode, self.progress.reason)

    def _report(self, mode: Mode, reason: str = '') -> None:
        engine, latency = self.engine, self._latency
        policy = engine.policy if engine is not None else None
        progress = Progress(
            mode=mode, reason=reason, instruction=self._instruction,
            chunk_id=max(0, self._execution.chunk_id - 1),
            memory_frames=engine.memory_frames if engine is not None else 0,
            memory_capacity=engine.memory_capacity if engine is not None else 0,
            inference_seconds=latency.newest, inference_seconds_p95=latency.p95,
            chunk_seconds=0.0 if policy is None else (
                policy.frames_per_chunk * policy.actions_per_frame * policy.action_period))
        if progress != self.progress:
            self.progress = progress
            self._on_change()


def _finite(chunk: Chunk) -> Chunk:
    """
    Return the chunk.

    :raises ValueError: an action is not finite.
    """
    wrong = np.count_nonzero(~np.isfinite(chunk.actions))
    if wrong:
        raise ValueError(f'the network predicted {wrong} actions that are not finite')
    return chunk
