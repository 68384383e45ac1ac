"""Defines the plan: an immutable joint motion with absolute times."""

from dataclasses import dataclass
import math

import numpy as np

from lingbot_va_ros.motion.time import NANOSECONDS

SHORTEST_STOP = 1e-3  # seconds; a shorter stop is a rest
# Between knots nearer than this (ns) rounding spoils the spline; what it leaves out nobody sees.
NEAREST_KNOTS_NS = 10_000


@dataclass(frozen=True)
class MotionLimits:
    """Position, velocity and acceleration limits: [J] float64 in rad and s (prismatic: m)."""

    lower: np.ndarray
    upper: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray

    def at_rate(self, rate: float) -> 'MotionLimits':
        """Return the limits of a motion that is executed at a rate of its own time."""
        return MotionLimits(
            self.lower, self.upper, self.velocity / rate, self.acceleration / rate ** 2)


@dataclass(frozen=True)
class Plan:
    """
    A motion of all joints: a cubic Hermite spline between knots, at rest before and after.

    :param times_ns: [n] int64, ROS time in nanoseconds, strictly increasing.
    :param positions: [n, J] float64, rad (m for prismatic joints), in the embodiment's order.
    :param velocities: [n, J] float64, rad/s (m/s).
    """

    times_ns: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray

    @property
    def end_ns(self) -> int:
        """The time of the last knot."""
        return int(self.times_ns[-1])

    def sample(self, time_ns: int) -> tuple[np.ndarray, np.ndarray]:
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

    def positions_at(self, times_ns: np.ndarray) -> np.ndarray:
        """Return the positions [n, J] at times [n] that increase, each as `sample` gives it."""
        known = self.times_ns
        if len(known) == 1:
            return np.repeat(self.positions, len(times_ns), axis=0)
        after = np.clip(np.searchsorted(known, times_ns, side='right'), 1, len(known) - 1)
        before = after - 1
        span = ((known[after] - known[before]) / NANOSECONDS)[:, None]
        u = ((times_ns - known[before]) / NANOSECONDS)[:, None] / span
        q0, q1 = self.positions[before], self.positions[after]
        m0, m1 = self.velocities[before] * span, self.velocities[after] * span
        way = q1 - q0
        q = q0 + u * (m0 + u * (3 * way - 2 * m0 - m1 + u * (m0 + m1 - 2 * way)))
        q[times_ns < known[0]] = self.positions[0]
        q[times_ns >= known[-1]] = self.positions[-1]
        return np.asarray(q)

    def fastest(self, begin_ns: int, end_ns: int) -> np.ndarray:
        """Return the largest speed [J] of each joint in the intervals that a span touches."""
        first = max(0, int(np.searchsorted(self.times_ns, begin_ns, 'right')) - 1)
        last = int(np.searchsorted(self.times_ns, end_ns, 'left')) + 1
        times, q = self.times_ns[first:last], self.positions[first:last]
        if len(times) < 2:
            return np.zeros(self.positions.shape[1])
        span = np.diff(times)[:, None] / NANOSECONDS
        v0, v1 = self.velocities[first:last][:-1], self.velocities[first:last][1:]
        # The velocity is a parabola: its extremes are the ends, and the vertex if it lies within.
        linear, square = 6 * np.diff(q, axis=0) / span - 4 * v0 - 2 * v1, (
            3 * (v0 + v1) - 6 * np.diff(q, axis=0) / span)
        with np.errstate(divide='ignore', invalid='ignore'):
            vertex = -linear / (2 * square)
        inside = (vertex > 0) & (vertex < 1)
        u = np.where(inside, vertex, 0.0)
        speeds = np.abs(np.stack((v0, v1, v0 + u * (linear + u * square))))
        return np.asarray(speeds.max(axis=(0, 1)))

    def bend(self, time_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """
        Return accelerations and jerks, each [J], of the spline up to a time.

        They are those of the interval that ends at or after the time; at rest they are 0.
        """
        after = int(np.searchsorted(self.times_ns, time_ns, side='left'))
        if after in (0, len(self.times_ns)):
            rest = np.zeros_like(self.positions[0])
            return rest, rest
        span = float(self.times_ns[after] - self.times_ns[after - 1]) / NANOSECONDS
        u = float(time_ns - self.times_ns[after - 1]) / NANOSECONDS / span
        m0, m1 = self.velocities[after - 1] * span, self.velocities[after] * span
        way = self.positions[after] - self.positions[after - 1]
        jerk = 6 * (m0 + m1 - 2 * way)
        return (6 * way - 4 * m0 - 2 * m1 + jerk * u) / span ** 2, jerk / span ** 3

    def led_to(self, time_ns: int, q: np.ndarray, v: np.ndarray) -> 'Plan':
        """
        Return the plan with one more knot in front: positions `q` and velocities `v`, each [J].

        A plan that has begun by `time_ns` is returned unchanged.
        """
        if time_ns >= self.times_ns[0]:
            return self
        return Plan(
            np.concatenate([[time_ns], self.times_ns]).astype(np.int64),
            np.concatenate([q[None], self.positions]),
            np.concatenate([v[None], self.velocities]))

    def from_time(self, time_ns: int) -> 'Plan':
        """Return what is left of the plan from a time on, at which a knot stands."""
        q, v = self.sample(time_ns)
        # A knot next to that one would spoil the spline by rounding.
        kept = self.times_ns > time_ns + NEAREST_KNOTS_NS
        return Plan(
            np.concatenate(([time_ns], self.times_ns[kept])).astype(np.int64),
            np.concatenate((q[None], self.positions[kept])),
            np.concatenate((v[None], self.velocities[kept])))

    def followed_by(self, later: 'Plan') -> 'Plan':
        """Return the plan until another begins, which goes on from the state at that time."""
        kept = self.times_ns < later.times_ns[0] - NEAREST_KNOTS_NS
        return Plan(
            np.concatenate((self.times_ns[kept], later.times_ns)),
            np.concatenate((self.positions[kept], later.positions)),
            np.concatenate((self.velocities[kept], later.velocities)))

    def since(self, time_ns: int, knot_ns: int) -> 'Plan':
        """
        Return a copy without the knots before `time_ns`, which must lie before the last knot.

        A knot is added at `knot_ns` if that lies in the last interval or after the end.
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
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        Return the future part of a plan that ends at rest, as the points of one message.

        The first point is one period ahead, or up to one and a half periods where the plan ends
        there. The other points are the knots. The last position is repeated `rest` seconds later,
        so that a controller does not reject a delayed message as past.

        :param period: seconds.
        :returns: seconds from `now_ns` [m] > 0, positions [m, J], velocities [m, J] (last row 0).
        """
        ahead = (self.times_ns - now_ns) / NANOSECONDS
        later = ahead > 1.5 * period
        # A plan that ends soon ends with its first point: a last point at speed would overshoot on
        # the way to the repeated position.
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
        Return a stop that begins at the plan's state at `now_ns`.

        All joints decelerate at constant rates and rest at the same time, within the acceleration
        limits (the cubic between the two knots is exactly that parabola). The initial velocity is
        clipped to the velocity limits, which a plan may exceed. Where a joint would come to rest
        outside its position limits, all joints stop harder: a stop must never be rejected.
        """
        position, velocity = self.sample(now_ns)
        velocity = np.clip(velocity, -limits.velocity, limits.velocity)
        speed = np.abs(velocity)
        room = np.maximum(np.where(
            velocity > 0, limits.upper - position, position - limits.lower), 0.0)
        moving = speed > 1e-9  # slower joints do not move noticeably
        duration = min(
            float(np.max(speed / limits.acceleration, initial=0.0)),
            float(np.min(2 * room[moving] / speed[moving], initial=np.inf)))
        if duration < SHORTEST_STOP:
            return resting_at(now_ns, position)
        rest = position + velocity * duration / 2
        return Plan(
            np.array([now_ns, now_ns + math.ceil(duration * NANOSECONDS)], np.int64),
            np.stack((position, rest)), np.stack((velocity, np.zeros_like(velocity))))


def resting_at(time_ns: int, q: np.ndarray, v: np.ndarray | None = None) -> Plan:
    """Return a plan with one knot: positions `q` [J] and velocities `v` [J], by default 0."""
    q = np.array(q, dtype=np.float64)
    v = np.zeros_like(q) if v is None else np.array(v, dtype=np.float64)
    return Plan(np.array([time_ns], dtype=np.int64), q[None], v[None])
