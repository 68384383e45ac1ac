"""Records episodes of a task by its scripted expert, in one process or several."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
import multiprocessing
from pathlib import Path
import signal
from typing import Protocol

import numpy as np

from lingbot_va_ros.sim.experts import drive, make_expert, PERIOD
from lingbot_va_ros.sim.scenes.distractors import NAMES as DISTRACTORS
from lingbot_va_ros.sim.simulation import Simulation
from lingbot_va_ros.training.episode_files import Recording, save_recording

# Parts of the robot that are marked in the images, like the bodies of the task.
MARKED_PARTS = ('finger_1', 'finger_2')
TOOL = 'left_tool'


class Actor(Protocol):
    """Like `sim.experts.Expert`: `act()` returns the command [J] that is due in 0.1 s."""

    @property
    def finished(self) -> bool: ...

    def act(self) -> np.ndarray: ...


# Called with the simulation after its reset and the random generator of the expert.
MakeActor = Callable[[Simulation, np.random.Generator], Actor]


@dataclass(frozen=True)
class RecordingOptions:
    """
    The options of a recording that do not depend on its task.

    :param size: width and height of the images, pixels.
    :param idle: minimum and maximum time at rest after the expert has finished, s.
    :param longest: time limit of the expert, s.
    """

    cameras: tuple[str, ...] = ('head', 'left_wrist')
    size: int = 64
    idle: tuple[float, float] = (4.0, 10.0)
    longest: float = 120.0


def record_episode(
    task: str, seed: int, options: RecordingOptions = RecordingOptions(),
    make_actor: MakeActor = make_expert,
) -> Recording:
    """
    Record one episode, which depends on the arguments only.

    :param seed: random seed of the scene, the expert and the idle time.
    :raises ValueError: the task is unknown.
    :raises NoRenderer: see `sim.cameras`.
    """
    simulation = Simulation(task, 'left', seed, options.size, options.size)
    try:
        # Not the scene's generator, which has the same seed and would give equal numbers.
        rng = np.random.default_rng([seed, 1])
        return _record(simulation, make_actor(simulation, rng), seed, rng, options)
    finally:
        simulation.close()


def _record(
    simulation: Simulation, expert: Actor, seed: int, rng: np.random.Generator,
    options: RecordingOptions,
) -> Recording:
    observer = _Observer(simulation, options.cameras)
    commands: list[np.ndarray] = []
    idle, finished = round(rng.uniform(*options.idle) / PERIOD), None
    observer.observe()
    while finished is None or len(commands) < finished + idle:
        if finished is None and (expert.finished or len(commands) * PERIOD >= options.longest):
            finished = len(commands)
            continue
        command = np.asarray(commands[-1] if finished is not None and commands else expert.act())
        drive(simulation, command)
        commands.append(command)
        observer.observe()
    return Recording(
        simulation.task, seed, observer.stacked(observer.images),
        observer.stacked(observer.marked),
        np.array(commands, np.float32),
        {name: np.array(values, np.int16) for name, values in observer.counts.items()},
        {name: np.array(values, np.float32) for name, values in observer.places.items()},
        finished, simulation.task_state.success)


class _Observer:
    """Collects images, event counts and body positions of a simulation."""

    def __init__(self, simulation: Simulation, cameras: Sequence[str]):
        self._simulation = simulation
        self.images: dict[str, list] = {name: [] for name in cameras}
        self.marked: dict[str, list] = {name: [] for name in cameras}
        self.counts: dict[str, list] = {name: [] for name in simulation.task_state.counts}
        self._bodies = [*_task_bodies(simulation), TOOL]
        self.places: dict[str, list] = {name: [] for name in self._bodies}
        model = simulation.model
        marked = [model.body(name).id for name in self._bodies[:-1]] + [
            model.body(f'left_{part}').id for part in MARKED_PARTS]
        # Geom -1, the background, indexes the last row, which is false.
        self._is_marked = np.append(np.isin(model.geom_bodyid, marked), False)

    def observe(self) -> None:
        """Record the next image of each camera, the event counts and the body positions."""
        simulation = self._simulation
        for name, images in self.images.items():
            images.append(simulation.render(name))
            self.marked[name].append(self._is_marked[simulation.render_geoms(name)])
        for name, count in simulation.task_state.counts.items():
            self.counts[name].append(count)
        for name, places in self.places.items():
            places.append(simulation.data.body(name).xpos.copy())

    @staticmethod
    def stacked(images: dict[str, list]) -> dict[str, np.ndarray]:
        """Return per camera one array of its images."""
        return {name: np.stack(values) for name, values in images.items()}


def _task_bodies(simulation: Simulation) -> list[str]:
    """Return the names of the bodies that matter for the task."""
    model = simulation.model
    names = [model.body(index).name for index in range(1, model.nbody)]
    robot = tuple(f'{arm.side}_' for arm in simulation.embodiment.arms)
    return [name for name in names if name and name not in DISTRACTORS
            and not name.startswith((*robot, 'head_camera'))]


def recording_path(folder: Path, task: str, seed: int) -> Path:
    """Return the path of an episode's file."""
    return Path(folder) / task / f'{seed:07d}.npz'


def record_missing(
    folder: Path, task: str, seeds: Sequence[int],
    options: RecordingOptions = RecordingOptions(), processes: int = 1,
    make_actor: MakeActor = make_expert,
) -> Iterator[Path]:
    """
    Record the episodes without a file; yield each file when it is written.

    :param processes: number of processes that record at a time.
    :param make_actor: a function or class of a module: it is pickled for other processes.
    :raises ValueError: as `record_episode`.
    """
    jobs = [(folder, task, seed, options, make_actor) for seed in seeds
            if not recording_path(folder, task, seed).is_file()]
    if processes < 2 or len(jobs) < 2:
        yield from map(_record_file, jobs)
        return
    # Fresh processes: a drawing context and torch's threads do not survive a fork. They ignore
    # the Ctrl-C of a terminal, which goes to the whole group: a lost job is waited for forever.
    with multiprocessing.get_context('spawn').Pool(
            min(processes, len(jobs)), signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        yield from pool.imap_unordered(_record_file, jobs)


def _record_file(job: tuple) -> Path:
    folder, task, seed, options, make_actor = job
    path = recording_path(folder, task, seed)
    save_recording(path, record_episode(task, seed, options, make_actor))
    return path
