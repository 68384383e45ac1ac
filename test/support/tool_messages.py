"""
Joint trajectories as the usual tools of operators send them.

The fields are those that the tools' sources fill; everything else has ROS's default. MoveIt Servo
(Humble): one point a publish_period ahead, with positions and velocities and stamp 0. MoveIt Servo
(Jazzy and later): a window of points around now, stamped with the time of the first one, whose
last velocity is not 0. rqt_joint_trajectory_controller: one point with positions, no stamp, due
in max(0.5 s, way at the velocity limit) / speed scale, ten times a second.
"""

import numpy as np
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

NANOSECONDS = 1_000_000_000


def _duration(point, seconds):
    ns = round(seconds * NANOSECONDS)
    point.time_from_start.sec, point.time_from_start.nanosec = divmod(ns, NANOSECONDS)
    return point


def servo_humble(names, positions, velocities, period=0.034, frame='panda_link0'):
    """Return what MoveIt Servo of Humble sends: one point that moves on, stamp 0."""
    message = JointTrajectory(joint_names=list(names))
    message.header.frame_id = frame
    message.points = [_duration(JointTrajectoryPoint(
        positions=[float(q) for q in positions], velocities=[float(v) for v in velocities]),
        period)]
    return message


def servo_halt(names, positions):
    """Return MoveIt Servo's sudden halt: where the arm is, due one nanosecond after now."""
    message = servo_humble(names, positions, np.zeros(len(positions)))
    message.points[0].time_from_start.sec, message.points[0].time_from_start.nanosec = 0, 1
    return message


def servo_window(names, goal, now_ns, period=0.01, latency=0.1):
    """Return MoveIt Servo's window of Jazzy: from 0.1 s ago to nearly 0.1 s ahead of now."""
    message = JointTrajectory(joint_names=list(names))
    first = now_ns - round(latency * NANOSECONDS)
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(first, NANOSECONDS)
    for index in range(round(2 * latency / period) - 1):
        after = index * period
        due = first + round(after * NANOSECONDS)
        step = round(period * NANOSECONDS)
        speed = (np.asarray(goal(due)) - np.asarray(goal(due - step))) / period
        message.points.append(_duration(JointTrajectoryPoint(
            positions=[float(q) for q in goal(due)], velocities=[float(v) for v in speed]),
            after))
    return message


def rqt(names, positions, seconds=1.0):
    """Return what rqt_joint_trajectory_controller sends: one point of positions, no stamp."""
    message = JointTrajectory(joint_names=list(names))
    message.points = [_duration(
        JointTrajectoryPoint(positions=[float(q) for q in positions]), seconds)]
    return message


def with_first_point(message, positions):
    """Return a message that begins with a point at time 0, as recorded trajectories do."""
    message.points.insert(0, JointTrajectoryPoint(
        positions=[float(q) for q in positions],
        velocities=[0.0] * len(message.points[0].velocities)))
    return message
