"""
Accepts and follows joint trajectories as ros2_controllers' joint_trajectory_controller does.

The rules are those of the versions in Jazzy and Kilted with position commands,
`interpolate_from_desired_state: true` and the other parameters at their defaults
(https://control.ros.org/jazzy/doc/ros2_controllers/joint_trajectory_controller). Beyond them,
numbers that are not finite are rejected.
"""

from collections.abc import Sequence
from dataclasses import dataclass
import math

import numpy as np

from lingbot_va_ros.motion.time import to_seconds

# Largest velocity that counts as rest, as in ros2_controllers: the epsilon of float32.
STILL = float(np.finfo(np.float32).eps)


class TrajectoryRejected(ValueError):
    """The controller rejects a trajectory; the message is one line with the reason."""


@dataclass(frozen=True)
class TrajectoryPoint:
    """
    One point of a trajectory; arrays are [J] in the order of the trajectory's joint names.

    An empty array means: not given. Radians (metres for prismatic joints) and seconds, the time
    in nanoseconds.
    """

    time_from_start_ns: int
    positions: Sequence[float] | np.ndarray
    velocities: Sequence[float] | np.ndarray = ()
    accelerations: Sequence[float] | np.ndarray = ()
    effort: Sequence[float] | np.ndarray = ()


@dataclass(frozen=True)
class Trajectory:
    """A trajectory_msgs/JointTrajectory; `stamp_ns` 0 means that it starts when it arrives."""

    stamp_ns: int
    joint_names: tuple[str, ...]
    points: tuple[TrajectoryPoint, ...]


@dataclass(frozen=True)
class Desired:
    """The desired state of the joints at one moment; each array is [J], float64."""

    positions: np.ndarray
    velocities: np.ndarray
    accelerations: np.ndarray


@dataclass(frozen=True)
class _Knot:
    """A point in absolute time and the controller's joint order; None: not given."""

    time_ns: int
    positions: np.ndarray
    velocities: np.ndarray | None
    accelerations: np.ndarray | None


