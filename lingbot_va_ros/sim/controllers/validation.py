"""
Checks of a trajectory message, as joint_trajectory_controller makes them when it arrives.

Beyond its rules, numbers that are not finite, joints named twice and accelerations without
velocities are rejected: the real controller computes with them.
"""

from collections.abc import Sequence
import math

import numpy as np

from lingbot_va_ros.motion.time import to_seconds
from lingbot_va_ros.sim.controllers.messages import Trajectory, TrajectoryRejected
from lingbot_va_ros.sim.controllers.settings import ControllerSettings

# Largest velocity that counts as rest, as in ros2_controllers: the epsilon of float32.
STILL = float(np.finfo(np.float32).eps)


def check_trajectory(
    trajectory: Trajectory, joints: Sequence[str], settings: ControllerSettings, now_ns: int,
) -> None:
    """
    Check a message that arrives now.

    :param joints: of the controller.
    :raises TrajectoryRejected: the message breaks a rule.
    """
    _check_joints(trajectory.joint_names, joints, settings.allow_partial_joints_goal)
    if not trajectory.points:
        raise TrajectoryRejected('the trajectory is empty: no points')
    _check_points(trajectory)
    last = trajectory.points[-1]
    if not settings.allow_nonzero_velocity_at_trajectory_end:
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


def _check_joints(names: Sequence[str], joints: Sequence[str], may_be_partial: bool) -> None:
    if may_be_partial and not names:
        raise TrajectoryRejected('the trajectory names no joints')
    unknown = [name for name in names if name not in joints]
    if unknown:
        raise TrajectoryRejected(
            f'unknown joints: {", ".join(unknown)}; expected {", ".join(joints)}')
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise TrajectoryRejected(f'joints named more than once: {", ".join(twice)}')
    missing = [name for name in joints if name not in names]
    if missing and not may_be_partial:
        raise TrajectoryRejected(f'missing joints: {", ".join(missing)}')


def _check_points(trajectory: Trajectory) -> None:
    count = len(trajectory.joint_names)
    previous_ns: int | None = None
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
        if previous_ns is not None and point.time_from_start_ns <= previous_ns:
            raise TrajectoryRejected(
                f'time_from_start does not increase from point {index - 1} '
                f'({to_seconds(previous_ns):g} s) to point {index} '
                f'({to_seconds(point.time_from_start_ns):g} s)')
        previous_ns = point.time_from_start_ns
