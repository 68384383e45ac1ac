"""Publishes the rows of a motion to controllers that take no trajectories, in their messages."""

from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher

from lingbot_va_ros.mux.report import Row
from lingbot_va_ros.nodes.qos import COMMAND
from lingbot_va_ros.nodes.run import CannotStart
from lingbot_va_ros.nodes.stamps import stamp_of
from lingbot_va_ros.specs.controllers import Controller
from lingbot_va_ros.specs.embodiment import Embodiment

# Makes the message of a row from the columns of a controller's joints.
MakeMessage = Callable[[Row, list[int]], Any]
_INSTALL = {
    'control_msgs': 'apt install ros-$ROS_DISTRO-control-msgs',
    'interbotix_xs_msgs': 'build it from the repository Interbotix/interbotix_ros_core',
}


def columns_of(embodiment: Embodiment) -> dict[str, int]:
    """Return the column of each joint in what is sent: those of the robot, then the held ones."""
    held = (joint.name for joint in embodiment.held_joints)
    return {name: column for column, name in enumerate((*embodiment.joints, *held))}


class RowControllers:
    """
    All controllers of an embodiment that get one message each tick.

    :param period: seconds from tick to tick.
    :raises CannotStart: a package of messages is missing.
    """

    def __init__(self, node: Node, embodiment: Embodiment, period: float) -> None:
        column_of = columns_of(embodiment)
        self._controllers: list[tuple[Publisher, MakeMessage, list[int]]] = []
        for controller in embodiment.controllers:
            if controller.kind not in _KINDS:
                continue
            try:
                message_type, make = _KINDS[controller.kind](controller, period)
            except ImportError as error:
                raise CannotStart(
                    f"embodiment '{embodiment.name}': {_missing_package(controller, error)}"
                ) from None
            self._controllers.append((
                node.create_publisher(message_type, controller.topic, COMMAND), make,
                [column_of[name] for name in controller.joints]))
        self.publishers = tuple(publisher for publisher, _, _ in self._controllers)

    def send(self, row: Row) -> None:
        """Publish a row. For the thread of the ticks."""
        for publisher, make, columns in self._controllers:
            if np.isfinite(row.positions[columns]).all():  # not: a held joint is unknown
                publisher.publish(make(row, columns))


def _missing_package(controller: Controller, error: ImportError) -> str:
    """Return in one line which package a controller's messages need."""
    package = 'interbotix_xs_msgs' if controller.kind == 'joint_group' else 'control_msgs'
    return (f'a {controller.kind} controller needs the package {package} ({error}): '
            f'{_INSTALL[package]}')


# One function for each kind: returns the message type, and what makes a message of a row.

def _forward_position(_controller: Controller, _period: float) -> tuple[Any, MakeMessage]:
    from std_msgs.msg import Float64MultiArray

    return Float64MultiArray, lambda row, columns: Float64MultiArray(
        data=_doubles(row.positions[columns]))


def _forward_velocity(_controller: Controller, _period: float) -> tuple[Any, MakeMessage]:
    from std_msgs.msg import Float64MultiArray

    return Float64MultiArray, lambda row, columns: Float64MultiArray(
        data=_doubles(row.rates[columns]))


def _joint_state(controller: Controller, _period: float) -> tuple[Any, MakeMessage]:
    from sensor_msgs.msg import JointState

    names = controller.driver_names

    def make(row: Row, columns: list[int]) -> Any:
        message = JointState(name=names, position=_doubles(row.positions[columns]))
        message.header.stamp = stamp_of(row.time_ns)
        if controller.velocities:
            message.velocity = _doubles(row.velocities[columns])
        return message

    return JointState, make


def _joint_jog(controller: Controller, period: float) -> tuple[Any, MakeMessage]:
    from control_msgs.msg import JointJog

    names = controller.driver_names

    def make(row: Row, columns: list[int]) -> Any:
        message = JointJog(
            joint_names=names, velocities=_doubles(row.rates[columns]), duration=period)
        message.header.stamp = stamp_of(row.time_ns)
        return message

    return JointJog, make


def _joint_group(controller: Controller, _period: float) -> tuple[Any, MakeMessage]:
    if controller.group is None:
        from interbotix_xs_msgs.msg import JointSingleCommand

        name, = controller.driver_names
        return JointSingleCommand, lambda row, columns: JointSingleCommand(
            name=name, cmd=float(row.positions[columns[0]]))
    from interbotix_xs_msgs.msg import JointGroupCommand

    return JointGroupCommand, lambda row, columns: JointGroupCommand(
        name=controller.group, cmd=array('f', row.positions[columns]))


_KINDS = {
    'forward_position': _forward_position,
    'forward_velocity': _forward_velocity,
    'joint_state': _joint_state,
    'joint_jog': _joint_jog,
    'joint_group': _joint_group,
}


def _doubles(values: np.ndarray) -> array:
    # rclpy checks every number of a list, and takes an array of doubles as it is.
    return array('d', values.tobytes())
