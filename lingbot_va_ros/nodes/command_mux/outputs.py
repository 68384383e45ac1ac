"""The outputs of command_mux: commands to controllers and grippers, and the executed points."""

from array import array
from collections.abc import Iterable

import numpy as np
from rclpy.node import Node
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from lingbot_va_ros.motion.plan import Plan
from lingbot_va_ros.mux.held_joints import HeldJoints
from lingbot_va_ros.mux.report import Tick
from lingbot_va_ros.nodes.command_mux.driver_plugin import Plugins
from lingbot_va_ros.nodes.command_mux.gripper_action import GripperActions
from lingbot_va_ros.nodes.command_mux.row_controllers import columns_of, RowControllers
from lingbot_va_ros.nodes.command_mux.trajectory_action import TrajectoryAction
from lingbot_va_ros.nodes.qos import COMMAND, EXECUTED
from lingbot_va_ros.nodes.stamps import duration_of, stamp_of
from lingbot_va_ros.specs.embodiment import Embodiment

# A command may come to its controller so late after its end, ns; one whose last point is past is
# rejected.
LATEST_NS = 500_000_000


class Outputs:
    """
    Publishes what a tick of the mux sends.

    :param grippers: the grippers that are driven by an action instead of a trajectory.
    :param actions: the controllers that take goals, each with the columns of its joints.
    :param plugins: the controllers that are Python classes.
    :param held: the joints that stand behind the robot's in every message.
    :param period: seconds from tick to tick.
    :raises CannotStart: a controller needs a package that is missing.
    """

    def __init__(
        self, node: Node, embodiment: Embodiment, grippers: GripperActions,
        actions: Iterable[tuple[TrajectoryAction, list[int]]], plugins: Plugins, held: HeldJoints,
        period: float,
    ) -> None:
        column_of = columns_of(embodiment)
        self._held = held
        self._joints = list(embodiment.joints)
        self._grippers = grippers
        self._actions = actions
        self._plugins = plugins
        self._controllers = [
            (node.create_publisher(JointTrajectory, controller.topic, COMMAND),
             controller.driver_names, [column_of[name] for name in controller.joints])
            for controller in embodiment.controllers if controller.kind == 'trajectory']
        self._rows = RowControllers(node, embodiment, period)
        self.publishers = (
            *(publisher for publisher, _, _ in self._controllers), *self._rows.publishers)
        self._executed = node.create_publisher(JointTrajectory, 'executed', EXECUTED)

    def send(self, tick: Tick) -> None:
        """Send each controller its part of a command, and publish every executed point."""
        tick = self._held.extend(tick)
        if tick.row is not None:
            self._rows.send(tick.row)
            self._plugins.send(tick.row)
        self._grippers.command(tick)
        if tick.command is not None:
            known = np.isfinite(tick.command.positions[0])  # not: a held joint
            for publisher, joints, columns in self._controllers:
                if known[columns].all():
                    publisher.publish(command_message(tick.command, joints, columns))
            for action, columns in self._actions:
                if known[columns].all() and action.wants(is_stop=not tick.moves):
                    action.command(command_message(tick.command, action.joint_names, columns))
        for due_ns, q, v in tick.executed:
            message = JointTrajectory()
            message.header.stamp = stamp_of(due_ns)
            message.joint_names = self._joints
            message.points = [_point(0, q, v)]
            self._executed.publish(message)


def command_message(
    plan: Plan, joint_names: list[str], columns: list[int]) -> JointTrajectory:
    """
    Return the part of a command that belongs to the joints of one controller.

    :param joint_names: as the controller calls them.
    :param columns: of these joints in the plan.
    """
    start_ns = int(plan.times_ns[0])
    message = JointTrajectory()
    message.header.stamp = stamp_of(start_ns)
    message.joint_names = joint_names
    message.points = [
        _point(int(due_ns) - start_ns, q[columns], v[columns])
        for due_ns, q, v in zip(plan.times_ns, plan.positions, plan.velocities, strict=True)]
    end = plan.positions[-1][columns]
    # A last point at rest: its later time makes a controller accept a late message.
    message.points.append(_point(plan.end_ns + LATEST_NS - start_ns, end, np.zeros_like(end)))
    return message


def _point(after_ns: int, q: np.ndarray, v: np.ndarray) -> JointTrajectoryPoint:
    point = JointTrajectoryPoint()
    # rclpy checks every number of a list, and takes an array of doubles as it is.
    point.positions = array('d', q.tobytes())
    point.velocities = array('d', v.tobytes())
    point.time_from_start = duration_of(after_ns)
    return point
