"""
One closed-loop episode in process, in virtual time: no ROS, no threads, nothing waits.

    result = run_episode(engine, 'wipe_plate', seed=3)
    print(result.success, result.counts)

The engine sees, predicts and commits in the order of the worker, the commands pass the gate of the
mux, and the simulated arm follows them as over ROS. Simulated time stands still while the network
computes; latency is what it is told to be, so that a result does not depend on the machine.

Schedules:
- `sync`: the arm rests for the latency between the end of a chunk and the next one's motion.
- `async`: while a chunk runs the next one is predicted from what has been seen by then, the rest
  being imagined; it begins so that it is done one action before the chunk's end, or as early as
  may be (when the chunk begins), and joins at the end. A latency of more than a chunk starves the
  arm: it rests, control ticks are counted, and motion is resumed with the chunk's first action.
- `async_ungrounded`: as `async`, but what is unseen is taken from the chunk's own forecast.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
import math
import time
from typing import Any, TYPE_CHECKING

import numpy as np

from lingbot_va_ros.evaluation.simulated_arm import VirtualArm
from lingbot_va_ros.evaluation.smoothness import seam_figures, SeamFigures
from lingbot_va_ros.evaluation.tasks import chunk_limit_of, instruction_of, midway_of
from lingbot_va_ros.motion.splice import continued, plan_from_actions
from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.policy.errors import NotExecutable
from lingbot_va_ros.robot.action_map import ActionMap, make_action_map
from lingbot_va_ros.robot.poses import PoseError
from lingbot_va_ros.sim.simulation import Simulation
from lingbot_va_ros.specs.checkpoint_config import IMAGES_PER_FRAME

if TYPE_CHECKING:
    from lingbot_va_ros.policy.inference.engine import Chunk, Engine

SCHEDULES = ('sync', 'async', 'async_ungrounded')
MEMORIES = ('full', 'last_chunk', 'reset_midway')


@dataclass(frozen=True)
class EpisodeResult:
    """
    What became of an episode.

    :param success: the simulator's judgement, as `done` and `counts`.
    :param ended_by: 'done', 'time limit', 'chunk limit', or why the arm could not take a chunk.
    :param chunks: those whose motion was begun.
    :param seconds: simulated, from the first image on; `wall_seconds` by the steady clock.
    :param seams: the largest step (rad) and acceleration (rad/s²) where chunks meet; `motion`
        those of the whole episode.
    :param starved_ticks: control ticks in an asynchronous schedule for which the plan had ended.
    :param inference_seconds: wall-clock time of each prediction; in `sync` with encoding the last
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
    seams: SeamFigures
    motion: SeamFigures
    starved_ticks: int
    inference_seconds: tuple[float, ...]

    @property
    def detail(self) -> str:
        """The counts in words, and how the episode ended where it was not done."""
        counts = ', '.join(f'{name}: {count}' for name, count in self.counts.items())
        return counts if self.done else f'{counts or "nothing counted"}; ended by {self.ended_by}'