class TrajectoryController:
    """
    Follow the newest accepted trajectory; hold its last point afterwards.

    Times are nanoseconds of one clock that the caller keeps; `sample` and `accept` are called
    from one thread.
    """

    def __init__(self, joints: Sequence[str]):
        self.joints = tuple(joints)
        self.accepted = 0
        self.rejected = 0
        self._columns = {joint: column for column, joint in enumerate(self.joints)}
        self.hold(np.zeros(len(self.joints)))

    def hold(self, positions: np.ndarray) -> None:
        """Drop the trajectory and hold `positions` [J]."""
        still = np.zeros(len(self.joints))
        self._desired = Desired(np.array(positions, float), still, still)
        self._knots: list[_Knot] = []
        self._segment = 0

    @property
    def desired(self) -> Desired:
        """Return the result of the last `sample`."""
        return self._desired

    def accept(self, trajectory: Trajectory, now_ns: int) -> None:
        """
        Replace the running trajectory from the new one's first point on.

        Until its first point is due, the joints move there from the present desired state.

        :raises TrajectoryRejected: nothing changes then but the counter.
        """
        try:
            order = self._check(trajectory, now_ns)
        except TrajectoryRejected:
            self.rejected += 1
            raise
        self.accepted += 1
        here = self.sample(now_ns)
        start_ns = trajectory.stamp_ns or now_ns
        knots = [
            _Knot(start_ns + point.time_from_start_ns,
                  np.asarray(point.positions, float)[order],
                  _ordered(point.velocities, order), _ordered(point.accelerations, order))
            for point in trajectory.points]
        if knots[0].time_ns > now_ns:
            # A spline needs its derivatives at both ends. The present desired state has them, so
            # the first segment is of the same degree as the others.
            knots.insert(0, _Knot(now_ns, here.positions, here.velocities, here.accelerations))
        self._knots = knots
        self._segment = 0

    def sample(self, now_ns: int) -> Desired:
        """Return the desired state at `now_ns`, which is not before the last acceptance."""
        knots = self._knots
        if not knots:
            return self._desired
        while self._segment + 1 < len(knots) and knots[self._segment + 1].time_ns <= now_ns:
            self._segment += 1
        if self._segment + 1 == len(knots):
            self.hold(knots[-1].positions)
        else:
            self._desired = _interpolate(knots[self._segment], knots[self._segment + 1], now_ns)
        return self._desired

    def _check(self, trajectory: Trajectory, now_ns: int) -> list[int]:
        """Return for each joint of the controller its index in the trajectory."""
        order = self._check_joints(trajectory.joint_names)
        if not trajectory.points:
            raise TrajectoryRejected('the trajectory is empty: no points')
        self._check_points(trajectory)
        last = trajectory.points[-1]
        for name, velocity in zip(trajectory.joint_names, last.velocities):
            if abs(velocity) > STILL:
                raise TrajectoryRejected(
                    f'the last velocity of joint {name} is {velocity:g}, expected 0')
        if trajectory.stamp_ns:
            late_ns = now_ns - (trajectory.stamp_ns + last.time_from_start_ns)
            if late_ns > 0:
                raise TrajectoryRejected(
                    f'the last point is {to_seconds(late_ns):.3f} s in the past '
                    f'(stamp {to_seconds(trajectory.stamp_ns):.3f}, now {to_seconds(now_ns):.3f})')
        return order

    def _check_joints(self, names: Sequence[str]) -> list[int]:
        unknown = [name for name in names if name not in self._columns]
        if unknown:
            raise TrajectoryRejected(
                f'unknown joints: {", ".join(unknown)}; expected {", ".join(self.joints)}')
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise TrajectoryRejected(f'joints named more than once: {", ".join(twice)}')
        missing = [name for name in self.joints if name not in names]
        if missing:
            raise TrajectoryRejected(f'missing joints: {", ".join(missing)}')
        return [names.index(name) for name in self.joints]

    def _check_points(self, trajectory: Trajectory) -> None:
        count = len(self.joints)
        previous_ns = 0
        for index, point in enumerate(trajectory.points):
            for field, needed in (('positions', True), ('velocities', False),
                                  ('accelerations', False)):
                values = getattr(point, field)
                if len(values) != count and (needed or len(values)):
                    raise TrajectoryRejected(
                        f'point {index} has {len(values)} {field}, expected {count}')
                if not all(map(math.isfinite, values)):
                    at = [math.isfinite(value) for value in values].index(False)
                    raise TrajectoryRejected(
                        f'point {index}: {field} of joint {trajectory.joint_names[at]} '
                        f'is {values[at]}')
            if len(point.accelerations) and not len(point.velocities):
                raise TrajectoryRejected(f'point {index} has accelerations but no velocities')
            if len(point.effort):
                raise TrajectoryRejected(
                    f'point {index} has effort; the joints take positions only')
            if index == 0 and point.time_from_start_ns < 0:
                raise TrajectoryRejected('time_from_start of point 0 is negative')
            if index and point.time_from_start_ns <= previous_ns:
                raise TrajectoryRejected(
                    f'time_from_start does not increase from point {index - 1} '
                    f'({to_seconds(previous_ns):g} s) to point {index} '
                    f'({to_seconds(point.time_from_start_ns):g} s)')
            previous_ns = point.time_from_start_ns


def _ordered(values: Sequence[float] | np.ndarray, order: list[int]) -> np.ndarray | None:
    return np.asarray(values, float)[order] if len(values) else None


def _interpolate(a: _Knot, b: _Knot, now_ns: int) -> Desired:
    """Interpolate linearly, or by the cubic or quintic spline if both ends have derivatives."""
    span = to_seconds(b.time_ns - a.time_ns)
    t = to_seconds(now_ns - a.time_ns)
    step = b.positions - a.positions
    if a.velocities is None or b.velocities is None:
        velocity = step / span
        return Desired(a.positions + t * velocity, velocity, np.zeros_like(step))
    if a.accelerations is None or b.accelerations is None:
        half = (3 * step - (2 * a.velocities + b.velocities) * span) / span**2
        c3 = ((a.velocities + b.velocities) * span - 2 * step) / span**3
        c4 = c5 = 0.0
    else:
        half = a.accelerations / 2
        # Remaining errors at b after constant acceleration from a.
        p = step - a.velocities * span - half * span**2
        v = (b.velocities - a.velocities - 2 * half * span) * span
        w = (b.accelerations - 2 * half) * span**2 / 2
        c3 = (10 * p - 4 * v + w) / span**3
        c4 = (-15 * p + 7 * v - 2 * w) / span**4
        c5 = (6 * p - 3 * v + w) / span**5
    return Desired(
        a.positions + t * (a.velocities + t * (half + t * (c3 + t * (c4 + t * c5)))),
        a.velocities + t * (2 * half + t * (3 * c3 + t * (4 * c4 + t * 5 * c5))),
        2 * half + t * (6 * c3 + t * (12 * c4 + t * 20 * c5)))
