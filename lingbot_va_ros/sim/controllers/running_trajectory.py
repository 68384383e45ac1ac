"""A trajectory that a controller follows: where it is joined, and its reference at a time."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lingbot_va_ros.sim.controllers.messages import Trajectory
from lingbot_va_ros.sim.controllers.splines import interpolate, JointMotion


@dataclass(frozen=True)
class Knot:
    """A point of a trajectory in the controller's joint order, at a time after its start, ns."""

    after_ns: int
    motion: JointMotion


@dataclass(frozen=True)
class Sample:
    """
    The reference of a trajectory at a time.

    :param motion: with all derivatives.
    :param segment_ns: time after the start of the knot where the segment begins; before the first
        knot that knot's.
    :param is_past_end: whether the last knot was reached.
    """

    motion: JointMotion
    segment_ns: int
    is_past_end: bool


class RunningTrajectory:
    """
    A trajectory from its first sample on.

    :param stamp_ns: its start; 0: the time of the first sample.
    :param knots: at least one, in the order of time.
    """

    def __init__(self, stamp_ns: int, knots: Sequence[Knot]):
        self.stamp_ns = stamp_ns
        self.knots = tuple(knots)
        self.was_sampled = False
        # None: the trajectory starts at its first sample.
        self._start_ns: int | None = stamp_ns or None
        self._before_ns = 0
        self._before = self.knots[0].motion
        self._times_ns = [knot.after_ns for knot in self.knots]

    @property
    def start_ns(self) -> int:
        """Return the time from which the times of the knots count; 0 before a first sample."""
        return self._start_ns or 0

    def join(self, time_ns: int, motion: JointMotion) -> None:
        """Set where the joints come from; the way to the first knot begins there."""
        first = self.knots[0].motion
        # The segment to the first knot is a spline of the same degree as the others.
        if motion.velocities is None and first.velocities is not None:
            motion = replace(motion, velocities=np.zeros_like(motion.positions))
        if motion.accelerations is None and first.accelerations is not None:
            motion = replace(motion, accelerations=np.zeros_like(motion.positions))
        self._before_ns, self._before = time_ns, motion

    def sample(self, time_ns: int) -> Sample | None:
        """Return the reference, or None before the time at which the trajectory was joined."""
        self.was_sampled = True
        if self._start_ns is None:
            self._start_ns = time_ns
        if time_ns < self._before_ns:
            return None
        after_ns = time_ns - self._start_ns
        reached = bisect_right(self._times_ns, after_ns)
        if reached == len(self.knots):
            last = self.knots[-1]
            return Sample(last.motion.complete(), last.after_ns, True)
        end = self.knots[reached]
        if reached == 0:
            before_ns = self._before_ns - self._start_ns
            return Sample(
                interpolate(self._before, before_ns, end.motion, end.after_ns, after_ns),
                end.after_ns, False)
        begin = self.knots[reached - 1]
        return Sample(
            interpolate(begin.motion, begin.after_ns, end.motion, end.after_ns, after_ns),
            begin.after_ns, False)


def knots_of(
    trajectory: Trajectory, joints: Sequence[str], others: np.ndarray) -> list[Knot]:
    """
    Return the points of a valid message in the controller's joint order.

    :param others: positions [J] of the joints that the message does not name; they rest.
    """
    columns = [joints.index(name) for name in trajectory.joint_names]

    def ordered(values: Sequence[float] | np.ndarray, rest: np.ndarray) -> np.ndarray | None:
        if not len(values):
            return None
        row = rest.copy()
        row[columns] = values
        return row

    zeros = np.zeros(len(joints))
    knots = []
    for point in trajectory.points:
        positions = ordered(point.positions, others)
        assert positions is not None  # the validation demands them
        knots.append(Knot(point.time_from_start_ns, JointMotion(
            positions, ordered(point.velocities, zeros), ordered(point.accelerations, zeros))))
    return knots
