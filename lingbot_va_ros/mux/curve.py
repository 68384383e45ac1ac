"""Curves: joint motions of piecewise constant jerk, and the spline knots that repeat them."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lingbot_va_ros.motion.plan import NEAREST_KNOTS_NS
from lingbot_va_ros.motion.time import NANOSECONDS

NEAREST_KNOTS = NEAREST_KNOTS_NS / NANOSECONDS  # s

# Positions, velocities and accelerations [J], or [n, J] where n times were asked for.
State = tuple[np.ndarray, np.ndarray, np.ndarray]


class Curve(Protocol):
    """A motion of all joints [J] that begins at time 0, s; its acceleration is continuous."""

    @property
    def switches(self) -> np.ndarray:
        """Times [n] at which the jerk of a joint changes, s, in any order."""

    def at(self, times: np.ndarray) -> State:
        """Return positions, velocities and accelerations [n, J] at times [n], s."""


@dataclass(frozen=True)
class Blend:
    """
    Lies between two curves. What both keep, each limit that is convex, the blend keeps too.

    :param share: 0 is `begin`, 1 is `end`; a number, or [J], one for each joint.
    """

    begin: Curve
    end: Curve
    share: np.ndarray | float

    @property
    def switches(self) -> np.ndarray:
        """The switches of both."""
        return np.concatenate((self.begin.switches, self.end.switches))

    def at(self, times: np.ndarray) -> State:
        """Return positions, velocities and accelerations [n, J] at times [n], s."""
        share = self.share
        q, v, a = ((1.0 - share) * one + share * other for one, other in zip(
            self.begin.at(times), self.end.at(times), strict=True))
        return q, v, a


def end_state(curve: Curve, seconds: float) -> State:
    """Return positions, velocities and accelerations [J] of a curve at one time, s."""
    q, v, a = curve.at(np.array([seconds]))
    return q[0], v[0], a[0]


def knot_times(switches: np.ndarray, end: float) -> np.ndarray:
    """
    Return the times [n] of the knots of a curve, s: increasing, above 0, the last is `end`.

    Between two such times each joint has one jerk, so that the cubic between two knots is the
    curve itself. All are whole nanoseconds: a joint is elsewhere half a nanosecond later, far
    enough to spoil the cubic between near knots.
    """
    times = np.sort(switches[(switches > NEAREST_KNOTS) & (switches < end - NEAREST_KNOTS)])
    if times.size > 1:
        kept = [times[0]]
        for time in times[1:]:
            if time - kept[-1] >= NEAREST_KNOTS:
                kept.append(time)
        times = np.array(kept)
    return np.asarray(np.rint(np.append(times, end) * NANOSECONDS) / NANOSECONDS)
