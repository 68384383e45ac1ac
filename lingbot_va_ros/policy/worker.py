"""The inference thread: it owns the engine, answers requests between denoising steps, and runs."""

from __future__ import annotations

import os
import statistics
import threading
import time
import traceback
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Callable, Deque, Dict, List, Optional, Tuple

import numpy as np

from lingbot_va_ros.model.config import IMAGES_PER_FRAME
from lingbot_va_ros.policy.errors import NotExecutable, PredictionAborted
from lingbot_va_ros.policy.executed import ExecutedLog
from lingbot_va_ros.policy.observation import CameraFault, Observations
from lingbot_va_ros.policy.plan import NANOSECONDS, Plan, PlanSlot, plan_from_actions, resting_at

if TYPE_CHECKING:  # torch is imported when a checkpoint is loaded, not when a node starts
    from lingbot_va_ros.policy.engine import Chunk, Engine

INFERENCE_NICENESS = 5
POLL = 0.005  # seconds between two looks at cameras and clock
EXECUTED_GRACE = 0.2  # seconds that the report of the last executed command may take
FIRST_IMAGE_AGE = 0.5  # seconds that a chunk may wait to begin an episode before it is redone
# Seconds until an episode is begun anew whose first chunk the robot could not execute.
BEGIN_AGAIN = 2.0


class Mode(IntEnum):
    """What the policy is doing, numbered as in PolicyStatus."""

    IDLE = 0
    LOADING = 1
    WAITING = 2
    RUNNING = 3
    HOLDING = 4
    FAULT = 5


@dataclass(frozen=True)
class World:
    """
    What the worker sees of the robot while the policy is active.

    :param clock: ROS time in nanoseconds.
    :param executed: what was really sent; None where the plan itself stands for it.
    :param to_rgb: converts a camera's picked image (as it came) to RGB uint8 [H, W, 3]; may raise
        CameraFault.
    :param to_joints: actions [n, used] and the joint positions [J] that they start from, to joint
        positions [n, J]; may raise NotExecutable. `from_joints` is its inverse.
    :param begin: told the joint positions [J] where an episode begins.
    :param obstacle: why the policy cannot work now (one line), or None.
    :param elsewhere: who else has the arm (one line), or None where the policy's plan moves it.
    :param measured: joint positions [J], or None before they are all known.
    :param start_tolerance: how far, [J], the arm may be from the plan before it counts as moved.
    """

    clock: Callable[[], int]
    observations: Observations
    executed: Optional[ExecutedLog]
    to_rgb: Callable[[str, Any], np.ndarray]
    to_joints: Callable[[np.ndarray, np.ndarray], np.ndarray]
    from_joints: Callable[[np.ndarray, np.ndarray], np.ndarray]
    begin: Callable[[np.ndarray], None]
    obstacle: Callable[[], Optional[str]]
    elsewhere: Callable[[], Optional[str]]
    measured: Callable[[], Optional[np.ndarray]]
    max_velocity: np.ndarray
    start_tolerance: np.ndarray
    max_camera_skew: Callable[[], float]
    wants_imagined: Callable[[], bool]


