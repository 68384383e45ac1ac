"""An expert plays the way that its task's module has laid through the scene."""

from functools import lru_cache

from lingbot_va_ros.robot.embodiment import load_embodiment
from lingbot_va_ros.sim.experts.open_boxes import open_one_after_the_other
from lingbot_va_ros.sim.experts.path import Reach, ToolPath
from lingbot_va_ros.sim.experts.wipe_plate import wipe
from lingbot_va_ros.sim.simulation import Simulation
from lingbot_va_ros.sim.trajectory_controller import Trajectory, TrajectoryPoint

import numpy as np

PERIOD = 0.1  # s from one command to the next
_WAYS = {'wipe_plate': wipe, 'open_boxes': open_one_after_the_other}


class Expert:
    """
    Joint commands every 0.1 s, from home back to home, and home for ever after.

    `commands` [n, J] float64 are all of them up to the end, rad (m for grippers), in the order of
    the simulation's joints; command k is due at k + 1 periods after the start.
    """

    def __init__(self, commands: np.ndarray):
        self.commands = commands
        self._next = 0

    @property
    def finished(self) -> bool:
        """Whether all has been commanded; `act` then stays at home."""
        return self._next >= len(self.commands)

    def act(self) -> np.ndarray:
        """Return the joint command [J] that is due in 0.1 s, and go on by as much."""
        row = self.commands[min(self._next, len(self.commands) - 1)]
        self._next += 1
        return row.copy()


def make_expert(simulation: Simulation, rng: np.random.Generator, perturb: bool = True,
                **choices) -> Expert:
    """
    Return an expert for a simulation that has just been reset.

    Tempo, pauses and lengths are drawn from `rng`; with `perturb` the tool also leaves its way
    now and then by a bounded distance and finds back. `choices` make the expert do something else
    than the task asks for: see the task's module.

    :raises ValueError: the task has no goal and hence no expert.
    """
    if simulation.task not in _WAYS:
        raise ValueError(
            f"task: '{simulation.task}' has no expert; expected one of {', '.join(_WAYS)}")
    scene = simulation.scene
    embodiment = simulation.embodiment
    arm = next(arm for arm in embodiment.arms if arm.side == scene.side)
    reach = _reach(embodiment.name, arm.side, tuple(simulation.model.body(arm.base_frame).pos))
    gripper = simulation.joints.index(arm.gripper.joint)
    path = ToolPath(np.append(reach.home, embodiment.home[gripper]))
    _WAYS[simulation.task](scene, path, rng, perturb, **choices)
    points = path.sample(PERIOD)
    commands = np.tile(embodiment.home, (len(points), 1))
    commands[:, [simulation.joints.index(joint) for joint in arm.joints]] = \
        reach.joints(points[:, :3])
    commands[:, gripper] = points[:, 3]
    return Expert(commands)


def drive(simulation: Simulation, command: np.ndarray) -> None:
    """Lead all joints to a command [J] and advance the simulation until it is due, 0.1 s later."""
    simulation.controller.accept(
        Trajectory(0, simulation.joints, (
            TrajectoryPoint(round(PERIOD * 1e9), command),)), simulation.time_ns)
    simulation.step(PERIOD)


@lru_cache
def _reach(embodiment: str, side: str, base: tuple[float, ...]) -> Reach:
    loaded = load_embodiment(embodiment)
    return Reach(loaded, next(arm for arm in loaded.arms if arm.side == side), base)
