"""The actions of a chunk on its way, read back from what the arm was sent and from the plan."""

import numpy as np

from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.policy.runtime.active_chunk import Running
from lingbot_va_ros.policy.runtime.robot_interface import World

EXECUTED_GRACE = 0.2  # seconds that the report of the last executed command may take


def executed_actions(world: World, run: Running, count: int) -> np.ndarray:
    """Return what was executed during a chunk's first actions, [count, used]."""
    times = [run.start_ns, *run.action_times[:count]]  # with where the chunk started from
    if world.executed is None:
        joints = np.stack([run.plan.sample(time)[0] for time in times])
    else:
        joints = world.executed.at(times)
    return world.from_joints(joints[1:], joints[0])


def actions_on_the_way(world: World, run: Running) -> np.ndarray:
    """Return all actions [n, used] of a chunk: executed so far, planned for the rest."""
    times = [run.start_ns, *run.action_times]
    joints = np.stack([run.plan.sample(time)[0] for time in times])
    if world.executed is not None:
        newest = world.executed.newest_ns or 0
        known = [time for time in times if time <= newest]
        if known:
            joints[:len(known)] = world.executed.at(known)
    poses = world.poses()
    try:
        return world.from_joints(joints[1:], joints[0])
    finally:
        world.restore_poses(poses)


def is_silent(world: World, run: Running) -> bool:
    """Return whether nothing was reported as executed of a chunk."""
    executed = world.executed
    return executed is not None and (executed.newest_ns or 0) < run.action_times[0]


def is_executed(world: World, run: Running) -> bool:
    """Return whether a chunk's last command was reported, or will not be any more."""
    executed = world.executed
    if executed is None or (executed.newest_ns or 0) >= run.end_ns:
        return True
    return world.clock() > run.end_ns + EXECUTED_GRACE * NANOSECONDS