def run_episode(
    engine: 'Engine', task: str, seed: int, schedule: str = 'sync', memory: str = 'full',
    latency_chunks: float = 0.0, arms: str = 'left', instruction: str | None = None,
    time_limit: float | None = None, max_chunks: int | None = None,
    simulation: Simulation | None = None,
) -> EpisodeResult:
    """
    Run one episode until the task is done, enough chunks were executed or the time is over.

    The engine is reset before and left as the episode left it; its instruction changes.

    :param seed: of the scene; the starting noise is the engine's own.
    :param memory: `full`; `last_chunk`: after every chunk only that chunk is kept; `reset_midway`:
        everything is forgotten once, after the chunk during which the episode came midway (see
        `task_rules.midway_of`).
    :param latency_chunks: from the newest image to the chunk, in chunk lengths.
    :param instruction: empty or None takes the task's own.
    :param time_limit: simulated seconds, waiting for predictions included; None for no limit.
    :param max_chunks: the episode ends when so many are executed; None takes the task's own limit.
    :param simulation: reused and reset to the seed, so that it need not be built anew: the
        caller closes it. None builds one whose cameras have the policy's picture size.
    :raises ValueError: an unknown task, schedule or memory, a negative number, a simulation of
        another task, or an action that is not finite.
    """
    _check(schedule, memory, latency_chunks)
    own = simulation is None
    if not own and simulation.task != task:
        raise ValueError(f"simulation: it is of the task '{simulation.task}', not '{task}'")
    if own:
        simulation = Simulation(task, arms, seed, engine.policy.width, engine.policy.height)
    else:
        simulation.reset(seed)
    try:
        episode = _Episode(
            engine, simulation, schedule, memory, latency_chunks, time_limit, max_chunks)
        wall = time.monotonic()
        engine.keeps_images = memory == 'last_chunk'
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
        ended_by=episode.ended_by, chunks=episode.chunks, seconds=episode.seconds,
        wall_seconds=wall, seams=episode.smoothness(episode.seams),
        motion=episode.smoothness([(episode.began_ns, episode.arm.now_ns)]),
        starved_ticks=episode.starved_ticks,
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
    """
    The chunk that is being executed: when its actions and images are due, what was seen.

    An image is due when the action that it follows is reached.
    """

    begin_ns: int
    action_times: list[int]
    image_times: list[int]
    images: list[dict[str, np.ndarray]] = field(default_factory=list)
    seen: int = 0  # images that the engine has taken

    @property
    def end_ns(self) -> int:
        """When its last action, and its last image, is due."""
        return self.action_times[-1]


