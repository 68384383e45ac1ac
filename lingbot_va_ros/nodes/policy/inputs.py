"""The topics that a configured policy reads: cameras, joint states, executed commands, mode."""

from collections.abc import Callable, Mapping
import functools
import time
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import Float32
from trajectory_msgs.msg import JointTrajectory

from lingbot_va_ros.motion.time import NANOSECONDS, to_nanoseconds
from lingbot_va_ros.motion.timeline import Timeline
from lingbot_va_ros.msg import ControlMode
from lingbot_va_ros.nodes import qos
from lingbot_va_ros.nodes.joint_state_watch import JointStateWatch, with_message_info
from lingbot_va_ros.nodes.policy.camera_inputs import CameraInputs, MAX_AHEAD_SIMULATED
from lingbot_va_ros.nodes.policy.configuration import Configuration
from lingbot_va_ros.nodes.stamps import nanoseconds_of
from lingbot_va_ros.policy.runtime.clock import Clock
from lingbot_va_ros.policy.runtime.clock_steps import ClockSteps
from lingbot_va_ros.policy.runtime.control_owner import ControlOwner
from lingbot_va_ros.specs.joint_state_topics import JointStateTopic

# Seconds that a stamp may be ahead right after the clock was set back; commands have the stamp of
# the time they are due.
MAX_AHEAD_SETTLING = 0.1


class PolicyInputs:
    """
    The subscriptions of one configuration, whose callbacks only store a reference.

    They run in the executor's thread; `not_ready_reason` is called by the inference thread.

    :param timeline: told the speed scale.
    :param clock: of ROS time; woken when all cameras have newer images, and when the control mode
        changes.
    :param steps: looked at before anything is kept or judged.
    """

    def __init__(
        self, node: Node, configuration: Configuration, clock: Clock, timeline: Timeline,
        steps: ClockSteps,
    ):
        self.control = ControlOwner()
        embodiment = configuration.embodiment
        self._watch = JointStateWatch(node, embodiment.joints, embodiment.joint_states)
        self._node = node
        self._clock = clock
        self._timeline = timeline
        self._steps = steps
        self._executed = configuration.executed
        self._joints = configuration.joints
        # The column of each joint in a row of positions.
        self._columns = {
            name: column for column, name in enumerate(embodiment.joints)}
        self._executed_publishers = 0
        self._subscriptions: list[Any] = []
        self.cameras = CameraInputs(
            node, configuration, clock, steps, self._is_of_the_time_before)
        self.look_around()
        self._subscribe(configuration)

    def close(self) -> None:
        """End all subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
        self.cameras.close()

    def clear(self) -> None:
        """Discard all received messages, after a step of the clock."""
        self.cameras.clear()
        self.control.restart(self._clock.now_ns())
        self._joints.clear()
        if self._executed is not None:
            self._executed.clear()

    def look_around(self) -> None:
        """Check whether the executed commands and the control mode have a publisher."""
        self.cameras.look_around()
        self._executed_publishers = self._node.count_publishers('executed')
        self.control.has_publisher = self._node.count_publishers('control_mode') > 0

    def not_ready_reason(self) -> str | None:
        """Return the reason, in one line, why the policy is not ready, or None."""
        self._steps.look()
        now = self._clock.now_ns()
        if now == 0 and self._node.get_parameter('use_sim_time').value:
            return '/clock: silent, or it stands at 0 (use_sim_time is true)'
        if self._executed is not None and not self._executed_publishers:
            return 'executed: no publisher of the commands that the arm received'
        unusable = self.cameras.not_ready_reason()
        if unusable:
            return unusable
        return self._joints.fault(
            self._now_s(), self._node.get_parameter('max_joint_age').value)

    def _now_s(self) -> float:
        """Return the time by which silence is judged: steady, or ROS time in simulation."""
        if self._is_simulated():
            return self._clock.now_ns() / NANOSECONDS
        return time.monotonic()

    def _is_simulated(self) -> bool:
        return bool(self._node.get_parameter('use_sim_time').value)

    def diagnostics(self) -> tuple[dict[str, str], list[str]]:
        """Return entries of /diagnostics on joint states, clocks, images, and what is wrong."""
        now_s = self._now_s()
        report = self._joints.report(now_s)
        values, warnings = self.cameras.diagnostics()
        return {**self._watch.values(report, now_s), **values}, [
            *self._watch.warnings(report, now_s, self._is_simulated()), *warnings]

    def _subscribe(self, configuration: Configuration) -> None:
        def subscribe(
            kind: type, topic: str, callback: Callable[..., None], profile: QoSProfile,
        ) -> None:
            self._subscriptions.append(
                self._node.create_subscription(kind, topic, callback, profile))

        for topic in configuration.embodiment.joint_states:
            subscribe(
                JointState, topic.topic,
                with_message_info(functools.partial(self._on_joint_state, topic)),
                qos.JOINT_STATES)
        subscribe(ControlMode, 'control_mode', self._on_control_mode, qos.LATCHED)
        subscribe(Float32, 'speed_scale', self._on_speed_scale, qos.LATCHED)
        if self._executed is not None:
            subscribe(JointTrajectory, 'executed', self._on_executed, qos.EXECUTED)

    def _is_of_the_time_before(self, stamp_ns: int) -> bool:
        """Return whether a message was sent before the clock was set back a moment ago."""
        return self._steps.is_settling() and (
            stamp_ns > self._clock.now_ns() + to_nanoseconds(MAX_AHEAD_SETTLING))

    def _on_joint_state(
        self, topic: JointStateTopic, message: JointState, info: Mapping[str, Any]) -> None:
        stamp = nanoseconds_of(message.header.stamp)
        if self._is_of_the_time_before(stamp):
            return
        now_ns, now_s = self._clock.now_ns(), self._now_s()
        self._joints.update(
            topic.our_names(message.name), message.position, message.velocity, stamp, now_ns,
            now_s)
        self._watch.take(topic, message, info, now_ns, now_s)

    def _on_executed(self, message: JointTrajectory) -> None:
        self._steps.look()
        stamp = nanoseconds_of(message.header.stamp)
        if self._executed is None or not message.points or self._is_of_the_time_before(stamp):
            return
        last = self._executed.newest()
        if last is None:
            last = self._joints.positions()
        if last is None:
            return
        row = last.copy()
        for name, position in zip(message.joint_names, message.points[0].positions):
            if name in self._columns:
                row[self._columns[name]] = position
        if not np.isfinite(row).all():
            self._node.get_logger().error(
                'executed: a position is not finite; it is not written to the memory',
                throttle_duration_sec=1.0)
            return
        self._executed.add(stamp, row)

    def _on_control_mode(self, message: ControlMode) -> None:
        if message.mode == self.control.mode:
            return  # only the reason has changed
        now, stamp = self._clock.now_ns(), nanoseconds_of(message.header.stamp)
        # Without a stamp, or with one of another clock, the time of arrival is used.
        known = 0 < stamp <= now + to_nanoseconds(MAX_AHEAD_SIMULATED)
        self.control.update(message.mode, self._timeline.to_plan(stamp if known else now))
        self._clock.wake()

    def _on_speed_scale(self, message: Float32) -> None:
        if not 0.0 < message.data <= 1.0:  # NaN too
            self._node.get_logger().error(
                f'speed_scale is {message.data:g}; expected a number above 0 and at most 1',
                throttle_duration_sec=1.0)
            return
        self._timeline.set_speed(message.data, self._clock.now_ns())
