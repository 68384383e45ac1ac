"""The inputs of command_mux: subscriptions and services, converted for the mux."""

from collections.abc import Callable, Mapping
import functools
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from lingbot_va_ros.motion.trajectory import TrajectoryMessage, TrajectoryPoint
from lingbot_va_ros.mux.command_source import CommandSource
from lingbot_va_ros.mux.mux import Mux
from lingbot_va_ros.mux.validation import Rejected
from lingbot_va_ros.nodes.bounded_subscription import (
    state_fault,
    subscribe_bounded,
    trajectory_fault,
)
from lingbot_va_ros.nodes.command_mux.clocks import Clocks
from lingbot_va_ros.nodes.joint_state_watch import JointStateWatch
from lingbot_va_ros.nodes.qos import COMMAND, EVENTS, JOINT_STATES
from lingbot_va_ros.nodes.stamps import nanoseconds_of
from lingbot_va_ros.specs.joint_state_topics import JointStateTopic
from lingbot_va_ros.srv import SetControlMode

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks


class Inputs:
    """
    Passes messages and requests to the mux.

    The emergency stop and the services have a thread of their own, so that they wait for no
    message of another topic. The executor's thread handles all other inputs.

    :param watch: watches the publishers of joint_states; it gets the stamps of all sources.
    :param urgent: the callback group of the emergency stop and the services.
    :param on_change: called after every input that may change the mode.
    """

    def __init__(
        self, node: Node, mux: Mux, clocks: Clocks, watch: JointStateWatch,
        urgent: CallbackGroup, on_change: Callable[[], None],
    ) -> None:
        self._logger = node.get_logger()
        self._mux = mux
        self._clocks = clocks
        self._watch = watch
        self._on_change = on_change
        self._subscribe_to_plans(node)
        self._subscribe_to_states(node)
        node.create_subscription(
            Bool, 'emergency_stop', self._on_emergency_stop, EVENTS, callback_group=urgent,
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=self._on_emergency_stop_mismatch))
        node.create_service(
            SetControlMode, '~/set_mode', self._on_set_mode, callback_group=urgent)
        node.create_service(
            Trigger, '~/clear_stop', self._on_clear_stop, callback_group=urgent)
        node.create_service(Trigger, '~/go_home', self._on_go_home, callback_group=urgent)

    def _subscribe_to_plans(self, node: Node) -> None:
        for topic, source, take in (
                ('policy/joint_trajectory', self._mux.sources.policy, self._mux.take_policy_plan),
                ('teleop/joint_trajectory', self._mux.sources.teleop, self._mux.take_teleop_plan)):
            subscribe_bounded(
                node, JointTrajectory, topic, functools.partial(self._on_plan, topic, take),
                COMMAND, trajectory_fault, functools.partial(self._on_too_long, topic, source))

    def _subscribe_to_states(self, node: Node) -> None:
        leader = self._mux.sources.leader
        subscribe_bounded(
            node, JointState, leader.name, self._on_leader, JOINT_STATES, state_fault,
            functools.partial(self._on_too_long, leader.name, leader))
        for topic in self._mux.embodiment.joint_states:
            subscribe_bounded(
                node, JointState, topic.topic, functools.partial(self._on_joint_state, topic),
                JOINT_STATES, state_fault, functools.partial(self.warn, topic.topic))

    def _on_joint_state(
        self, topic: JointStateTopic, message: JointState, info: Mapping[str, Any]) -> None:
        now_ns, now_s = self._clocks.now_ns(), self._clocks.now_s()
        names, stamp_ns = topic.our_names(message.name), nanoseconds_of(message.header.stamp)
        self._mux.take_joint_state(
            names, message.position, message.velocity, stamp_ns, now_ns, now_s)
        self._mux.contact.take_efforts(names, message.effort, now_s)
        self._mux.held.update(names, message.position, stamp_ns, now_ns, now_s)
        self._watch.take(topic, message, info, now_ns, now_s)

    def _on_plan(
        self, topic: str, take: Callable[[TrajectoryMessage, int, float], str | None],
        message: JointTrajectory, _info: Mapping[str, Any],
    ) -> None:
        self._log_rejection(
            topic, take(plain_trajectory(message), *self._note_stamp(topic, message)))

    def _on_too_long(self, topic: str, source: CommandSource, reason: str) -> None:
        self._log_rejection(
            topic, self._mux.take_refusal(source, Rejected('too_long', reason)))

    def warn(self, topic: str, reason: str) -> None:
        """Log that a message of a topic was rejected."""
        self._logger.warning(f'{topic} rejected: {reason}', throttle_duration_sec=1.0)

    def _on_leader(self, message: JointState, _info: Mapping[str, Any]) -> None:
        self._log_rejection('teleop/joint_states', self._mux.take_leader_state(
            message.name, message.position, nanoseconds_of(message.header.stamp),
            *self._note_stamp('teleop/joint_states', message)))

    def _note_stamp(
        self, topic: str, message: JointTrajectory | JointState) -> tuple[int, float]:
        """Pass a stamp to the watch; returns the time on both clocks."""
        now_ns, now_s = self._clocks.now_ns(), self._clocks.now_s()
        # The stamp of a plan whose first point is due at once is the time of that point.
        if isinstance(message, JointState) or not _begins_at_stamp(message):
            self._watch.offsets.add(topic, nanoseconds_of(message.header.stamp), now_ns, now_s)
        return now_ns, now_s

    def _log_rejection(self, topic: str, reason: str | None) -> None:
        if reason is not None:
            self.warn(topic, reason)
            self._on_change()

    def _on_emergency_stop(self, message: Bool) -> None:
        self._mux.take_emergency_stop(message.data, self._clocks.now_s())
        self._on_change()

    def _on_emergency_stop_mismatch(self, _event: object) -> None:
        reason = 'a publisher of emergency_stop offers an incompatible QoS; it must be reliable'
        self._logger.error(reason)
        self._mux.take_emergency_stop_fault(reason)
        self._on_change()

    def _on_set_mode(
        self, request: SetControlMode.Request, response: SetControlMode.Response,
    ) -> SetControlMode.Response:
        now_ns = self._clocks.now_ns()
        if now_ns == 0:
            response.success, response.message = False, 'use_sim_time is set, but no /clock came'
            return response
        response.success, response.message = self._mux.set_mode(
            request.mode, now_ns, self._clocks.now_s())
        self._on_change()
        return response

    def _on_clear_stop(
        self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._mux.clear_stop(self._clocks.now_s())
        self._on_change()
        return response

    def _on_go_home(
        self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._mux.go_home(self._clocks.now_s())
        self._on_change()
        return response


def _begins_at_stamp(message: JointTrajectory) -> bool:
    return bool(message.points) and nanoseconds_of(message.points[0].time_from_start) == 0


def plain_trajectory(message: JointTrajectory) -> TrajectoryMessage:
    """Return a joint trajectory as plain data, unchecked."""
    return TrajectoryMessage(
        stamp_ns=nanoseconds_of(message.header.stamp),
        joints=tuple(message.joint_names),
        points=tuple(
            TrajectoryPoint(
                nanoseconds_of(point.time_from_start),
                point.positions, point.velocities, point.accelerations)
            for point in message.points))
