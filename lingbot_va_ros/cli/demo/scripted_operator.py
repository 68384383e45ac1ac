"""A person by script who interrupts a wipe, adds a stroke and gives the arm back; no ROS here."""

from enum import Enum

import numpy as np

from lingbot_va_ros.motion.plan import Plan, resting_at
from lingbot_va_ros.motion.splice import plan_from_actions
from lingbot_va_ros.mux.modes import MuxMode
from lingbot_va_ros.sim.experts import commands_along, path_from, PERIOD
from lingbot_va_ros.sim.experts.wipe_plate import wipe_once
from lingbot_va_ros.sim.simulation import Simulation

FAR_SIDE = 0.03  # m from the middle of the plate: the stroke has counted
# rad/s or m/s: the arm is taken over when it is as slow as that, and wiped with from rest. What it
# takes to brake a fast one leads it to and fro above the plate, which looks like a stroke.
SLOW, STILL = 0.3, 0.05
TOLD_LATE_NS = 300_000_000  # the simulator tells five times a second what it has counted


class Phase(Enum):
    """What the person is doing, in words."""

    WATCHING = 'watching'
    TAKING = 'taking the arm'
    RESTING = 'letting the arm come to rest'
    WIPING = 'wiping once'
    GIVING_BACK = 'giving the arm back'
    DONE = 'done'


class ScriptedOperator:
    """
    Watches until so many strokes have counted and the sponge comes to rest where they end; then
    takes over.

    Whoever has the arm meanwhile has it: where the mux takes it away from the person, the person
    watches again, until one stroke of theirs has counted. Tell `strokes`, `mode` and `measured`;
    call `step` at a steady rate.

    :param simulation: of the same task and seed as the robot's; tells where the plate is.
    :param after: strokes that the policy makes before.
    """

    def __init__(self, simulation: Simulation, after: int):
        self.doing = Phase.WATCHING
        self.strokes = 0
        self.mode: MuxMode | None = None
        self._simulation = simulation
        self._after = after
        self._q: np.ndarray | None = None
        self._v: np.ndarray | None = None
        self._plan: Plan | None = None
        self._strokes_before = 0
        self._interrupted_ns: int | None = None

    def measured(self, positions: np.ndarray, velocities: np.ndarray) -> None:
        """Take where the joints are, both [J], rad (m for grippers) and per second."""
        self._q, self._v = np.array(positions, float), np.array(velocities, float)

    def step(self, now_ns: int) -> tuple[Plan | None, MuxMode | None]:
        """
        Go on by one tick.

        :returns: the plan whose remainder is to be sent now, and the mode to ask for; or None.
        """
        if self._q is None or self.mode is None:
            return None, None
        if self.doing in (Phase.RESTING, Phase.WIPING) and self.mode != MuxMode.TELEOP:
            self.doing, self._plan = Phase.WATCHING, None  # somebody else has taken it away
            self._interrupted_ns = now_ns
        return getattr(self, f'_{self.doing.name.lower()}')(now_ns)

    def _watching(self, now_ns: int):
        if self._interrupted_ns is not None:
            # The stroke may have counted before.
            if self.strokes > self._strokes_before:
                self.doing = Phase.DONE
            elif now_ns > self._interrupted_ns + TOLD_LATE_NS:
                self._interrupted_ns = None
        elif (self.mode == MuxMode.POLICY and self.strokes >= self._after
                and self.stroke_is_over() and np.abs(self._v).max() < SLOW):
            self.doing = Phase.TAKING
        return None, None

    def _taking(self, now_ns: int):
        if self.mode == MuxMode.TELEOP:
            self.doing = Phase.RESTING
            return self._plan, None
        if self.mode != MuxMode.POLICY:
            self.doing, self._plan = Phase.WATCHING, None
            return None, None
        # Where the arm is, so that it is not led anywhere when it changes hands.
        self._plan = resting_at(now_ns, self._q)
        return self._plan, MuxMode.TELEOP

    def _resting(self, now_ns: int):
        if np.abs(self._v).max() < STILL:
            self._strokes_before = self.strokes
            self._plan = self._stroke(now_ns)
            self.doing = Phase.WIPING
        return self._plan, None

    def _stroke(self, now_ns: int) -> Plan:
        start = self._plan.positions[-1]
        path = path_from(self._simulation, start)
        wipe_once(self._simulation.scene, path)
        commands = commands_along(self._simulation, path, start)
        limits = self._simulation.embodiment.limits
        plan, _ = plan_from_actions(start, commands, PERIOD, now_ns, limits.velocity)
        return plan

    def _wiping(self, now_ns: int):
        if now_ns > self._plan.end_ns and self.strokes > self._strokes_before:
            self.doing = Phase.GIVING_BACK
        return self._plan, None

    def _giving_back(self, now_ns: int):
        if self.mode != MuxMode.TELEOP:  # the policy has it, or somebody who will give it the arm
            self.doing, self._plan = Phase.DONE, None
            return None, None
        return self._plan, MuxMode.POLICY

    def _done(self, now_ns: int):
        return None, None

    def stroke_is_over(self) -> bool:
        """Tell whether the sponge is where strokes end, down still or lifted, or all is before."""
        scene = self._simulation.scene
        way = -scene.mirror * (self._place()[1] - scene.plate[1])  # from the middle of the plate
        return way > FAR_SIDE or self.strokes == 0

    def _place(self) -> np.ndarray:
        return path_from(self._simulation, self._q).start[:3]
