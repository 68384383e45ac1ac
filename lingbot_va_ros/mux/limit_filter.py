"""
The limit filter: commands that keep position, velocity and acceleration limits, whatever is asked.

Motion is planned on ticks of one period T. Between two ticks the acceleration is constant, so
the positions follow the trapezoidal rule q' = q + (v + v')/2·T, and the cubic that a joint
trajectory controller lays between two such points is that very parabola.
"""

import numpy as np

from lingbot_va_ros.specs.embodiment import JointLimits

# Rounding of sums of positions (rad, m): a stop that ends this far outside is no fault.
ROUNDING = 1e-11


def approach_speed(
    distance: np.ndarray, acceleration: np.ndarray | float, period: float) -> np.ndarray:
    """
    Return the largest speed to have one tick from now that still stops within `distance`.

    It starts from speed 0 in the frame of the goal: the speed w is reached during the tick
    (w·T/2 of the way), then sinks by a·T a tick and by the rest in the last one, and ends in
    exactly 0 without reversing. With w = k·a·T + r (0 ≤ r < a·T) that takes
    a·T²·k(k+1)/2 + (k+1)·r·T, which is solved for w here. Arrays broadcast; distance ≥ 0.
    """
    step = acceleration * period * period
    ticks = np.floor((np.sqrt(1.0 + 8.0 * distance / step) - 1.0) / 2.0)
    rest = (distance - step * ticks * (ticks + 1.0) / 2.0) / ((ticks + 1.0) * period)
    return np.asarray(ticks * acceleration * period + rest)


class LimitFilter:
    """
    Advance (q, v) of all joints [J] tick by tick towards a desired state inside the limits.

    From a state inside the limits no desired state leads out of them: the limits of velocity and
    acceleration hold between any two ticks, and a stop inside the position limits stays possible.
    A start outside the position limits (a measured one) may come back, and goes no further out
    than its speed demands.

    :param period: seconds from tick to tick.
    """

    def __init__(self, limits: JointLimits, period: float) -> None:
        self.limits = limits
        self.period = float(period)
        # Share of the velocity limits, 0 … 1, that holds now; may change at any tick.
        self.speed = 1.0

    def step(
        self, q: np.ndarray, v: np.ndarray, q_desired: np.ndarray, v_desired: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Return (q', v') [J] one tick later; the desired state is that of one tick later.

        A desired motion inside the limits is reached in two ticks and then followed exactly.
        A desired state that is no finite number counts as a stop.
        """
        limits, period = self.limits, self.period
        gain, velocity = limits.acceleration * period, self.speed * limits.velocity
        finite = np.isfinite(q_desired) & np.isfinite(v_desired)
        q_goal = np.clip(np.where(finite, q_desired, q), limits.lower, limits.upper)
        v_goal = np.clip(np.where(finite, v_desired, 0.0), -velocity, velocity)
        # A goal from which no stop inside the position limits is possible is slowed down.
        v_goal = np.clip(
            v_goal, -np.sqrt(2.0 * limits.acceleration * (q_goal - limits.lower)),
            np.sqrt(2.0 * limits.acceleration * (limits.upper - q_goal)))

        miss = q_goal - (q + (v + v_goal) / 2.0 * period)
        wanted = v_goal + np.sign(miss) * approach_speed(
            np.abs(miss), limits.acceleration, period)
        wanted = np.where(finite, wanted, 0.0)

        highest = self._highest(limits.upper - q, v)
        lowest = -self._highest(q - limits.lower, -v)
        wanted = np.minimum(np.maximum(wanted, lowest), highest)
        wanted = np.clip(wanted, -velocity, velocity)
        wanted = np.clip(wanted, v - gain, v + gain)
        return q + (v + wanted) / 2.0 * period, wanted

    def _highest(self, room: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return the highest next velocity with `room` left to the limit in its direction."""
        left = room - v * self.period / 2.0
        acceleration = self.limits.acceleration
        inside = approach_speed(np.maximum(left, 0.0), acceleration, self.period)
        # Outside, or too fast to stop inside: brake, and turn round without a bounce.
        outside = np.where(v > 0.0, np.maximum(v - acceleration * self.period, -v), 0.0)
        return np.where(left >= -ROUNDING, inside, outside)

    def braking_tail(
        self, q: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        Return the stop from (q, v): ticks [n] (int, increasing, ≥ 1), positions and velocities.

        Positions and velocities are [n, J]; the last velocities are exactly 0. n is 0 at rest.
        Each joint brakes at its acceleration limit and by what is left in its last tick. Only
        the ticks at which an acceleration changes are listed.
        """
        q, v = np.asarray(q, dtype=np.float64), np.asarray(v, dtype=np.float64)
        gain = self.limits.acceleration * self.period
        speed = np.abs(v)
        # A remainder from rounding would cost a tick more than the filter needs.
        whole = np.floor(speed / gain + 1e-9)
        rest = np.maximum(speed - whole * gain, 0.0)
        last = whole + (rest > 1e-9 * gain)
        ticks = np.unique(np.concatenate([whole, last])).astype(np.int64)
        ticks = ticks[ticks > 0]
        if not ticks.size:
            if not np.any(v):
                return ticks, np.empty((0, q.size)), np.empty((0, q.size))
            ticks = np.array([1])
        n = ticks[:, None].astype(np.float64)
        braked = np.minimum(n, whole)
        way = (speed * braked - gain * braked ** 2 / 2.0) * self.period
        way = way + np.where(n > whole, rest * self.period / 2.0, 0.0)
        left = np.where(n < last, speed - gain * braked, 0.0)
        sign = np.sign(v)
        return ticks, q + sign * way, sign * left
