"""The actions of a chunk on its way, read back from the executed commands and from the plan."""

import numpy as np

from lingbot_va_ros.policy.runtime.active_chunk import ActiveChunk
from lingbot_va_ros.policy.runtime.robot_interface import RobotInterface

EXECUTED_GRACE = 0.2  # seconds that the report of the last executed command may take


def executed_actions(robot: RobotInterface, chunk: ActiveChunk, count: int) -> np.ndarray:
    """Return the actions that were executed during a chunk's first `count` ones, [count, used]."""
    times = [chunk.start_ns, *chunk.action_times[:count]]  # with the knot before the first
    if robot.executed is None:
        joints = np.stack([chunk.plan.sample(time)[0] for time in times])
    else:
        joints = robot.executed.at(times)
    return robot.action_map.from_joints(joints[1:], joints[0])


def expected_actions(robot: RobotInterface, chunk: ActiveChunk) -> np.ndarray:
    """Return all actions [n, used] of a chunk: executed so far, planned for the rest."""
    times = [chunk.start_ns, *chunk.action_times]
    joints = np.stack([chunk.plan.sample(time)[0] for time in times])
    if robot.executed is not None:
        newest = robot.executed.newest_ns or 0
        known = [time for time in times if time <= newest]
        if known:
            joints[:len(known)] = robot.executed.at(known)
    state = robot.action_map.state()
    try:
        return robot.action_map.from_joints(joints[1:], joints[0])
    finally:
        robot.action_map.restore(state)


def is_unreported(robot: RobotInterface, chunk: ActiveChunk) -> bool:
    """Return whether no command of a chunk was reported as executed."""
    newest = robot.newest_executed_ns()
    return newest is not None and newest < chunk.action_times[0]


def is_executed(robot: RobotInterface, chunk: ActiveChunk) -> bool:
    """Return whether a chunk's last command was reported, or is overdue."""
    newest = robot.newest_executed_ns()
    if newest is None or newest >= chunk.end_ns:
        return True
    return robot.clock.now_ns() > robot.timeline.ahead(chunk.end_ns, EXECUTED_GRACE)
