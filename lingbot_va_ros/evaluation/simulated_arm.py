"""The simulated arm behind the mux's gate in virtual time: no ROS, no threads, no waiting."""

from collections.abc import Callable, Sequence

import numpy as np

from lingbot_va_ros.evaluation.smoothness import CONTROL_PERIOD
from lingbot_va_ros.motion.plan import Plan, resting_at
from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.mux.command_stream import CommandStream
from lingbot_va_ros.policy.runtime.executed_log import ExecutedLog
from lingbot_va_ros.sim.simulation import Simulation
from lingbot_va_ros.sim.trajectory_controller import Trajectory, TrajectoryPoint

KEEP_SECONDS = 60.0  # of executed commands; longer than any chunk
_NEAR_NS = 1_000_000  # half a physics step


class VirtualArm:
    """
    A plan, the gate of the mux, the controller and physics, advanced tick by tick.

    A tick is one control period: the plan is sampled, the gate limits the sample, the simulated
    controller takes it with its braking tail, and physics go on. Time is the simulation's.

    :param simulation: as it was reset; its arms rest.
    :param over: asked after every tick; once true no tick follows.
    """

    def __init__(self, simulation: Simulation, over: Callable[[], bool] = lambda: False):
        self.simulation = simulation
        self.tick_ns = round(CONTROL_PERIOD * NANOSECONDS)
        self.ticks = 0
        self.executed = ExecutedLog(KEEP_SECONDS)
        self.commands: list[tuple[int, np.ndarray]] = []
        self._over = over
        self._stream = CommandStream(simulation.embodiment.limits, self.tick_ns)
        desired = simulation.controller.desired.positions
        self.plan: Plan = resting_at(self.now_ns, desired)
        self._stream.begin(self.now_ns, desired, np.zeros_like(desired))
        self._keep(self.now_ns, desired)

    @property
    def now_ns(self) -> int:
        """Simulated time in nanoseconds."""
        return self.simulation.time_ns

    def images(self, cameras: Sequence[str]) -> dict[str, np.ndarray]:
        """Return what cameras see now: uint8 [H, W, 3] each, rgb."""
        return {name: self.simulation.render(name) for name in cameras}

    def advance(
        self, until_ns: int, image_times: Sequence[int] = (), cameras: Sequence[str] = (),
    ) -> list[dict[str, np.ndarray]]:
        """
        Tick until a time is reached, and return the images due meanwhile.

        Stops early where `over` says so.

        :param image_times: ns, increasing; those up to the end of the last tick are taken.
        """
        taken: list[dict[str, np.ndarray]] = []
        while self.now_ns < until_ns - _NEAR_NS and not self._over():
            end_ns = self.now_ns + self.tick_ns
            self._command(self.now_ns)
            while len(taken) < len(image_times) and (
                    image_times[len(taken)] <= end_ns + _NEAR_NS):
                self._step_to(image_times[len(taken)])
                taken.append(self.images(cameras))
            self._step_to(end_ns)
            self.ticks += 1
        return taken

    def _command(self, tick_ns: int) -> None:
        q, v = self.plan.sample(tick_ns + self.tick_ns)
        command = self._stream.follow(tick_ns, q, v)
        self.simulation.controller.accept(
            Trajectory(tick_ns, self.simulation.joints, tuple(
                TrajectoryPoint(int(time) - tick_ns, positions, velocities)
                for time, positions, velocities in zip(
                    command.times_ns[1:], command.positions[1:], command.velocities[1:]))),
            tick_ns)
        self._keep(tick_ns + self.tick_ns, command.positions[1])

    def _keep(self, due_ns: int, positions: np.ndarray) -> None:
        self.executed.add(due_ns, positions)
        self.commands.append((due_ns, positions))

    def _step_to(self, time_ns: int) -> None:
        ahead_ns = time_ns - self.now_ns
        if ahead_ns > _NEAR_NS:
            self.simulation.step(ahead_ns / NANOSECONDS)
