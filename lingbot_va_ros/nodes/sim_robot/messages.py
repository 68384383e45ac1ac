"""Converts between the messages of joint_trajectory_controller and those of the simulation."""

from typing import Any

from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from lingbot_va_ros.nodes.stamps import nanoseconds_of
from lingbot_va_ros.sim.controllers.messages import Trajectory, TrajectoryPoint
from lingbot_va_ros.sim.controllers.splines import JointMotion
from lingbot_va_ros.sim.controllers.trajectory_controller import ControllerState


def trajectory_of(message: JointTrajectory, stamp_ns: int) -> Trajectory:
    """Return a message as plain data, with its stamp in simulated time."""
    return Trajectory(stamp_ns, tuple(message.joint_names), tuple(
        TrajectoryPoint(
            nanoseconds_of(point.time_from_start), point.positions, point.velocities,
            point.accelerations, point.effort) for point in message.points))


def state_type() -> Any | None:
    """Return the message type of the controller's state, or None without control_msgs."""
    try:
        from control_msgs.msg import JointTrajectoryControllerState
    except ImportError:
        return None
    return JointTrajectoryControllerState


def state_message(kind: Any, joints: tuple[str, ...], state: ControllerState) -> Any:
    """
    Return a state of the controller as a message, without its stamp.

    :param kind: control_msgs' JointTrajectoryControllerState.
    """
    message = kind()
    message.joint_names = list(joints)
    message.reference = _point(state.reference)
    message.feedback = _point(state.feedback)
    message.error = _point(JointMotion(state.error))
    message.output = _point(JointMotion(state.output))
    if hasattr(message, 'speed_scaling_factor'):  # Humble has none
        message.speed_scaling_factor = state.speed_scaling
    return message


def _point(motion: JointMotion) -> JointTrajectoryPoint:
    point = JointTrajectoryPoint(positions=motion.positions.tolist())
    if motion.velocities is not None:
        point.velocities = motion.velocities.tolist()
    if motion.accelerations is not None:
        point.accelerations = motion.accelerations.tolist()
    return point