class _Episode:
    """The loop of one episode and its figures."""

    def __init__(
        self, engine: 'Engine', simulation: Simulation, schedule: str, memory: str,
        latency_chunks: float, time_limit: float | None, max_chunks: int | None,
    ):
        policy = engine.policy
        self.engine = engine
        self.simulation = simulation
        self.schedule = schedule
        self.memory = memory
        self.map: ActionMap = make_action_map(simulation.embodiment, policy)
        self.began_ns = simulation.time_ns
        self.limit_ns = None if time_limit is None else (
            self.began_ns + round(time_limit * NANOSECONDS))
        self.arm = VirtualArm(simulation, self._over)
        self.cameras = policy.cameras
        self.period = policy.action_period
        self.period_ns = round(self.period * NANOSECONDS)
        chunk_ns = policy.frames_per_chunk * policy.actions_per_frame * self.period_ns
        self.max_chunks = max_chunks or chunk_limit_of(simulation.task, chunk_ns / NANOSECONDS)
        # Whole ticks: that is how often the arm looks for a new plan.
        ticks = math.ceil(latency_chunks * chunk_ns / self.arm.tick_ns - 1e-9)
        self.latency_ns = ticks * self.arm.tick_ns
        self.midway = midway_of(simulation.task)
        self.was_reset = False
        self.running: _Running | None = None
        self.chunks = 0
        self.starved_ticks = 0
        self.inference_seconds: list[float] = []
        self._refused = ''
        self._preparing = 0.0  # seconds spent on encoding and writing right before a prediction
        self._last_due: int | None = None  # of the chunk before, where the next one joins it
        self.seams: list[tuple[int, int]] = []  # spans of time around them, ns

    # How it stands

    def _over(self) -> bool:
        return self.simulation.task_state.done or self._time_is_up()

    def _time_is_up(self) -> bool:
        return self.limit_ns is not None and self.simulation.time_ns >= self.limit_ns

    def _enough(self) -> bool:
        return self.chunks >= self.max_chunks

    @property
    def ended_by(self) -> str:
        if self._refused:
            return self._refused
        if self.simulation.task_state.done:
            return 'done'
        return 'time limit' if self._time_is_up() else 'chunk limit'

    @property
    def seconds(self) -> float:
        return (self.arm.now_ns - self.began_ns) / NANOSECONDS

    def smoothness(self, spans: Sequence[tuple[int, int]]) -> SeamFigures:
        """Return the worst during spans; grippers have no radians and are left out."""
        grippers = {arm.gripper.joint for arm in self.simulation.embodiment.arms if arm.gripper}
        columns = [
            index for index, joint in enumerate(self.simulation.joints) if joint not in grippers]
        times = np.array([time_ns for time_ns, _ in self.arm.commands]) - self.began_ns
        positions = np.stack([row for _, row in self.arm.commands])[:, columns]
        return seam_figures(times / NANOSECONDS, positions, [
            ((begin - self.began_ns) / NANOSECONDS, (end - self.began_ns) / NANOSECONDS)
            for begin, end in spans])

    # The two loops

    def run(self) -> None:
        """Run the episode; returns where it is over or enough chunks were executed."""
        try:
            if self.schedule == 'sync':
                self._in_turns()
            else:
                self._ahead()
        except NotExecutable as error:
            self._refused = f'not executable: {error}'

    def _in_turns(self) -> None:
        while not self._over() and not self._enough():
            if not (self._begin_from_rest() and self._follow(self.running.end_ns)):
                return
            self._commit()
            self._forget()

    def _ahead(self) -> None:
        going = self._begin_from_rest()
        while going:
            run, chunk, ready_ns, following = self.running, None, 0, None
            if not self._enough():
                if not self._follow(self._latest_start(run)):
                    return
                chunk = self._predict_ahead()
                ready_ns = self.arm.now_ns + self.latency_ns
                if ready_ns <= run.end_ns:
                    if not self._follow(ready_ns):
                        return
                    following = self._join(chunk, run)
            if not self._follow(run.end_ns):
                return
            self._commit()
            begins_anew = self._forget()
            if self._enough():
                return
            if begins_anew:
                going = self._begin_from_rest()
                continue
            if following is None:
                before = self.arm.ticks
                going = self._rest(ready_ns)
                self.starved_ticks += self.arm.ticks - before
                if not going:
                    return
                following = self._join(chunk, run)
            self._start(following)

    def _latest_start(self, run: _Running) -> int:
        """
        Return when to predict the next chunk.

        So that it is there before the last stretch of the running one, which ends in a stop unless
        the motion is known to go on.
        """
        needed_ns = run.action_times[-2] if len(run.action_times) > 1 else run.end_ns
        spare = needed_ns - self.latency_ns - self.arm.now_ns
        return self.arm.now_ns + max(0, spare // self.arm.tick_ns) * self.arm.tick_ns

    # What they consist of

    def _begin_from_rest(self) -> bool:
        """Predict from what is confirmed while the arm rests, and begin; False: it is over."""
        if not self.engine.began:  # with what the cameras see now
            images = self.arm.images(self.cameras)
            self._preparing = _seconds_of(lambda: self.engine.see_first(images))
            self.map.begin(self.simulation.positions)
        chunk = self._predicted(self.engine.predict)
        if not self._rest(self.arm.now_ns + self.latency_ns):
            return False
        now = self.arm.now_ns
        start, _ = self.arm.plan.sample(now)
        joints = self._joints(chunk, start)
        self.arm.plan, first_due = plan_from_actions(
            start, joints, self.period, now, self.simulation.embodiment.limits.velocity)
        self._start(self._span(now, first_due, len(joints)))
        return True

    def _start(self, run: _Running) -> None:
        self.running = run
        self.chunks += 1

    def _predict_ahead(self) -> 'Chunk':
        """Predict from what has been seen of the running chunk and the actions of all of it."""
        run, now = self.running, self.arm.now_ns
        joints = np.stack([
            self.arm.executed.at([time_ns])[0] if time_ns <= now
            else self.arm.plan.sample(time_ns)[0]
            for time_ns in (run.begin_ns, *run.action_times)])
        executing = self.map.from_joints(joints[1:], joints[0])
        self._preparing = 0.0
        return self._predicted(
            lambda: self.engine.predict_ahead(executing, self.schedule == 'async'))

    def _predicted(self, predict: Callable[[], 'Chunk']) -> 'Chunk':
        since = time.monotonic()
        chunk = predict()
        self.inference_seconds.append(time.monotonic() - since + self._preparing)
        self._preparing = 0.0
        if not np.isfinite(chunk.actions).all():
            raise ValueError(
                f'the network predicted {np.count_nonzero(~np.isfinite(chunk.actions))} actions '
                'that are not finite')
        return chunk

    def _joints(self, chunk: 'Chunk', start: np.ndarray) -> np.ndarray:
        """Return the joint positions [n, J] of a chunk, clipped as policy_node does."""
        limits = self.simulation.embodiment.limits
        try:
            joints = self.map.to_joints(chunk.actions, start)
        except PoseError as error:
            raise NotExecutable(str(error)) from None
        return np.clip(joints, limits.lower, limits.upper)

    def _join(self, chunk: 'Chunk', run: _Running) -> _Running:
        """Let the plan go on with a chunk behind `run`, which may have come to its end."""
        joints = self._joints(chunk, self.arm.plan.positions[-1])
        self.arm.plan, first_due = continued(
            self.arm.plan, joints, self.period, self.arm.now_ns, 0.0,
            self.simulation.embodiment.limits.velocity, run.begin_ns)
        return self._span(int(self.arm.plan.times_ns[-len(joints) - 1]), first_due, len(joints))

    def _span(self, begin_ns: int, first_due: int, actions: int) -> _Running:
        times = [first_due + index * self.period_ns for index in range(actions)]
        stride = self.engine.policy.images_every
        if self._last_due is not None:
            self.seams.append((self._last_due - self.period_ns, first_due + self.period_ns))
        self._last_due = times[-1]
        return _Running(begin_ns, times, times[stride - 1::stride])

    def _rest(self, until_ns: int) -> bool:
        """Let the arm rest until a time; False: it is over."""
        self.arm.advance(until_ns)
        return not self._over()

    def _follow(self, until_ns: int) -> bool:
        """Go on until a time and let the engine see what is complete; False: it is over."""
        run = self.running
        run.images += self.arm.advance(
            until_ns, run.image_times[len(run.images):], self.cameras)
        while len(run.images) - run.seen >= IMAGES_PER_FRAME:
            four = run.images[run.seen:run.seen + IMAGES_PER_FRAME]
            run.seen += IMAGES_PER_FRAME
            views = {name: [images[name] for images in four] for name in self.cameras}
            self._preparing = _seconds_of(lambda: self.engine.see(views))
        return not self._over()

    def _commit(self) -> None:
        """Write the chunk that has ended and what was executed during it."""
        run = self.running
        joints = self.arm.executed.at([run.begin_ns, *run.action_times])
        executed = self.map.from_joints(joints[1:], joints[0])
        self._preparing += _seconds_of(lambda: self.engine.commit(executed))
        self.running = None

    def _forget(self) -> bool:
        """Apply the ablation of the memory after a chunk; True: the episode begins anew."""
        if self.memory == 'last_chunk':
            self._preparing += _seconds_of(self.engine.keep_last_chunk)
        if self.memory != 'reset_midway' or self.was_reset or not self.midway(
                self.simulation.task_state.counts, self.chunks):
            return False
        self.was_reset = True
        self.engine.reset()
        self._preparing, self._last_due = 0.0, None  # what was to join is dropped
        self.arm.plan = self.arm.plan.braked(
            self.arm.now_ns, self.simulation.embodiment.limits)
        self._rest(self.arm.plan.end_ns)
        return True


def _seconds_of(work: Callable[[], Any]) -> float:
    since = time.monotonic()
    work()
    return time.monotonic() - since
