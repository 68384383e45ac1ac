"""Experts: joint commands along the tool path that the module of a task plans."""

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
# The share of the velocity limits that an expert uses at most. Accelerations scale with the square
# of the speed.
_EFFORT = 0.95
_SLOWER = 1.01  # a margin: a slower path is sampled at other times
_PLANNERS: dict[str, Callable[..., None]] = {
    'wipe_plate': wipe, 'open_boxes': open_one_after_the_other}


class Expert:
    """
    A sequence of joint commands, one every 0.1 s, from home back to home.

    :param commands: [n, J] float64, rad (m for grippers), in the order of the simulation's joints;
        command k is due k + 1 periods after the start.
    """

    def __init__(self, commands: np.ndarray):
        self.commands = commands
        self._next = 0

    @property
    def finished(self) -> bool:
        """Whether all commands have been returned; `act` then repeats the last one, at home."""
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

    :param rng: draws tempo, pauses and lengths.
    :param perturb: adds bounded deviations from the path at random times.
    :param choices: arguments of the task's planner that change its goal, as counterexamples need.
    :raises ValueError: the task has no expert.
    """
    if simulation.task not in _PLANNERS:
        raise ValueError(
            f"task: '{simulation.task}' has no expert; expected one of {', '.join(_PLANNERS)}")
    path = path_from_home(simulation)
    _PLANNERS[simulation.task](simulation.scene, path, rng, perturb, **choices)
    return Expert(commands_along(simulation, path))


def path_from_home(simulation: Simulation) -> ToolPath:
    """Return an empty path from home for the tool of the arm that performs the task."""
    arm, reach = _arm(simulation)
    opening = simulation.embodiment.home[_gripper_column(simulation, arm)]
    return ToolPath(np.append(reach.home, opening))


def path_from(simulation: Simulation, joints: np.ndarray) -> ToolPath:
    """Return an empty path for the same tool that begins at joint positions [J]."""
    arm, reach = _arm(simulation)
    place = reach.place(joints[[simulation.joints.index(joint) for joint in arm.joints]])
    return ToolPath(np.append(place, joints[_gripper_column(simulation, arm)]))


def commands_along(
        simulation: Simulation, path: ToolPath, start: np.ndarray | None = None) -> np.ndarray:
    """
    Return joint commands [n, J] that lead the tool along a path.

    The joints of another arm stay at home. The whole path is slowed down if a joint would come
    near its velocity or acceleration limit.

    :param start: joint positions [J] at rest where the path begins; None: home.
    :raises OutOfReach: the arm cannot reach a point of the path.
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
        # The hand's orientation may differ there; the difference is blended out along the path.
        off = start[columns] - reach.joints(path.start[None, :3])[0]
        share = np.arange(1, len(points) + 1)[:, None] / len(points)
        commands[:, columns] += (1 - share**3 * (10 - 15 * share + 6 * share**2)) * off
    commands[:, _gripper_column(simulation, arm)] = points[:, 3]
    return commands


def _effort(simulation: Simulation, commands: np.ndarray, start: np.ndarray) -> float:
    """Return the largest share of the joint limits that the commands use, as a share of speed."""
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
    """Return the arm that performs the task, and its inverse kinematics."""
    scene = simulation.scene
    if not isinstance(scene, (OpenBoxesScene, WipePlateScene)):
        raise ValueError(f"task: '{simulation.task}' has no arm that performs it")
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