@dataclass(frozen=True)
class PublishedChunk:
    """
    A chunk on its way into the plan.

    :param first_due_ns: ROS time when the first action is due.
    :param observation_ns: stamp of the newest image that it saw.
    :param period: seconds between actions; positions and velocities [n, J].
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


@dataclass
class Running:
    """The chunk that is being executed, and how much of it has been seen."""

    action_times: List[int]
    image_times: List[int]
    next_image: int = 0
    pending: List[Dict[str, Any]] = field(default_factory=list)
    frames: int = 0
    plan: Optional[Plan] = None
    imagined: Deque[Tuple[int, np.ndarray]] = field(default_factory=deque)


@dataclass(frozen=True)
class Progress:
    """
    Figures for the status: what has been done and how long it took.

    `chunk_id` is that of the newest chunk (0 before any), times are in seconds.
    """

    mode: Mode = Mode.IDLE
    reason: str = ''
    instruction: str = ''
    chunk_id: int = 0
    memory_frames: int = 0
    memory_capacity: int = 0
    inference_seconds: float = 0.0
    inference_seconds_p95: float = 0.0
    chunk_seconds: float = 0.0
    starved_ticks: int = 0


class Worker:
    """
    The inference thread and the synchronous schedule: observe, predict, execute, repeat.

    Every public method may be called from any thread; what touches the engine is done by the
    inference thread and answered through a future. A request stops a running prediction at its
    next denoising step, and an aborted prediction changes nothing.

    :param slot: where plans go.
    :param on_change: called after every change of `progress`.
    :param on_chunk: called with a PublishedChunk under the slot's lock; must be quick.
    :param on_imagined: called with an imagined picture, uint8 [H, W, 3], and the ROS time in
        nanoseconds that it foretells, when that time has come.
    :param on_fault: called with a traceback when the policy cannot go on.
    """

    def __init__(
        self, slot: PlanSlot, on_change: Callable[[], None],
        on_chunk: Callable[[PublishedChunk], None],
        on_imagined: Callable[[np.ndarray, int], None], on_fault: Callable[[str], None],
    ):
        self.slot = slot
        self.progress = Progress()
        self._on_change = on_change
        self._on_chunk = on_chunk
        self._on_imagined = on_imagined
        self._on_fault = on_fault
        self._requests: Deque[Tuple[Callable, Future]] = deque()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._engine: Optional[Engine] = None
        self._world: Optional[World] = None
        self._instruction = ''
        self._chunk_id = 0
        self._running: Optional[Running] = None
        self._ready: Optional[Tuple[Chunk, int, int, float]] = None
        self._refused: Optional[Tuple[str, float]] = None  # why, and the steady time
        self._observed_ns = 0
        self._durations: Deque[float] = deque(maxlen=200)
        self._thinking_since = 0.0
        self._thread = threading.Thread(target=self._run, name='inference', daemon=True)
        self._thread.start()

    # What other threads call.

    def load(self, make_engine: Callable[[], Engine]) -> Future:
        """Make the engine; the future carries what `make_engine` raises."""
        def work() -> None:
            self._engine = make_engine()
            self._durations.clear()
            self._chunk_id = 0
            self._report(Mode.IDLE, 'inactive')
        return self._submit(work)

    def unload(self) -> Future:
        """Release the engine and what it holds on the device."""
        def work() -> None:
            self._engine = self._world = self._running = self._ready = None
            self._report(Mode.IDLE, 'unconfigured')
        return self._submit(work)

    def start(self, world: World, instruction: str) -> Future:
        """Begin to work; with an empty instruction it waits for one."""
        def work() -> None:
            self._world = world
            self._set_instruction(instruction)
        return self._submit(work)

    def stop(self, reason: str) -> Future:
        """Stop working; what is complete of the running chunk is remembered."""
        def work() -> None:
            if self._world is not None:
                self._cut_off()
            self._world = None
            self._report(Mode.IDLE, reason)
        return self._submit(work)

    def reset(self, instruction: str = '') -> Future:
        """
        Begin a new epoch at once and forget the episode; the future gives the forgotten frames.

        :param instruction: the next task; empty keeps it.
        """
        def work() -> int:
            self._running = self._ready = None
            self._chunk_id = 0
            forgotten = self._engine.reset() if self._engine is not None else 0
            if instruction:
                self._set_instruction(instruction)
            self._report(self.progress.mode, self.progress.reason)
            return forgotten
        with self._lock:  # no prediction may take the new epoch before it is asked to forget
            self.slot.stop(new_epoch=True)
            return self._append(work)

    def set_instruction(self, instruction: str) -> Future:
        """Change the task without forgetting."""
        return self._submit(lambda: self._set_instruction(instruction))

    def set_sampling(self, video, action) -> Future:
        """Change steps and guidance; the future carries a ValueError where it cannot be."""
        return self._submit(lambda: self._engine.set_sampling(video, action))

    def close(self, timeout: float) -> bool:
        """End the thread; returns whether it has ended within `timeout` seconds."""
        self._closing = True
        self._wake.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # The inference thread.

    def _submit(self, work: Callable[[], Any]) -> Future:
        with self._lock:
            return self._append(work)

    def _append(self, work: Callable[[], Any]) -> Future:
        future: Future = Future()
        self._requests.append((work, future))
        self._wake.set()
        return future

    def _run(self) -> None:
        _step_back()
        while not self._closing:
            self._serve()
            if self._engine is None or self._world is None:
                self._wake.wait(0.5)
                continue
            try:
                self._advance()
            except PredictionAborted:
                continue
            except Exception:  # whatever it is, the arm must stop and the node must say so
                self._world, self._running, self._ready = None, None, None
                self._on_fault(traceback.format_exc())

    def _serve(self) -> None:
        self._wake.clear()
        while self._requests and not self._closing:
            work, future = self._requests.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            self._refused = None  # the request may change what is predicted
            try:
                future.set_result(work())
            except BaseException as error:  # belongs to the caller
                future.set_exception(error)

    def _between_steps(self) -> None:
        if self._requests or self._closing:
            raise PredictionAborted

    def _set_instruction(self, instruction: str) -> None:
        if self._engine is not None and instruction:
            self._engine.set_instruction(instruction)
        if instruction != self._instruction:
            self._ready = None  # predicted for another task
            if not instruction and self._running is not None:
                self._cut_off()
        self._instruction = instruction
        self._report(self.progress.mode, self.progress.reason)

    def _report(self, mode: Mode, reason: str = '') -> None:
        engine, durations = self._engine, self._durations
        policy = engine.policy if engine is not None else None
        progress = Progress(
            mode=mode, reason=reason, instruction=self._instruction,
            chunk_id=max(0, self._chunk_id - 1),
            memory_frames=engine.memory_frames if engine is not None else 0,
            memory_capacity=engine.memory_capacity if engine is not None else 0,
            inference_seconds=durations[-1] if durations else 0.0,
            inference_seconds_p95=_p95(durations),
            chunk_seconds=0.0 if policy is None else (
                policy.frames_per_chunk * policy.actions_per_frame * policy.action_period))
        if progress != self.progress:
            self.progress = progress
            self._on_change()

    def _advance(self) -> None:
        """Take the next small step of the schedule; never longer than a prediction."""
        world = self._world
        obstacle, elsewhere = world.obstacle(), world.elsewhere()
        if self._running is not None:
            if obstacle or elsewhere:
                self._cut_off()
                self._report(Mode.HOLDING, obstacle or elsewhere)
            else:
                self._follow()
            return
        self._stay_where_the_arm_is()
        if obstacle:
            self._ready = self._refused = None
            self._report(Mode.HOLDING, obstacle)
            self._wake.wait(POLL)
            return
        if not self._instruction:
            self._report(Mode.WAITING, 'no instruction')
            self._wake.wait(POLL)
            return
        if self._still_refused(elsewhere):
            self._report(Mode.HOLDING, self._refused[0])
            self._wake.wait(POLL)
            return
        if self._ready is None or (not elsewhere and self._ready_is_stale()):
            self._ready = self._think()
            # A prediction may take long: look again before anything moves.
            obstacle, elsewhere = world.obstacle(), world.elsewhere()
        if obstacle:
            return
        if self._ready is None:
            self._wake.wait(POLL)
        elif elsewhere:
            self._report(Mode.HOLDING, elsewhere)
            self._wake.wait(POLL)
        else:
            self._begin()

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
        age = (self._world.clock() - self._observed_ns) / NANOSECONDS
        return not self._engine.began and age > FIRST_IMAGE_AGE

    def _still_refused(self, elsewhere: Optional[str]) -> bool:
        """
        Return whether there is no sense in predicting again yet.

        The same memory gives the same chunk: within an episode it takes a request, an obstacle
        that goes, or somebody else who has had the arm. An episode that has not begun is tried
        again with a new image.
        """
        if self._refused is not None:
            waited = time.monotonic() - self._refused[1]
            if elsewhere or (not self._engine.began and waited > BEGIN_AGAIN):
                self._refused = None
        return self._refused is not None

    def _think(self) -> Optional[Tuple[Chunk, int, int, float]]:
        world, engine = self._world, self._engine
        with self._lock:
            if self._requests:
                return None
            epoch = self.slot.epoch
        since = time.monotonic()
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
            self._observed_ns = max(entry.stamp_ns for entry in images.values())
        else:
            since = self._thinking_since or since
        chunk = engine.predict(self._between_steps)
        self._between_steps()
        seconds = time.monotonic() - since
        self._thinking_since = 0.0
        self._durations.append(seconds)
        return chunk, epoch, self._observed_ns, seconds

    def _begin(self) -> None:
        """Put the chunk that is ready into the plan."""
        world, policy = self._world, self._engine.policy
        (chunk, epoch, observed, seconds), self._ready = self._ready, None
        if not np.isfinite(chunk.actions).all():
            raise ValueError(
                f'the network predicted {np.count_nonzero(~np.isfinite(chunk.actions))} actions '
                'that are not finite')
        plan, now = self.slot.look()
        if plan is None:
            raise RuntimeError('a chunk without a position to start from')
        start, _ = plan.sample(now)
        try:
            joints = world.to_joints(chunk.actions, start)
        except NotExecutable as error:
            self._refused = (str(error), time.monotonic())
            self._report(Mode.HOLDING, str(error))
            return
        plan, now = self.slot.look()  # it took a while
        if plan is None:
            return  # dropped with its epoch; what asked for that is about to be answered
        start, _ = plan.sample(now)
        period = policy.action_period
        plan, first_due = plan_from_actions(start, joints, period, now, world.max_velocity)
        published = PublishedChunk(
            epoch, self._chunk_id, first_due, observed, period, plan.positions[1:],
            plan.velocities[1:], seconds, True)
        if not self.slot.put(plan, epoch, lambda: self._on_chunk(published)):
            return
        self._chunk_id += 1
        step = period * NANOSECONDS
        stride = policy.images_every
        self._running = Running(
            action_times=[first_due + round(i * step) for i in range(len(joints))],
            image_times=[first_due + round((i + 1) * stride * step)
                         for i in range(len(joints) // stride)],
            plan=plan)
        self._report(Mode.RUNNING)
        if world.wants_imagined():
            self._running.imagined.extend(
                zip(self._running.image_times, self._engine.imagined_video(chunk)))

    def _follow(self) -> None:
        """Collect what the running chunk shows; write it down when it has ended."""
        world, run = self._world, self._running
        times = run.image_times
        while run.imagined and world.clock() >= run.imagined[0][0]:
            due, picture = run.imagined.popleft()
            self._on_imagined(picture, due)
        while run.next_image < len(times) and world.observations.reached(times[run.next_image]):
            try:
                picked = world.observations.pick(times[run.next_image], world.max_camera_skew())
                run.pending.append(
                    {name: world.to_rgb(name, entry.image) for name, entry in picked.items()})
            except CameraFault as fault:
                self._cut_off()
                self._report(Mode.HOLDING, str(fault))
                return
            run.next_image += 1
            self._observed_ns = max(entry.stamp_ns for entry in picked.values())
            if len(run.pending) == IMAGES_PER_FRAME:
                self._thinking_since = time.monotonic()
                self._engine.see({
                    name: [images[name] for images in run.pending]
                    for name in run.pending[0]})
                run.pending = []
                run.frames += 1
        if run.next_image == len(times) and self._executed_is_known(run.action_times[-1]):
            self._running = None
            self._commit(run)
        else:
            self._wake.wait(POLL)

    def _executed_is_known(self, time_ns: int) -> bool:
        executed = self._world.executed
        if executed is None or (executed.newest_ns or 0) >= time_ns:
            return True
        return self._world.clock() > time_ns + EXECUTED_GRACE * NANOSECONDS

    def _cut_off(self) -> None:
        """End the running chunk here: stop, remember its complete frames, drop the rest."""
        run = self._running
        self._running = self._ready = None
        self.slot.stop()
        if run is not None and self._engine is not None:
            self._commit(run)

    def _commit(self, run: Running) -> None:
        """
        Write the complete frames of a chunk and what was executed during them.

        Where nothing was reported as executed, nothing is written: the prediction never stands in.
        """
        world, engine = self._world, self._engine
        times = run.action_times[:run.frames * engine.policy.actions_per_frame]
        silent = world.executed is not None and (world.executed.newest_ns or 0) < times[0] if (
            times) else True
        if silent:
            engine.drop_seen()
            return
        times = [int(run.plan.times_ns[0]), *times]  # with where the chunk started from
        if world.executed is None:
            joints = np.stack([run.plan.sample(time)[0] for time in times])
        else:
            joints = world.executed.at(times)
        engine.commit(world.from_joints(joints[1:], joints[0]))
        self._report(self.progress.mode, self.progress.reason)


def _step_back() -> None:
    """Let the control thread go first where both want a core (Linux: niceness is per thread)."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), INFERENCE_NICENESS)
    except (AttributeError, OSError):
        pass


def _p95(durations: Deque[float]) -> float:
    if len(durations) < 2:
        return durations[-1] if durations else 0.0
    return statistics.quantiles(durations, n=20, method='inclusive')[-1]
