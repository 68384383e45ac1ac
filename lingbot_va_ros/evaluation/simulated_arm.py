"""The simulated arm behind the mux's command stream, one control tick at a time."""

from collections.abc import Callable

import numpy as np

from lingbot_va_ros.evaluation.simulated_cameras import SimulatedCameras
from lingbot_va_ros.evaluation.smoothness import CONTROL_PERIOD
from lingbot_va_ros.motion.plan import Plan
from lingbot_va_ros.motion.plan_slot import PlanSlot
from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.motion.timeline import Timeline
from lingbot_va_ros.mux.command_stream import CommandStream
from lingbot_va_ros.mux.goal import plan_goal
from lingbot_va_ros.policy.runtime.executed_log import ExecutedLog
from lingbot_va_ros.sim.controllers.messages import Trajectory, TrajectoryPoint
from lingbot_va_ros.sim.simulation import Simulation

KEEP_SECONDS = 60.0  # of executed commands; longer than any chunk
TICK_NS = round(CONTROL_PERIOD * NANOSECONDS)
_NEAR_NS = 1_000_000  # half a physics step


class LastMeasured:
    """The joint positions [J] that were measured last, without noise."""

    def __init__(self, positions: np.ndarray) -> None:
        self._positions = positions.copy()

    def update(self, positions: np.ndarray) -> None:
        """Take positions [J]."""
        self._positions = positions.copy()

    def positions(self) -> np.ndarray:
        """Return positions [J] in rad or m."""
        return self._positions.copy()


class SimulatedArm:
    """
    Executes the plan of a slot in simulation; simulated time passes in `tick` alone.

    In a tick, one control period, the present plan is sampled, the command stream limits the
    sample, the simulated controller takes it with its braking tail, and physics go on. An image
    that is awaited within the tick is rendered at its time.

    :param simulation: as it was reset; its arms rest.
    :param slot: gives the present plan.
    :param cameras: take the images.
    :param on_tick: called with the plan and its time in nanoseconds before each tick.
    :param timeline: between the time of plans and simulated time; by default they are the same.
    """

    def __init__(
        self, simulation: Simulation, slot: PlanSlot, cameras: SimulatedCameras,
        on_tick: Callable[[Plan, int], None] = lambda plan, now_ns: None,
        timeline: Timeline | None = None,
    ):
        self._timeline = timeline = timeline or Timeline()
        self.simulation = simulation
        self.executed = ExecutedLog(KEEP_SECONDS, timeline.to_plan)
        self.joint_states = LastMeasured(simulation.positions)
        # Every command that was sent: the simulated time when it is due, positions [J].
        self.commands: list[tuple[int, np.ndarray]] = []
        self._slot = slot
        self._cameras = cameras
        self._on_tick = on_tick
        self._stream = CommandStream(simulation.embodiment.limits, TICK_NS)
        desired = simulation.control.command
        self._stream.begin(simulation.time_ns, desired, np.zeros_like(desired))
        self._keep(simulation.time_ns, desired)

    def tick(self) -> None:
        """Advance simulated time by one control period."""
        plan, plan_ns = self._slot.current()
        begin_ns = self.simulation.time_ns
        end_ns = begin_ns + TICK_NS
        if plan is not None:  # else the controller holds
            self._on_tick(plan, plan_ns)
            self._command(self._timeline.in_ros(plan), begin_ns)
        awaited_ns = self._cameras.awaited_ns
        if awaited_ns is not None and awaited_ns <= end_ns + _NEAR_NS:
            self._step_to(awaited_ns)
            self._cameras.take(awaited_ns)
        self._step_to(end_ns)
        self.joint_states.update(self.simulation.positions)

    def _command(self, plan: Plan, begin_ns: int) -> None:
        limits = self.simulation.embodiment.limits
        command = self._stream.follow(begin_ns, lambda step_ns: (plan_goal(
            plan, step_ns + TICK_NS, limits.acceleration, limits.jerk), 1.0))
        self.simulation.send(Trajectory(begin_ns, self.simulation.joints, tuple(
            TrajectoryPoint(int(time) - begin_ns, positions, velocities)
            for time, positions, velocities in zip(
                command.times_ns, command.positions, command.velocities))))
        self._keep(begin_ns + TICK_NS, command.sample(begin_ns + TICK_NS)[0])

    def _keep(self, due_ns: int, positions: np.ndarray) -> None:
        self.executed.add(due_ns, positions)
        self.commands.append((due_ns, positions))

    def _step_to(self, time_ns: int) -> None:
        ahead_ns = time_ns - self.simulation.time_ns
        if ahead_ns > _NEAR_NS:
            self.simulation.step(ahead_ns / NANOSECONDS)
