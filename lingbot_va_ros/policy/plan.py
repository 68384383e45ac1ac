"""The plan: an immutable joint motion with absolute times that always ends at rest."""

import math
import threading
from dataclasses import dataclass
from typing import Callable, Optional, Tuple

import numpy as np

NANOSECONDS = 1_000_000_000
# Peak speed of a cubic from rest to rest over its mean speed.
CUBIC_PEAK = 1.5
SHORTEST_STOP = 1e-3  # seconds; below it the arm rests already


@dataclass(frozen=True)
class MotionLimits:
    """What the joints may do: four arrays [J] float64 in rad and s (m for prismatic joints)."""

    lower: np.ndarray
    upper: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray


@dataclass(frozen=True)
class Plan:
    """
    Knots of a motion of all joints; between them it is a cubic Hermite spline, outside it rests.

    :param times_ns: [n] int64, ROS time in nanoseconds, strictly increasing.
    :param positions: [n, J] float64, rad (m for prismatic joints), in the embodiment's order.
    :param velocities: [n, J] float64.
    """

    times_ns: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray

    @property
    def end_ns(self) -> int:
        """The time of the last knot."""
        return int(self.times_ns[-1])

    def sample(self, time_ns: int) -> Tuple[np.ndarray, np.ndarray]:
        """Return positions and velocities, each [J], at a time."""
        after = int(np.searchsorted(self.times_ns, time_ns, side='right'))
        if after == 0:
            return self.positions[0], np.zeros_like(self.positions[0])
        if after == len(self.times_ns):
            at_end = time_ns == self.times_ns[-1]
            rest = np.zeros_like(self.positions[-1])
            return self.positions[-1], self.velocities[-1] if at_end else rest
        span = float(self.times_ns[after] - self.times_ns[after - 1]) / NANOSECONDS
        u = float(time_ns - self.times_ns[after - 1]) / NANOSECONDS / span
        q0, q1 = self.positions[after - 1], self.positions[after]
        m0, m1 = self.velocities[after - 1] * span, self.velocities[after] * span
        way = q1 - q0
        position = q0 + u * (m0 + u * (3 * way - 2 * m0 - m1 + u * (m0 + m1 - 2 * way)))
        velocity = (m0 + u * (6 * way - 4 * m0 - 2 * m1 + 3 * u * (m0 + m1 - 2 * way))) / span
        return position, velocity

    def led_to(self, time_ns: int, q: np.ndarray, v: np.ndarray) -> 'Plan':
        """
        Return the plan with a lead from (q, v) at `time_ns` to its first knot.

        A plan that has begun by then needs no lead and is returned as it is.
        """
        if time_ns >= self.times_ns[0]:
            return self
        return Plan(
            np.concatenate([[time_ns], self.times_ns]).astype(np.int64),
            np.concatenate([q[None], self.positions]),
            np.concatenate([v[None], self.velocities]))

    def _since(self, time_ns: int, knot_ns: int) -> 'Plan':
        """
        Return a copy without the knots before `time_ns`, which must lie before the last one.

        It has a knot at `knot_ns` if that lies in its last stretch or behind its end.
        """
        kept = self.times_ns >= time_ns
        times, positions = self.times_ns[kept], self.positions[kept]
        velocities = self.velocities[kept]
        place = int(np.searchsorted(times, knot_ns))
        if place >= len(times) - 1 and knot_ns != times[-1]:
            position, velocity = self.sample(knot_ns)
            times = np.insert(times, place, knot_ns)
            positions = np.insert(positions, place, position, 0)
            velocities = np.insert(velocities, place, velocity, 0)
        return Plan(times, positions, velocities)

    def remainder(
        self, now_ns: int, period: float, rest: float = 0.5,
    ) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        Return what is still to come of a plan that ends at rest, for one message.

        The first point is one period ahead (up to half of one more where the plan ends there), the
        following ones are the knots; the last position is repeated `rest` seconds later, so that a
        message that is delayed on its way is not yet past.

        :returns: seconds from `now_ns` [m] > 0, positions [m, J], velocities [m, J] (last row 0).
        """
        ahead = (self.times_ns - now_ns) / NANOSECONDS
        later = ahead > 1.5 * period
        # Ending soon, it ends with its first point: a last point with a speed of its own would
        # overshoot on its way to the repeated position.
        first = period if later.any() else max(period, float(ahead[-1]))
        position, velocity = self.sample(now_ns + round(first * NANOSECONDS))
        times = np.concatenate(([first], ahead[later]))
        positions = np.concatenate((position[None], self.positions[later], self.positions[-1:]))
        velocities = np.concatenate((velocity[None], self.velocities[later]))
        return (
            np.append(times, times[-1] + rest), positions,
            np.concatenate((velocities, np.zeros_like(velocities[:1]))))

    def braked(self, now_ns: int, limits: MotionLimits) -> 'Plan':
        """
        Return a stop from where the plan is at `now_ns`.

        All joints slow down evenly and rest together, inside the acceleration limits (the cubic
        between the two knots is exactly that parabola). A plan may ask for more speed than the
        arm is let have; the stop begins at no more than the arm can have. Where a joint would come
        to rest outside its position limits all stop harder: a stop must never be refused.
        """
        position, velocity = self.sample(now_ns)
        velocity = np.clip(velocity, -limits.velocity, limits.velocity)
        speed = np.abs(velocity)
        room = np.maximum(np.where(
            velocity > 0, limits.upper - position, position - limits.lower), 0.0)
        moving = speed > 1e-9  # slower than that, no stop leads anywhere
        duration = min(
            float(np.max(speed / limits.acceleration, initial=0.0)),
            float(np.min(2 * room[moving] / speed[moving], initial=np.inf)))
        if duration < SHORTEST_STOP:
            return resting_at(now_ns, position)
        rest = position + velocity * duration / 2
        return Plan(
            np.array([now_ns, now_ns + math.ceil(duration * NANOSECONDS)], np.int64),
            np.stack((position, rest)), np.stack((velocity, np.zeros_like(velocity))))


def resting_at(time_ns: int, q: np.ndarray, v: Optional[np.ndarray] = None) -> Plan:
    """Return a plan with one knot."""
    q = np.array(q, dtype=np.float64)
    v = np.zeros_like(q) if v is None else np.array(v, dtype=np.float64)
    return Plan(np.array([time_ns], dtype=np.int64), q[None], v[None])


def plan_from_actions(
    start: np.ndarray, actions: np.ndarray, period: float, now_ns: int, max_velocity: np.ndarray,
    lead: float = 0.0,
) -> Tuple[Plan, int]:
    """
    Return the plan that goes from rest at `start` through a chunk's actions to rest at the last.

    Action i is due `i * period` after the first; the way from `start` to the first action takes at
    least `lead`, longer where a joint's speed limit asks for it. Velocities are those of a
    monotone cubic (Fritsch and Carlson 1980): positions never leave the range of neighbouring
    actions.

    :param start: [J]; `actions` [n, J] joint positions.
    :param period: seconds between actions.
    :param max_velocity: [J], used for the way to the first action only.
    :param lead: seconds; 0 for one period.
    :returns: the plan, and the ROS time in nanoseconds when the first action is due.
    """
    lead = max(lead or period, _shortest_lead(start, actions[0], max_velocity))
    seconds = np.concatenate(([0.0], lead + period * np.arange(len(actions))))
    times_ns = now_ns + np.round(seconds * NANOSECONDS).astype(np.int64)
    positions = np.concatenate((start[None], actions)).astype(np.float64)
    plan = Plan(times_ns, positions, _monotone_velocities(seconds, positions))
    return plan, int(times_ns[1])


def continued(
    plan: Plan, actions: np.ndarray, period: float, now_ns: int, reaction: float,
    max_velocity: np.ndarray, since_ns: int = 0,
) -> Tuple[Plan, int]:
    """
    Return a plan that goes on after its last knot through a further chunk, to rest at its last.

    The first action is due one period after the last knot, which is now passed at speed: at the
    velocity that a monotone cubic has there, from the neighbours on both sides. Where the motion
    is already coming to rest at the last knot, it is led on from where it will be in `reaction`
    seconds: the less of its way is left, the slower it passes. A chunk that comes after the end
    begins from rest: its first action is due when it would have been where at least half a period
    is left and enough for the way to it, else everything of it is later by the delay (`resumed`).

    A chunk that is in time cannot take longer to its first action: a joint that lies further off
    than its speed limit lets it go approaches the actions at that limit until it has reached one,
    and keeps to them from there on.

    :param plan: at rest at its last knot.
    :param actions: [n, J] joint positions.
    :param period: seconds between actions.
    :param now_ns: ROS time; what the plan says before `reaction` seconds later is not changed.
    :param max_velocity: [J], used for the way to the first actions only.
    :param since_ns: knots before this time are left out.
    :returns: the plan, and the ROS time in nanoseconds when the first action is due.
    """
    seam_ns, heard_ns = plan.end_ns, now_ns + round(reaction * NANOSECONDS)
    if heard_ns > seam_ns - SHORTEST_STOP * NANOSECONDS:
        start_ns = max(heard_ns, seam_ns)
        lead = period - (start_ns - seam_ns) / NANOSECONDS
        if lead >= max(period / 2, _shortest_lead(plan.positions[-1], actions[0], max_velocity)):
            return resumed(plan, actions, period, start_ns, max_velocity, since_ns, lead)
        return resumed(plan, actions, period, now_ns, max_velocity, since_ns)
    kept = plan._since(since_ns, heard_ns)
    rows = _approached(plan.positions[-1], actions, max_velocity * period / CUBIC_PEAK)
    ahead = np.arange(1, len(rows) + 1) * period
    seconds = np.concatenate(((kept.times_ns[-2:] - seam_ns) / NANOSECONDS, ahead))
    velocities = _monotone_velocities(seconds, np.concatenate((kept.positions[-2:], rows)))
    kept.velocities[-1] = velocities[1]
    due_ns = seam_ns + np.round(ahead * NANOSECONDS).astype(np.int64)
    return _joined(kept, due_ns, rows, velocities[2:]), int(due_ns[0])


def resumed(
    plan: Plan, actions: np.ndarray, period: float, now_ns: int, max_velocity: np.ndarray,
    since_ns: Optional[int] = None, lead: float = 0.0,
) -> Tuple[Plan, int]:
    """
    Return a plan that comes to its end and goes on from rest there through a chunk.

    A plan that still moves, a stop above all, is carried out first: a chunk that began from the
    middle of it would break its speed off.

    :param since_ns: knots before this time are left out; by default those that are past.
    :param lead: see `plan_from_actions`.
    :returns: see `continued`.
    """
    start_ns = max(now_ns, plan.end_ns)
    if since_ns is None:
        since_ns = int(plan.times_ns[max(0, np.searchsorted(plan.times_ns, now_ns, 'right') - 1)])
    kept = plan._since(since_ns, start_ns)
    later, due_ns = plan_from_actions(
        plan.positions[-1], actions, period, start_ns, max_velocity, lead)
    return _joined(kept, later.times_ns[1:], later.positions[1:], later.velocities[1:]), due_ns


def _joined(
    plan: Plan, times_ns: np.ndarray, positions: np.ndarray, velocities: np.ndarray,
) -> Plan:
    return Plan(
        np.concatenate((plan.times_ns, times_ns)), np.concatenate((plan.positions, positions)),
        np.concatenate((plan.velocities, velocities)))


def _shortest_lead(start: np.ndarray, action: np.ndarray, max_velocity: np.ndarray) -> float:
    """Return the seconds that a cubic from rest to rest needs."""
    return float(np.max(np.abs(action - start) / max_velocity, initial=0.0)) * CUBIC_PEAK


def _approached(start: np.ndarray, actions: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Return actions [n, J], approached from `start` by at most `most` [J] until one is met."""
    rows, at = np.array(actions, np.float64), start
    there = np.zeros(len(start), bool)
    for row in rows:
        there |= np.abs(row - at) <= most
        row[:] = at = np.where(there, row, at + np.clip(row - at, -most, most))
    return rows


