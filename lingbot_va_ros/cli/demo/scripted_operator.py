"""Scripted operator that takes over a wipe, makes one stroke and gives the arm back; no ROS."""

from enum import Enum

import numpy as np

from lingbot_va_ros.motion.plan import Plan, resting_at
from lingbot_va_ros.motion.splice import plan_from_actions
from lingbot_va_ros.mux.modes import MuxMode
from lingbot_va_ros.sim.experts import commands_along, path_from, PERIOD
from lingbot_va_ros.sim.experts.wipe_plate import wipe_once
from lingbot_va_ros.sim.scenes.wipe_plate import WipePlateScene
from lingbot_va_ros.sim.simulation import Simulation

FAR_SIDE = 0.03  # m from the center of the plate, beyond which a stroke has been counted
# rad/s or m/s: below SLOW the operator takes over, below STILL the stroke begins. Braking a fast
# arm moves it back and forth above the plate, which resembles a stroke.
SLOW, STILL = 0.3, 0.05
COUNT_DELAY_NS = 300_000_000  # the simulator publishes its counts 5 times a second
Step = tuple[Plan | None, MuxMode | None]  # plan to send and mode to request


class Phase(Enum):
    """Phase of the takeover; the value is its description."""

    WATCHING = 'watching'
    TAKING = 'taking the arm'
    RESTING = 'letting the arm come to rest'
    WIPING = 'wiping once'
    GIVING_BACK = 'giving the arm back'
    DONE = 'done'


class ScriptedOperator:
    """
    Takes over after a number of strokes, makes the next one, and gives the arm back.

    The takeover begins when the sponge is slow at the end of a stroke. If the mux takes the arm
    away from the operator, the operator watches and tries again until one stroke has been counted.
    Set `strokes` and `mode`, call `measured`, and call `step` at a steady rate.

    :param simulation: of the same task and seed as the robot's; it has the position of the plate.
    :param after: number of strokes by the policy before the takeover.
    :raises ValueError: the task of the simulation is another one.
    """

    def __init__(self, simulation: Simulation, after: int):
        if not isinstance(simulation.scene, WipePlateScene):
            raise ValueError(f'task: {simulation.task!r} has no plate; expected wipe_plate')
        self.doing = Phase.WATCHING
        self.strokes = 0
        self.mode: MuxMode | None = None
        self._simulation = simulation
        self._scene = simulation.scene
        self._after = after
        self._q = self._v = np.empty(0)  # before the first measurement
        self._plan: Plan | None = None
        self._strokes_before = 0
        self._interrupted_ns: int | None = None

    def measured(self, positions: np.ndarray, velocities: np.ndarray) -> None:
        """Set joint positions and velocities, both [J], rad (m for grippers) and per second."""
        self._q, self._v = np.array(positions, float), np.array(velocities, float)

    def step(self, now_ns: int) -> Step:
        """
        Advance by one tick.

        :returns: the plan whose remainder must be sent now, and the mode to request; or None.
        """
        if not self._q.size or self.mode is None:
            return None, None
        if self.doing in (Phase.RESTING, Phase.WIPING) and self.mode != MuxMode.TELEOP:
            self.doing, self._plan = Phase.WATCHING, None  # the arm was taken away
            self._interrupted_ns = now_ns
        return getattr(self, f'_{self.doing.name.lower()}')(now_ns)

    def _watching(self, now_ns: int) -> Step:
        if self._interrupted_ns is not None:
            # The stroke may have counted before.
            if self.strokes > self._strokes_before:
                self.doing = Phase.DONE
            elif now_ns > self._interrupted_ns + COUNT_DELAY_NS:
                self._interrupted_ns = None
        elif (self.mode == MuxMode.POLICY and self.strokes >= self._after
                and self.stroke_is_over() and np.abs(self._v).max() < SLOW):
            self.doing = Phase.TAKING
        return None, None

    def _taking(self, now_ns: int) -> Step:
        if self.mode == MuxMode.TELEOP:
            self.doing = Phase.RESTING
            return self._plan, None
        if self.mode != MuxMode.POLICY:
            self.doing, self._plan = Phase.WATCHING, None
            return None, None
        # Hold the current position, so that the arm does not move when the mode changes.
        self._plan = resting_at(now_ns, self._q)
        return self._plan, MuxMode.TELEOP

    def _resting(self, now_ns: int) -> Step:
        if np.abs(self._v).max() < STILL:
            self._strokes_before = self.strokes
            self._plan = self._stroke(now_ns)
            self.doing = Phase.WIPING
        return self._plan, None

    def _stroke(self, now_ns: int) -> Plan:
        # The mode may have changed before a plan was made; start at the measured position then.
        start = self._q if self._plan is None else self._plan.positions[-1]
        path = path_from(self._simulation, start)
        wipe_once(self._scene, path)
        commands = commands_along(self._simulation, path, start)
        limits = self._simulation.embodiment.limits
        plan, _ = plan_from_actions(start, commands, PERIOD, now_ns, limits.velocity)
        return plan

    def _wiping(self, now_ns: int) -> Step:
        arrived = self._plan is not None and now_ns > self._plan.end_ns
        if arrived and self.strokes > self._strokes_before:
            self.doing = Phase.GIVING_BACK
        return self._plan, None

    def _giving_back(self, now_ns: int) -> Step:
        if self.mode != MuxMode.TELEOP:  # POLICY, or another mode that leads to it
            self.doing, self._plan = Phase.DONE, None
            return None, None
        return self._plan, MuxMode.POLICY

    def _done(self, now_ns: int) -> Step:
        return None, None

    def stroke_is_over(self) -> bool:
        """Return whether the sponge is where strokes end, or no stroke has begun."""
        # From the center of the plate.
        distance = -self._scene.mirror * (self._place()[1] - self._scene.plate[1])
        return distance > FAR_SIDE or self.strokes == 0

    def _place(self) -> np.ndarray:
        return path_from(self._simulation, self._q).start[:3]
