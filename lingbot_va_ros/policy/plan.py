"""The plan: an immutable joint motion with absolute times that always ends at rest."""

import threading
from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np

NANOSECONDS = 1_000_000_000
# Peak speed of a cubic from rest to rest over its mean speed.
CUBIC_PEAK = 1.5


@dataclass(frozen=True)
class Plan:
    """
    Knots of a cubic motion of all joints.

    :param start_ns: ROS time of the first knot.
    :param times: [n] float64, seconds since `start_ns`, strictly increasing from 0.
    :param positions: [n, J] float64, rad (m for prismatic joints), in the embodiment's order.
    :param velocities: [n, J] float64, the last row 0.
    """

    start_ns: int
    times: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray

    @property
    def end_ns(self) -> int:
        """ROS time from which the plan rests."""
        return self.start_ns + round(float(self.times[-1]) * NANOSECONDS)

    def seconds_at(self, now_ns: int) -> float:
        """Return a ROS time as seconds since the first knot."""
        return (now_ns - self.start_ns) / NANOSECONDS

    def sample(self, now_ns: int) -> Tuple[np.ndarray, np.ndarray]:
        """Return position and velocity, each [J], at a ROS time; at rest outside the knots."""
        time = self.seconds_at(now_ns)
        if time <= 0:
            return self.positions[0], np.zeros_like(self.velocities[0])
        if time >= self.times[-1]:
            return self.positions[-1], self.velocities[-1]
        knot = int(np.searchsorted(self.times, time, side='right')) - 1
        step = self.times[knot + 1] - self.times[knot]
        s = (time - self.times[knot]) / step
        p0, p1 = self.positions[knot:knot + 2]
        v0, v1 = self.velocities[knot:knot + 2] * step
        position = (
            p0 * (2 * s ** 3 - 3 * s ** 2 + 1) + v0 * (s ** 3 - 2 * s ** 2 + s)
            + p1 * (3 * s ** 2 - 2 * s ** 3) + v1 * (s ** 3 - s ** 2))
        velocity = (
            (p0 - p1) * (6 * s ** 2 - 6 * s) + v0 * (3 * s ** 2 - 4 * s + 1)
            + v1 * (3 * s ** 2 - 2 * s)) / step
        return position, velocity

    def remainder(
        self, now_ns: int, period: float, rest: float = 0.5,
    ) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        Return what is still to come, for one message.

        The first point is one period ahead, the following ones are the knots; behind the end of
        the plan the last position is repeated `rest` seconds later, so that a message that is
        delayed on its way is not yet past.

        :returns: times from `now_ns` [m] > 0, positions [m, J], velocities [m, J] (last row 0).
        """
        now = self.seconds_at(now_ns)
        position, velocity = self.sample(now_ns + round(period * NANOSECONDS))
        later = self.times > now + 1.5 * period
        times = np.concatenate(([period], self.times[later] - now))
        positions = np.concatenate((position[None], self.positions[later]))
        velocities = np.concatenate((velocity[None], self.velocities[later]))
        times = np.append(times, times[-1] + rest)
        if not later.any():  # ending within this period
            positions = np.concatenate((positions, self.positions[-1:]))
        else:
            positions = np.concatenate((positions, positions[-1:]))
        velocities = np.concatenate((velocities, np.zeros_like(velocities[:1])))
        return times, positions, velocities

    def braked(self, now_ns: int, deceleration: np.ndarray) -> 'Plan':
        """
        Return a stop from where the plan is at `now_ns`.

        All joints slow down evenly and rest together; none decelerates by more than its entry of
        `deceleration` [J] (the cubic between the two knots is exactly that parabola).
        """
        position, velocity = self.sample(now_ns)
        duration = float(np.max(np.abs(velocity) / deceleration, initial=0.0))
        if duration < 1e-3:
            return hold(position, now_ns)
        return Plan(
            now_ns, np.array([0.0, duration]),
            np.stack((position, position + velocity * duration / 2)),
            np.stack((velocity, np.zeros_like(velocity))))


def hold(position: np.ndarray, now_ns: int) -> Plan:
    """Return a plan that rests at a position [J]."""
    return Plan(now_ns, np.zeros(1), position[None].copy(), np.zeros((1, len(position))))


def plan_from_actions(
    start: np.ndarray, actions: np.ndarray, period: float, now_ns: int, max_velocity: np.ndarray,
) -> Tuple[Plan, int]:
    """
    Return the plan that goes from rest at `start` through a chunk's actions to rest at the last.

    Action i is due `i * period` after the first; the way from `start` to the first action takes at
    least one period, longer where a joint's speed limit asks for it. Velocities are those of a
    monotone cubic (Fritsch and Carlson 1980): positions never leave the range of neighbouring
    actions.

    :param start: [J]; `actions` [n, J] joint positions.
    :param period: seconds between actions.
    :param max_velocity: [J], used for the way to the first action only.
    :returns: the plan, and the ROS time in nanoseconds when the first action is due.
    """
    far = float(np.max(np.abs(actions[0] - start) / max_velocity, initial=0.0)) * CUBIC_PEAK
    lead = max(period, far)
    times = np.concatenate(([0.0], lead + period * np.arange(len(actions))))
    positions = np.concatenate((start[None], actions)).astype(np.float64)
    plan = Plan(now_ns, times, positions, _monotone_velocities(times, positions))
    return plan, now_ns + round(lead * NANOSECONDS)


def _monotone_velocities(times: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return the velocities [n, J] of a monotone cubic; at rest at both ends."""
    steps = np.diff(times)[:, None]
    slopes = np.diff(positions, axis=0) / steps
    velocities = np.zeros_like(positions)
    before, after = slopes[:-1], slopes[1:]
    h0, h1 = steps[:-1], steps[1:]
    same_way = before * after > 0
    weight0, weight1 = 2 * h1 + h0, h1 + 2 * h0
    with np.errstate(divide='ignore', invalid='ignore'):
        harmonic = (weight0 + weight1) / (weight0 / before + weight1 / after)
    velocities[1:-1] = np.where(same_way, harmonic, 0.0)
    return velocities


class PlanSlot:
    """
    The one place where the present plan and epoch live; swaps are atomic.

    The lock is held for a swap or a look, never while anything is computed or waited for.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._plan: Optional[Plan] = None
        self._epoch = 0

    @property
    def epoch(self) -> int:
        """The present epoch."""
        return self._epoch

    def look(self, clock) -> Tuple[Optional[Plan], int]:
        """Return the plan and the ROS time in ns (`clock()`) at which it was the present one."""
        with self._lock:
            return self._plan, clock()

    def put(self, plan: Optional[Plan], epoch: int, then=lambda: None) -> bool:
        """
        Make a plan the present one unless its epoch has passed.

        :param then: called under the lock if it was put; must be quick.
        """
        with self._lock:
            if epoch != self._epoch:
                return False
            self._plan = plan
            then()
            return True

    def stop(self, clock, deceleration: np.ndarray, new_epoch: bool = False) -> None:
        """Replace the plan by a stop, and begin a new epoch where asked."""
        with self._lock:
            self._epoch += new_epoch
            if self._plan is not None:
                self._plan = self._plan.braked(clock(), deceleration)

    def begin(self) -> None:
        """Begin epoch 1, without a plan."""
        with self._lock:
            self._epoch, self._plan = 1, None

    def clear(self) -> None:
        """Drop the plan."""
        with self._lock:
            self._plan = None
