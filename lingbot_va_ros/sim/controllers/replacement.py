"""
Joins a new message with the trajectory that runs, as JTC does after release 6.9 (Rolling).

The source is `blend_with_active_trajectory` in ros2_controllers, branch master, August 2026.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lingbot_va_ros.sim.controllers.messages import Trajectory
from lingbot_va_ros.sim.controllers.running_trajectory import Knot, knots_of, RunningTrajectory
from lingbot_va_ros.sim.controllers.splines import JointMotion


def splice(
    old: RunningTrajectory, trajectory: Trajectory, joints: Sequence[str], commanded: np.ndarray,
    now_ns: int, reached_ns: int, speed_scaling: float,
) -> RunningTrajectory:
    """
    Return the trajectory that runs from the update at `now_ns` on.

    It starts at that update with what the old trajectory had at `reached_ns`, the trajectory time
    of the update before. A stamp in the past is ignored: the message's points count from
    now on. With a stamp in the future the old trajectory runs until then.

    :param commanded: positions [J] of the last command.
    """
    named = np.isin(joints, trajectory.joint_names)
    ahead_ns = round(max(0, trajectory.stamp_ns - now_ns) * speed_scaling)
    begin_ns = reached_ns + ahead_ns
    bridge = old.sample(begin_ns)
    points = knots_of(trajectory, joints, commanded)
    if not named.all():
        points = [_with_others_from(old, knot, begin_ns, named) for knot in points]
    new = [replace(knot, after_ns=knot.after_ns + ahead_ns) for knot in points]
    before = [
        knot for knot in _since(old, reached_ns) if 0 < knot.after_ns < ahead_ns]
    if bridge is not None and ahead_ns < new[0].after_ns:
        before.append(Knot(ahead_ns, bridge.motion))
    after: list[Knot] = []
    if not named.all():
        # The joints that the message does not name finish their motion.
        after = [
            _with_named_at_rest(knot, new[-1].motion.positions, named)
            for knot in _since(old, reached_ns) if knot.after_ns > new[-1].after_ns]
    return RunningTrajectory(0, [*before, *new, *after])


def _since(old: RunningTrajectory, reached_ns: int) -> list[Knot]:
    """Return the knots of a trajectory with their times counted from a time."""
    shift_ns = old.start_ns - reached_ns
    return [replace(knot, after_ns=knot.after_ns + shift_ns) for knot in old.knots]


def _with_others_from(
    old: RunningTrajectory, knot: Knot, begin_ns: int, named: np.ndarray) -> Knot:
    there = old.sample(begin_ns + knot.after_ns)
    if there is None:
        return knot
    return replace(knot, motion=_merged(named, knot.motion, there.motion))


def _with_named_at_rest(knot: Knot, positions: np.ndarray, named: np.ndarray) -> Knot:
    return replace(knot, motion=_merged(~named, knot.motion, JointMotion(positions)))


def _merged(chosen: np.ndarray, one: JointMotion, other: JointMotion) -> JointMotion:
    """Return a motion with the fields of `one`: of the chosen joints from it, else from other."""
    other = other.complete()

    def merged(ours: np.ndarray | None, theirs: np.ndarray | None) -> np.ndarray | None:
        return None if ours is None or theirs is None else np.where(chosen, ours, theirs)

    return JointMotion(
        np.where(chosen, one.positions, other.positions),
        merged(one.velocities, other.velocities), merged(one.accelerations, other.accelerations))
