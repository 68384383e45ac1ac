"""
Run one closed-loop episode in process, in virtual time: no ROS, no threads, no waiting.

    result = run_episode(engine, 'wipe_plate', seed=3)
    print(result.success, result.counts)

The scheduler is the one that runs on the robot. Its clock is virtual: simulated time stops while
the network computes and advances while the scheduler waits, so that a result depends on the
checkpoint and the seed, not on the machine. Every prediction takes the latency that the caller
gives. The plan reaches the arm through the mux's command stream and the simulated controller.
"""

from collections.abc import Sequence
from dataclasses import dataclass
import math
import time
from typing import Any, cast, TYPE_CHECKING

import numpy as np

from lingbot_va_ros.evaluation.simulated_arm import SimulatedArm
from lingbot_va_ros.evaluation.simulated_cameras import SimulatedCameras
from lingbot_va_ros.evaluation.smoothness import measure_smoothness, seams_of, Smoothness
from lingbot_va_ros.evaluation.tasks import chunk_limit_of, instruction_of, MEMORIES, midway_of
from lingbot_va_ros.evaluation.timed_engine import TimedEngine
from lingbot_va_ros.evaluation.virtual_clock import EpisodeOver, VirtualClock
from lingbot_va_ros.motion.plan import MotionLimits, Plan
from lingbot_va_ros.motion.plan_slot import PlanSlot
from lingbot_va_ros.motion.time import NANOSECONDS, to_nanoseconds
from lingbot_va_ros.motion.timeline import Timeline
from lingbot_va_ros.policy.errors import PredictionAborted
from lingbot_va_ros.policy.runtime.active_chunk import PublishedChunk
from lingbot_va_ros.policy.runtime.clock import PlanClock
from lingbot_va_ros.policy.runtime.control_owner import ControlOwner
from lingbot_va_ros.policy.runtime.plan_time_views import PlanTimeCameras, PlanTimeCommands
from lingbot_va_ros.policy.runtime.requests import RequestQueue
from lingbot_va_ros.policy.runtime.robot_interface import (
    LiveSettings,
    RobotInterface,
    RuntimeSettings,
)
from lingbot_va_ros.policy.runtime.scheduler import Scheduler
from lingbot_va_ros.policy.runtime.schedules import SCHEDULES
from lingbot_va_ros.policy.runtime.status import PolicyMode, RuntimeStatus
from lingbot_va_ros.policy.runtime.task import Outcome, Task
from lingbot_va_ros.robot.action_map import make_action_map
from lingbot_va_ros.sim.simulation import Simulation

if TYPE_CHECKING:
    from lingbot_va_ros.policy.inference.engine import Engine

ENDED_BY = {Outcome.TIMEOUT: 'time limit', Outcome.CHUNK_LIMIT: 'chunk limit'}
# Less than a physics step, so that rounding adds no tick to a latency of whole ticks.
_ROUNDING = 1e-4


@dataclass(frozen=True)
class EpisodeResult:
    """
    Figures of one episode.

    :param success: reported by the simulator, as `done` and `counts`.
    :param ended_by: 'done', 'time limit', 'chunk limit', or why a chunk could not be executed.
    :param chunks: number of chunks whose execution began.
    :param seconds: simulated, from the first image on; `wall_seconds` by the steady clock.
    :param seams: the largest step (rad) and acceleration (rad/s²) where chunks meet; `motion`
        those of the whole episode.
    :param starved_ticks: control ticks of an asynchronous schedule after the end of the plan.
    :param inference_seconds: wall-clock time of each prediction; from rest with encoding the last
        images and writing the chunk, which come right before it.
    """

    task: str
    seed: int
    schedule: str
    memory: str
    latency_chunks: float
    success: bool
    done: bool
    counts: dict[str, Any]
    ended_by: str
    chunks: int
    seconds: float
    wall_seconds: float
    seams: Smoothness
    motion: Smoothness
    starved_ticks: int
    inference_seconds: tuple[float, ...]

    @property
    def detail(self) -> str:
        """The counts in words, and the reason of the end if the task was not done."""
        counts = ', '.join(f'{name}: {count}' for name, count in self.counts.items())
        return counts if self.done else f'{counts or "nothing counted"}; ended by {self.ended_by}'


