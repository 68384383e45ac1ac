"""States of joints at one moment, and the spline between two of them."""

from dataclasses import dataclass

import numpy as np

from lingbot_va_ros.motion.time import to_seconds


@dataclass(frozen=True)
class JointMotion:
    """Positions and derivatives of the joints, [J] float64 each; None: not given. SI units."""

    positions: np.ndarray
    velocities: np.ndarray | None = None
    accelerations: np.ndarray | None = None

    def complete(self) -> 'JointMotion':
        """Return the motion with derivatives that were not given set to 0."""
        rest = np.zeros_like(self.positions)
        return JointMotion(
            self.positions, rest if self.velocities is None else self.velocities,
            rest if self.accelerations is None else self.accelerations)


def interpolate(
    a: JointMotion, a_ns: int, b: JointMotion, b_ns: int, now_ns: int) -> JointMotion:
    """
    Return the motion at `now_ns` between a motion at `a_ns` and one at `b_ns`, a later time.

    The positions lie on a line, or where both ends have velocities on the cubic spline, or where
    both also have accelerations on the quintic spline.
    """
    span = to_seconds(b_ns - a_ns)
    t = to_seconds(now_ns - a_ns)
    step = b.positions - a.positions
    if a.velocities is None or b.velocities is None:
        velocity = step / span
        return JointMotion(a.positions + t * velocity, velocity, np.zeros_like(step))
    c3: np.ndarray
    if a.accelerations is None or b.accelerations is None:
        half = (3 * step - (2 * a.velocities + b.velocities) * span) / span**2
        c3 = ((a.velocities + b.velocities) * span - 2 * step) / span**3
        return JointMotion(
            a.positions + t * (a.velocities + t * (half + t * c3)),
            a.velocities + t * (2 * half + t * 3 * c3), 2 * half + t * 6 * c3)
    half = a.accelerations / 2
    # Remaining errors at b after constant acceleration from a.
    p = step - a.velocities * span - half * span**2
    v = (b.velocities - a.velocities - 2 * half * span) * span
    w = (b.accelerations - 2 * half) * span**2 / 2
    c3 = (10 * p - 4 * v + w) / span**3
    c4 = (-15 * p + 7 * v - 2 * w) / span**4
    c5 = (6 * p - 3 * v + w) / span**5
    return JointMotion(
        a.positions + t * (a.velocities + t * (half + t * (c3 + t * (c4 + t * c5)))),
        a.velocities + t * (2 * half + t * (3 * c3 + t * (4 * c4 + t * 5 * c5))),
        2 * half + t * (6 * c3 + t * (12 * c4 + t * 20 * c5)))
