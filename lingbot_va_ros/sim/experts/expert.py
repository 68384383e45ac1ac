"""An expert plays the path that the module of its task plans through the scene."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from lingbot_va_ros.motion.time import to_nanoseconds
from lingbot_va_ros.sim.controllers.messages import Trajectory, TrajectoryPoint
from lingbot_va_ros.sim.experts.open_boxes import open_one_after_the_other
from lingbot_va_ros.sim.experts.path import Reach, ToolPath
from lingbot_va_ros.sim.experts.wipe_plate import wipe
from lingbot_va_ros.sim.scenes.open_boxes import OpenBoxesScene
from lingbot_va_ros.sim.scenes.wipe_plate import WipePlateScene
from lingbot_va_ros.sim.simulation import Simulation
from lingbot_va_ros.specs.embodiment import Arm, load_embodiment

PERIOD = 0.1  # s from one command to the next
# How fast an expert may be, as a share of what the joints may do; their accelerations grow with
# the square of it.
_EFFORT = 0.95
_SLOWER = 1.01  # samples at other moments may lie worse
_WAYS: dict[str, Callable[..., None]] = {
    'wipe_plate': wipe, 'open_boxes': open_one_after_the_other}


class Expert:
    """
    Joint commands every 0.1 s, from home back to home; afterwards it stays at home.

    `commands` [n, J] float64 are all commands up to the end, rad (m for grippers), in the order of
    the simulation's joints; command k is due at k + 1 periods after the start.
    """

    def __init__(self, commands: np.ndarray):
        self.commands = commands
        self._next = 0

    @property
    def finished(self) -> bool:
        """Return whether all commands are given; `act` then stays at home."""
        return self._next >= len(self.commands)

    def act(self) -> np.ndarray:
        """Return the joint command [J] that is due in 0.1 s, and advance by 0.1 s."""
        row = self.commands[min(self._next, len(self.commands) - 1)]
        self._next += 1
        return row.copy()


def make_expert(simulation: Simulation, rng: np.random.Generator, perturb: bool = True,
                **choices: Any) -> Expert:
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
    path = path_from_home(simulation)
    _WAYS[simulation.task](simulation.scene, path, rng, perturb, **choices)
    return Expert(commands_along(simulation, path))


def path_from_home(simulation: Simulation) -> ToolPath:
    """Return an empty path for the tool of the arm that the task is for."""
    arm, reach = _arm(simulation)
    opening = simulation.embodiment.home[_gripper_column(simulation, arm)]
    return ToolPath(np.append(reach.home, opening))


def path_from(simulation: Simulation, joints: np.ndarray) -> ToolPath:
    """Return an empty path for that tool from where it is at joint positions [J]."""
    arm, reach = _arm(simulation)
    place = reach.place(joints[[simulation.joints.index(joint) for joint in arm.joints]])
    return ToolPath(np.append(place, joints[_gripper_column(simulation, arm)]))


def commands_along(
        simulation: Simulation, path: ToolPath, start: np.ndarray | None = None) -> np.ndarray:
    """
    Return joint commands [n, J] that lead the tool along a path.

    Joints of another arm stay at home. All is slowed down alike where a joint would otherwise
    come near its velocity or acceleration limit.

    :param start: joint positions [J] at rest, where the path begins; home where there are none.
    :raises OutOfReach: the path leads where the arm cannot go.
    """
    slowness = 1.0
    commands = _commands(simulation, path, slowness, start)
    begin = simulation.embodiment.home if start is None else start
    while (effort := _effort(simulation, commands, begin)) > _EFFORT:
        slowness *= _SLOWER * effort / _EFFORT
        commands = _commands(simulation, path, slowness, start)
    return commands


def _commands(simulation: Simulation, path: ToolPath, slowness: float,
              start: np.ndarray | None) -> np.ndarray:
    arm, reach = _arm(simulation)
    points = path.sample(PERIOD / slowness)  # [n, 4]
    commands = np.tile(simulation.embodiment.home, (len(points), 1))
    columns = [simulation.joints.index(joint) for joint in arm.joints]
    commands[:, columns] = reach.joints(points[:, :3])
    if start is not None:
        # The hand may be turned a little there: it turns as it should be along the way.
        off = start[columns] - reach.joints(path.start[None, :3])[0]
        share = np.arange(1, len(points) + 1)[:, None] / len(points)
        commands[:, columns] += (1 - share**3 * (10 - 15 * share + 6 * share**2)) * off
    commands[:, _gripper_column(simulation, arm)] = points[:, 3]
    return commands


def _effort(simulation: Simulation, commands: np.ndarray, start: np.ndarray) -> float:
    """Return the share of the limits that a motion from rest to rest takes, as a speed."""
    limits = simulation.embodiment.limits
    rest = np.tile(start, (2, 1))
    steps = np.diff(np.concatenate([rest, commands, commands[-1:]]), axis=0) / PERIOD
    velocity = np.abs(steps / limits.velocity).max()
    acceleration = np.abs(np.diff(steps, axis=0) / PERIOD / limits.acceleration).max()
    return float(max(velocity, np.sqrt(acceleration)))


def drive(simulation: Simulation, command: np.ndarray) -> None:
    """Lead all joints to a command [J] and advance the simulation until it is due, 0.1 s later."""
    simulation.send(Trajectory(
        0, simulation.joints, (TrajectoryPoint(to_nanoseconds(PERIOD), command),)))
    simulation.step(PERIOD)


def _arm(simulation: Simulation) -> tuple[Arm, Reach]:
    """Return the arm that the scene is for, and where it reaches."""
    scene = simulation.scene
    if not isinstance(scene, (OpenBoxesScene, WipePlateScene)):
        raise ValueError(f"task: '{simulation.task}' is for no arm of its own")
    arm = next(arm for arm in simulation.embodiment.arms if arm.side == scene.side)
    base = tuple(simulation.model.body(arm.base_frame).pos)
    return arm, _reach(simulation.embodiment.name, arm.side, base)


def _gripper_column(simulation: Simulation, arm: Arm) -> int:
    """Return the column of the arm's gripper in the commands."""
    assert arm.gripper is not None  # every simulated arm has one
    return simulation.joints.index(arm.gripper.joint)


@lru_cache
def _reach(embodiment: str, side: str, base: tuple[float, ...]) -> Reach:
    loaded = load_embodiment(embodiment)
    return Reach(loaded, next(arm for arm in loaded.arms if arm.side == side), base)
