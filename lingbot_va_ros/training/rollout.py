"""
One closed-loop episode in process, in virtual time: no ROS, no threads, nothing waits.

    result = run_episode(engine, 'wipe_plate', seed=3)
    print(result.success, result.counts)

The engine sees, predicts and commits in the order of the worker, the commands pass the gate of the
mux, and the simulated arm follows them as over ROS. Simulated time stands still while the network
computes; latency is what it is told to be, so that a result does not depend on the machine.

Schedules:
- `sync`: the arm rests for the latency between the end of a chunk and the next one's motion.
"""

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

import numpy as np

from lingbot_va_ros.model.config import IMAGES_PER_FRAME
from lingbot_va_ros.policy.plan import NANOSECONDS, plan_from_actions
from lingbot_va_ros.robot.action_map import ActionMap, make_action_map
from lingbot_va_ros.sim.simulation import Simulation
from lingbot_va_ros.training.seams import CONTROL_PERIOD, SeamFigures, seam_figures, seams_of
from lingbot_va_ros.training.task_rules import instruction_of, midway_of, time_limit_of
from lingbot_va_ros.training.virtual_arm import VirtualArm

if TYPE_CHECKING:
    from lingbot_va_ros.policy.engine import Chunk, Engine

SCHEDULES = ('sync',)
MEMORIES = ('full', 'reset_midway')


@dataclass(frozen=True)
class EpisodeResult:
    """
    What became of an episode.

    :param success: the simulator's judgement, as `done` and `counts`.
    :param ended_by: 'done', 'time limit' or 'chunk limit'.
    :param chunks: those whose motion was begun.
    :param seconds: simulated, from the first image on; `wall_seconds` by the steady clock.
    :param seams: the largest step (rad) and acceleration (rad/s²) where chunks meet.
    :param starved_ticks: control ticks in an asynchronous schedule for which the plan had ended.
    :param inference_seconds: wall-clock time from a chunk's last image to the next prediction.
    """

    task: str
    seed: int
    schedule: str
    memory: str
    latency_chunks: float
    success: bool
    done: bool
    counts: Dict[str, Any]
    ended_by: str
    chunks: int
    seconds: float
    wall_seconds: float
    seams: SeamFigures
    starved_ticks: int
    inference_seconds: Tuple[float, ...]

    @property
    def detail(self) -> str:
        """The counts in words, and how the episode ended where it was not done."""
        counts = ', '.join(f'{name}: {count}' for name, count in self.counts.items())
        return counts if self.done else f'{counts or "nothing counted"}; ended by {self.ended_by}'


def run_episode(
    engine: 'Engine', task: str, seed: int, schedule: str = 'sync', memory: str = 'full',
    latency_chunks: float = 0.0, arms: str = 'left', instruction: Optional[str] = None,
    time_limit: Optional[float] = None, max_chunks: Optional[int] = None,
    simulation: Optional[Simulation] = None,
) -> EpisodeResult:
    """
    Run one episode until the task is done, its time is over or enough chunks were executed.

    The engine is reset before and left as the episode left it; its instruction changes.

    :param seed: of the scene; the starting noise is the engine's own.
    :param memory: `full`; `reset_midway`: everything is forgotten once, after the chunk during
        which the episode came midway (see `task_rules.midway_of`).
    :param latency_chunks: from the newest image to the chunk, in chunk lengths.
    :param instruction: empty or None takes the task's own.
    :param time_limit: simulated seconds; None takes the task's own.
    :param max_chunks: None for no limit; the episode ends when the last one is executed.
    :param simulation: reused and reset to the seed, so that it need not be built anew: the
        caller closes it. None builds one whose cameras have the policy's picture size.
    :raises ValueError: an unknown task, schedule or memory, a negative number, or an action that
        is not finite.
    :raises NotExecutable: the arm cannot take a chunk.
    """
    _check(schedule, memory, latency_chunks)
    own = simulation is None
    if own:
        simulation = Simulation(task, arms, seed, engine.policy.width, engine.policy.height)
    else:
        simulation.reset(seed)
    try:
        episode = _Episode(
            engine, simulation, schedule, memory, latency_chunks,
            time_limit_of(task) if time_limit is None else time_limit, max_chunks)
        wall = time.monotonic()
        engine.set_instruction(instruction or instruction_of(task))
        engine.reset()
        episode.run()
        wall = time.monotonic() - wall
    finally:
        if own:
            simulation.close()
    state = simulation.task_state
    return EpisodeResult(
        task=task, seed=seed, schedule=schedule, memory=memory, latency_chunks=latency_chunks,
        success=bool(state.success), done=bool(state.done), counts=dict(state.counts),
        ended_by=episode.ended_by, chunks=len(episode.spans), seconds=episode.seconds,
        wall_seconds=wall, seams=episode.seams(), starved_ticks=episode.starved_ticks,
        inference_seconds=tuple(episode.inference_seconds))


