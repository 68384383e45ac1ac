"""Held joints: those that controllers and drivers want in every message, and nothing moves."""

from collections.abc import Sequence
from dataclasses import replace
import threading

import numpy as np

from lingbot_va_ros.motion.plan import Plan
from lingbot_va_ros.mux.report import Row, Tick
from lingbot_va_ros.robot.joint_state_filter import JointStateFilter
from lingbot_va_ros.specs.embodiment import Embodiment, JointLimits

# A held joint may be so far from where it is held, rad or m. Nearer, it is not sent elsewhere.
TOLERANCE = 0.02
# Of the filter of joint states; held joints stand still.
ACCELERATION = 10.0


class HeldJoints:
    """
    Appends the held joints to what is sent; for any thread.

    Each is held where it was measured when the mux began to send, so that it never moves.

    :param timeout: seconds after which a joint without one of its own counts as lost.
    """

    def __init__(self, embodiment: Embodiment, timeout: float) -> None:
        held = embodiment.held_joints
        count = len(held)
        self.names = [joint.name for joint in held]
        self._expected = np.array([
            np.nan if joint.position is None else joint.position for joint in held])
        self._filter = JointStateFilter(self.names, JointLimits(
            lower=np.array([joint.lower for joint in held]),
            upper=np.array([joint.upper for joint in held]),
            velocity=np.array([joint.velocity for joint in held]),
            acceleration=np.full(count, ACCELERATION), jerk=np.full(count, ACCELERATION)),
            timeout, embodiment.joint_states)
        self._places = np.full(count, np.nan)  # where they are held; nan: nowhere yet
        self._sends = False
        self._lock = threading.Lock()

    def update(
        self, names: Sequence[str], positions: Sequence[float], stamp_ns: int, now_ns: int,
        now_s: float,
    ) -> None:
        """Take one joint state; see `JointStateFilter.update`."""
        if self.names:
            with self._lock:
                self._filter.update(names, positions, (), stamp_ns, now_ns, now_s)

    def forget(self) -> None:
        """Count every joint as never received, after a clock jump."""
        with self._lock:
            self._filter.forget()

    def faults(self, now_s: float) -> list[str]:
        """Return why nothing may move, a line each."""
        if not self.names:
            return []
        with self._lock:
            missing = self._filter.missing(now_s)
            if missing:
                return missing
            places = self._places if self._sends else self._expected
            measured = self._filter.positions
            return [
                f"held joint '{name}' at {place:.3f} (it is at {position:.3f})"
                for name, place, position in zip(self.names, places, measured, strict=True)
                if abs(position - place) > TOLERANCE]  # nan: False

    def extend(self, tick: Tick) -> Tick:
        """
        Return what to send with the held joints behind the others; nan: where one is unknown.

        For the thread of the ticks.
        """
        if not self.names:
            return tick
        sends = tick.command is not None or tick.row is not None
        with self._lock:
            if sends and not self._sends:
                self._begin()
            self._sends = sends
            places = self._places.copy()
        return replace(
            tick, command=None if tick.command is None else _extended_plan(tick.command, places),
            row=None if tick.row is None else _extended_row(tick.row, places))

    def _begin(self) -> None:
        """Hold each joint where it is; one that is where it was held stays held there."""
        if self._filter.is_known:
            measured = self._filter.positions
            keeps = np.abs(measured - self._places) <= TOLERANCE  # nan: False
            self._places = np.where(keeps, self._places, measured)


def _extended_plan(plan: Plan, places: np.ndarray) -> Plan:
    rows = np.tile(places, (len(plan.times_ns), 1))
    return Plan(
        plan.times_ns, np.hstack((plan.positions, rows)),
        np.hstack((plan.velocities, np.zeros_like(rows))))


def _extended_row(row: Row, places: np.ndarray) -> Row:
    still = np.zeros(len(places))
    return Row(
        row.time_ns, np.append(row.positions, places), np.append(row.velocities, still),
        np.append(row.rates, still))