def run_episode(
    engine: 'Engine', task: str, seed: int, schedule: str = 'sync', memory: str = 'full',
    latency_chunks: float = 0.0, arms: str = 'left', instruction: str | None = None,
    time_limit: float | None = None, max_chunks: int | None = None,
    simulation: Simulation | None = None, speed: float = 1.0,
) -> EpisodeResult:
    """
    Run one episode until the task is done or a limit of chunks or time is reached.

    The engine is reset first and keeps the state and the instruction of the episode.

    :param seed: random seed of the scene; the initial noise is the engine's own.
    :param schedule: `sync`, `async` or `async_ungrounded`, as the parameter of policy_node.
    :param memory: `full`; `last_chunk`: after every chunk only that chunk is kept; `reset_midway`:
        the memory is reset once, after the chunk during which the episode reached its middle (see
        `tasks.midway_of`).
    :param latency_chunks: delay from the newest image to the chunk, in chunk lengths.
    :param instruction: empty or None takes the task's own.
    :param time_limit: simulated seconds, waiting for predictions included; None for no limit.
    :param max_chunks: executed chunks after which the episode ends; None: the task's own limit.
    :param simulation: reused and reset to the seed; the caller closes it. None creates one whose
        cameras have the policy's image size.
    :param speed: the speed scale of the whole path, above 0 and at most 1.
    :raises ValueError: an unknown task, schedule or memory, a negative number, a simulation of
        another task, or an action that is not finite.
    """
    _check(schedule, memory, latency_chunks, speed)
    if simulation is None:
        own = Simulation(task, arms, seed, engine.policy.width, engine.policy.height)
        try:
            return run_episode(
                engine, task, seed, schedule, memory, latency_chunks, arms, instruction,
                time_limit, max_chunks, own, speed)
        finally:
            own.close()
    if simulation.task != task:
        raise ValueError(f"simulation: its task is '{simulation.task}', not '{task}'")
    simulation.reset(seed)
    policy = engine.policy
    chunk_seconds = policy.frames_per_chunk * policy.actions_per_frame * policy.action_period
    episode = _Episode(
        engine, simulation, schedule, memory, latency_chunks * chunk_seconds,
        Task(instruction or instruction_of(task), timeout=time_limit or 0.0,
             max_chunks=max_chunks or chunk_limit_of(task, chunk_seconds)), speed)
    wall = time.monotonic()
    ended_by = episode.run()
    wall = time.monotonic() - wall
    seconds, state = episode.clock.steady(), simulation.task_state
    return EpisodeResult(
        task=task, seed=seed, schedule=schedule, memory=memory, latency_chunks=latency_chunks,
        success=bool(state.success), done=bool(state.done), counts=dict(state.counts),
        ended_by=ended_by, chunks=episode.record.chunks, seconds=seconds, wall_seconds=wall,
        seams=episode.smoothness(episode.record.seams(policy.action_period)),
        motion=episode.smoothness([(0.0, seconds)]),
        starved_ticks=episode.starved_ticks,
        inference_seconds=tuple(episode.engine.inference_seconds))


def _check(schedule: str, memory: str, latency_chunks: float, speed: float) -> None:
    if schedule not in SCHEDULES:
        raise ValueError(
            f"schedule: '{schedule}' is unknown; expected one of {', '.join(SCHEDULES)}")
    if memory not in MEMORIES:
        raise ValueError(f"memory: '{memory}' is unknown; expected one of {', '.join(MEMORIES)}")
    if not 0 <= latency_chunks < math.inf:
        raise ValueError(f'latency_chunks: {latency_chunks} is not a number from 0')
    if not 0 < speed <= 1:
        raise ValueError(f'speed: {speed} is not a number above 0 and at most 1')


class _Record:
    """
    Records the events from which the figures of an episode are computed; a `PolicyEvents`.

    :param origin_ns: simulated time at which the episode began.
    :param timeline: between plan time and simulated time.
    """

    def __init__(self, origin_ns: int, timeline: Timeline):
        self._origin_ns = origin_ns
        self._timeline = timeline
        # Due times of the first and last action of each chunk that began, seconds since the start
        # of the episode; one list for each epoch.
        self._spans: list[list[tuple[float, float]]] = [[]]

    def status_changed(self, status: RuntimeStatus) -> None:
        """Nothing is recorded."""

    def chunk_begun(self, chunk: PublishedChunk) -> None:
        """Record the due times of the chunk's actions."""
        last_ns = chunk.first_due_ns + to_nanoseconds((len(chunk.positions) - 1) * chunk.period)
        first, last = (
            (self._timeline.to_ros(due_ns) - self._origin_ns) / NANOSECONDS
            for due_ns in (chunk.first_due_ns, last_ns))
        self._spans[-1].append((first, last))

    def frame_imagined(self, picture: np.ndarray, due_ns: int) -> None:
        """Nothing is recorded."""

    def fault(self, trace: str) -> None:
        """Nothing is recorded: in one thread, exceptions reach the caller."""

    def begin_epoch(self, now: float) -> None:
        """Begin an epoch at a time (s); drop a chunk whose first action is due later."""
        self._spans[-1] = [span for span in self._spans[-1] if span[0] <= now]
        self._spans.append([])

    @property
    def chunks(self) -> int:
        """The number of chunks that began."""
        return sum(map(len, self._spans))

    def seams(self, margin: float) -> list[tuple[float, float]]:
        """Return the spans of the joins of chunks, seconds; see `smoothness.seams_of`."""
        return [seam for spans in self._spans for seam in seams_of(
            [first for first, _ in spans], [last for _, last in spans], margin)]