def _monotone_velocities(times: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return the velocities [n, J] of a monotone cubic; at rest at both ends."""
    steps = np.diff(times)[:, None]
    slopes = np.diff(positions, axis=0) / steps
    velocities = np.zeros_like(positions)
    before, after = slopes[:-1], slopes[1:]
    h0, h1 = steps[:-1], steps[1:]
    same_way = before * after > 0
    weight0, weight1 = 2 * h1 + h0, h1 + 2 * h0
    with np.errstate(divide='ignore', invalid='ignore', over='ignore'):
        harmonic = (weight0 + weight1) / (weight0 / before + weight1 / after)
    velocities[1:-1] = np.where(same_way, harmonic, 0.0)
    return velocities


class PlanSlot:
    """
    The one place where the present plan and epoch live; swaps are atomic.

    The lock is held for a swap or a look, never while anything is computed or waited for.

    :param clock: returns ROS time in nanoseconds.
    """

    def __init__(self, clock: Callable[[], int]):
        self._clock = clock
        self._lock = threading.Lock()
        self._limits: Optional[MotionLimits] = None
        self._plan: Optional[Plan] = None
        self._epoch = 0

    @property
    def epoch(self) -> int:
        """The present epoch."""
        return self._epoch

    def begin(self, limits: Optional[MotionLimits] = None) -> None:
        """Begin epoch 1, without a plan; `limits` may follow by `set_limits`."""
        with self._lock:
            self._epoch, self._plan, self._limits = 1, None, limits

    def set_limits(self, limits: MotionLimits) -> None:
        """Set what a stop must keep; needed before the first plan."""
        with self._lock:
            self._limits = limits

    def look(self) -> Tuple[Optional[Plan], int]:
        """Return the plan and the ROS time in ns at which it was the present one."""
        with self._lock:
            return self._plan, self._clock()

    def put(self, plan: Plan, epoch: int, then: Callable[[], None] = lambda: None) -> bool:
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

    def tell(self, epoch: int, then: Callable[[], None]) -> bool:
        """Call `then` under the lock unless the epoch has passed; must be quick."""
        with self._lock:
            if epoch == self._epoch:
                then()
            return epoch == self._epoch

    def stop(self, new_epoch: bool = False) -> Tuple[Optional[Plan], int]:
        """Replace the plan by a stop, in a new epoch where asked; return it and the ROS time."""
        with self._lock:
            self._epoch += new_epoch
            now = self._clock()
            if self._plan is not None:
                self._plan = self._plan.braked(now, self._limits)
            return self._plan, now

    def clear(self) -> None:
        """Drop the plan."""
        with self._lock:
            self._plan = None
