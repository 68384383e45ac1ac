"""The plan: an immutable joint motion with absolute times that always ends at rest."""

from dataclasses import dataclass
import math

import numpy as np

from lingbot_va_ros.motion.time import NANOSECONDS

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

    def since(self, time_ns: int, knot_ns: int) -> 'Plan':
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
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def resting_at(time_ns: int, q: np.ndarray, v: np.ndarray | None = None) -> Plan:
    """Return a plan with one knot."""
    q = np.array(q, dtype=np.float64)
    v = np.zeros_like(q) if v is None else np.array(v, dtype=np.float64)
    return Plan(np.array([time_ns], dtype=np.int64), q[None], v[None])