def _check(schedule: str, memory: str, latency_chunks: float) -> None:
    if schedule not in SCHEDULES:
        raise ValueError(
            f"schedule: '{schedule}' is unknown; expected one of {', '.join(SCHEDULES)}")
    if memory not in MEMORIES:
        raise ValueError(f"memory: '{memory}' is unknown; expected one of {', '.join(MEMORIES)}")
    if not 0 <= latency_chunks < math.inf:
        raise ValueError(f'latency_chunks: {latency_chunks} is not a number from 0')


@dataclass
class _Running:
    """The chunk that is being executed: when its actions and images are due, what was seen."""

    begin_ns: int
    action_times: List[int]
    image_times: List[int]
    images: List[Dict[str, np.ndarray]] = field(default_factory=list)
    seen: int = 0  # images that the engine has taken

    @property
    def end_ns(self) -> int:
        """When the last action has had its time and the last image is due."""
        return self.image_times[-1]


class _Episode:
    """The loop of one episode and its figures."""

    def __init__(
        self, engine: 'Engine', simulation: Simulation, schedule: str, memory: str,
        latency_chunks: float, time_limit: float, max_chunks: Optional[int],
    ):
        policy = engine.policy
        self.engine = engine
        self.simulation = simulation
        self.schedule = schedule
        self.memory = memory
        self.max_chunks = max_chunks
        self.map: ActionMap = make_action_map(simulation.embodiment, policy)
        self.began_ns = simulation.time_ns
        self.end_ns = self.began_ns + round(time_limit * NANOSECONDS)
        self.arm = VirtualArm(simulation, self._over)
        self.cameras = policy.cameras
        self.period_ns = round(policy.action_period * NANOSECONDS)
        chunk_ns = policy.frames_per_chunk * policy.actions_per_frame * self.period_ns
        # Whole ticks: that is how often the arm looks for a new plan.
        ticks = math.ceil(latency_chunks * chunk_ns / self.arm.tick_ns - 1e-9)
        self.latency_ns = ticks * self.arm.tick_ns
        self.midway = midway_of(simulation.task)
        self.was_reset = False
        self.running: Optional[_Running] = None
        self.spans: List[Tuple[int, int]] = []  # first and last due time of each chunk
        self.starved_ticks = 0
        self.inference_seconds: List[float] = []
        self._since: Optional[float] = None

    # How it stands

    def _over(self) -> bool:
        return self.simulation.task_state.done or self._time_is_up()

    def _time_is_up(self) -> bool:
        return self.simulation.time_ns >= self.end_ns

    @property
    def ended_by(self) -> str:
        if self.simulation.task_state.done:
            return 'done'
        return 'time limit' if self._time_is_up() else 'chunk limit'

    @property
    def seconds(self) -> float:
        return (self.arm.now_ns - self.began_ns) / NANOSECONDS

    def seams(self) -> SeamFigures:
        """Return the worst of all seams; grippers have no radians and are left out."""
        grippers = {arm.gripper.joint for arm in self.simulation.embodiment.arms if arm.gripper}
        columns = [
            index for index, joint in enumerate(self.simulation.joints) if joint not in grippers]
        seconds = np.array(
            [time_ns - self.began_ns for time_ns, _ in self.arm.commands]) / NANOSECONDS
        positions = np.stack([row for _, row in self.arm.commands])[:, columns]
        spans = (np.array(self.spans, float).reshape(-1, 2) - self.began_ns) / NANOSECONDS
        return seam_figures(
            seconds, positions,
            seams_of(spans[:, 0], spans[:, 1], self.period_ns / NANOSECONDS), CONTROL_PERIOD)

    # The loop

    def run(self) -> None:
        while not self._over() and not self._enough():
            chunk = self._predict()
            self.arm.advance(self.arm.now_ns + self.latency_ns)
            if self._over():
                return
            self._begin(chunk)
            self._follow(self.running.end_ns)
            if self._over():
                return
            self._commit()
            self._forget()

    def _enough(self) -> bool:
        return self.max_chunks is not None and len(self.spans) >= self.max_chunks

    def _predict(self) -> 'Chunk':
        """Predict from what is confirmed; an episode begins with what the cameras see now."""
        if not self.engine.began:
            images = self.arm.images(self.cameras)
            self._since = time.monotonic()
            self.engine.see_first(images)
            self.map.begin(self.simulation.positions)
        return self._timed(self.engine.predict())

    def _timed(self, chunk: 'Chunk') -> 'Chunk':
        self.inference_seconds.append(time.monotonic() - self._since)
        self._since = None
        return chunk

    def _joints(self, chunk: 'Chunk', start: np.ndarray) -> np.ndarray:
        """Return the joint positions [n, J] of a chunk, clipped as policy_node does."""
        if not np.isfinite(chunk.actions).all():
            raise ValueError(
                f'the network predicted {np.count_nonzero(~np.isfinite(chunk.actions))} actions '
                'that are not finite')
        limits = self.simulation.embodiment.limits
        return np.clip(self.map.to_joints(chunk.actions, start), limits.lower, limits.upper)

    def _begin(self, chunk: 'Chunk') -> None:
        """Begin a chunk from where the plan rests."""
        now = self.arm.now_ns
        start, _ = self.arm.plan.sample(now)
        joints = self._joints(chunk, start)
        self.arm.plan, first_due = plan_from_actions(
            start, joints, self.period_ns / NANOSECONDS, now,
            self.simulation.embodiment.limits.velocity)
        self.running = self._span(now, first_due, len(joints))

    def _span(self, begin_ns: int, first_due: int, actions: int) -> _Running:
        stride = self.engine.policy.images_every
        running = _Running(
            begin_ns,
            [first_due + index * self.period_ns for index in range(actions)],
            [first_due + (index + 1) * stride * self.period_ns
             for index in range(actions // stride)])
        self.spans.append((first_due, running.action_times[-1]))
        return running

    def _follow(self, until_ns: int) -> None:
        """Let the arm go on until a time; the engine sees what is complete."""
        run = self.running
        run.images += self.arm.advance(
            until_ns, run.image_times[len(run.images):], self.cameras)
        while len(run.images) - run.seen >= IMAGES_PER_FRAME:
            four = run.images[run.seen:run.seen + IMAGES_PER_FRAME]
            run.seen += IMAGES_PER_FRAME
            self._since = time.monotonic()
            self.engine.see({name: [images[name] for images in four] for name in self.cameras})

    def _commit(self) -> None:
        """Write the chunk that has ended and what was executed during it."""
        run = self.running
        joints = self.arm.executed.at([run.begin_ns, *run.action_times])
        self.engine.commit(self.map.from_joints(joints[1:], joints[0]))
        self.running = None

    def _forget(self) -> None:
        """Apply what the memory's ablation asks for after a chunk."""
        counts = self.simulation.task_state.counts
        if self.memory == 'reset_midway' and not self.was_reset and (
                self.midway(counts, len(self.spans))):
            self.engine.reset()
            self.was_reset = True