class _Episode:
    """
    Runs the scheduler on a simulated robot.

    :param latency: duration of every prediction, s.
    :param task: instruction and limits.
    :param speed: the speed scale.
    """

    def __init__(
        self, engine: 'Engine', simulation: Simulation, schedule: str, memory: str,
        latency: float, task: Task, speed: float,
    ):
        self.engine = TimedEngine(engine)
        self._timeline = timeline = Timeline()
        self.record = _Record(simulation.time_ns, timeline)
        self.starved_ticks = 0
        self._simulation = simulation
        self._origin_ns = simulation.time_ns
        self._task = task
        self._midway = midway_of(simulation.task) if memory == 'reset_midway' else None
        limits = simulation.embodiment.limits
        motion_limits = MotionLimits(
            limits.lower, limits.upper, limits.velocity, limits.acceleration)
        is_arm = _is_arm(simulation)
        timeline.configure(limits.velocity[is_arm], limits.acceleration[is_arm])
        timeline.set_speed(speed, simulation.time_ns)
        self._slot = PlanSlot(
            lambda: timeline.to_plan(simulation.time_ns),
            lambda: timeline.rate(timeline.to_plan(simulation.time_ns)))
        self._slot.begin(motion_limits)
        cameras = SimulatedCameras(simulation, engine.policy.cameras)
        self._arm = SimulatedArm(
            simulation, self._slot, cameras, self._count_starved, timeline)
        self.clock = VirtualClock(self._arm, lambda: bool(simulation.task_state.done))
        clock = PlanClock(self.clock, timeline)
        self._scheduler = Scheduler(self._slot, clock, self.record, RequestQueue(clock))
        live = LiveSettings(padded_latency=latency - _ROUNDING)
        self._robot = RobotInterface(
            clock=clock, cameras=PlanTimeCameras(cameras, timeline),
            executed=PlanTimeCommands(self._arm.executed, timeline),
            joints=self._arm.joint_states,
            action_map=make_action_map(simulation.embodiment, engine.policy),
            limits=motion_limits, control=ControlOwner(), to_rgb=lambda camera, image: image,
            not_ready_reason=lambda: None, live=lambda: live, timeline=timeline, sets_pace=is_arm)
        self._settings = RuntimeSettings(
            schedule=SCHEDULES[schedule], reaction=0.0, last_chunk_only=memory == 'last_chunk')

    def run(self) -> str:
        """Run the episode to its end and return how it ended."""
        scheduler, task = self._scheduler, self._task
        # TimedEngine has the methods of an engine that the scheduler calls.
        scheduler.load(cast('Engine', self.engine), max_snapshots=0)
        scheduler.start(self._robot, self._settings, '')
        self._slot.stop(new_epoch=True)
        scheduler.begin_task(task)
        executed = 0
        while not task.result.done():
            try:
                scheduler.advance()
            except PredictionAborted:
                continue
            except EpisodeOver:
                return 'done'
            # Cameras and joint states never fail here, so only a rejected chunk holds the arm.
            if scheduler.status.mode == PolicyMode.HOLDING:
                return f'not executable: {scheduler.status.reason}'
            if task.chunks > executed:
                executed = task.chunks
                self._reset_midway(executed)
        outcome, _ = task.result.result()
        return ENDED_BY[outcome]

    def _reset_midway(self, executed: int) -> None:
        """Reset the memory once, as the service reset_memory does, in the middle of the task."""
        if self._midway is None or not self._midway(
                self._simulation.task_state.counts, executed):
            return
        self._midway = None
        self._slot.stop(new_epoch=True)
        self._scheduler.reset('')
        self.record.begin_epoch(self.clock.steady())

    def _count_starved(self, plan: Plan, now_ns: int) -> None:
        self.starved_ticks += self._scheduler.continuous and now_ns > plan.end_ns

    def smoothness(self, spans: Sequence[tuple[float, float]]) -> Smoothness:
        """Return the largest values during time spans (s); grippers, not in rad, are left out."""
        columns = _is_arm(self._simulation)
        times = np.array([time_ns for time_ns, _ in self._arm.commands]) - self._origin_ns
        positions = np.stack([row for _, row in self._arm.commands])[:, columns]
        return measure_smoothness(times / NANOSECONDS, positions, spans)


def _is_arm(simulation: Simulation) -> np.ndarray:
    """Return [J] bool: the joints that are no grippers."""
    grippers = [arm.gripper.joint for arm in simulation.embodiment.arms if arm.gripper]
    return ~np.isin(simulation.joints, grippers)
