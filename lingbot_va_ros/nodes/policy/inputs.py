"""The topics that a configured policy reads: cameras, joint states, executed commands, mode."""

from collections.abc import Callable
import functools
import time
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float32
from trajectory_msgs.msg import JointTrajectory

from lingbot_va_ros.motion.time import to_nanoseconds
from lingbot_va_ros.motion.timeline import Timeline
from lingbot_va_ros.msg import ControlMode
from lingbot_va_ros.nodes import qos
from lingbot_va_ros.nodes.image_conversion import (
    as_mounted,
    compressed_to_rgb,
    image_fault,
    to_rgb,
)
from lingbot_va_ros.nodes.policy.configuration import Configuration
from lingbot_va_ros.nodes.policy.parameters import declare_camera
from lingbot_va_ros.nodes.stamps import nanoseconds_of
from lingbot_va_ros.policy.runtime.clock import Clock
from lingbot_va_ros.policy.runtime.clock_steps import ClockSteps
from lingbot_va_ros.policy.runtime.control_owner import ControlOwner

# A stamp may be ahead of a simulated clock that advances in steps. A stamp further ahead is of
# another clock, or of the time before a reset of the simulation; later images would count as
# older.
MAX_AHEAD = 1.0  # seconds
# The same right after the clock was set back; commands have the stamp of the time they are due.
MAX_AHEAD_SETTLING = 0.1  # seconds
# Seconds for which the executor's thread yields the GIL to the inference thread that it has woken.
GIL_YIELD_SECONDS = 0.0002


class PolicyInputs:
    """
    The subscriptions of one configuration, whose callbacks only store a reference.

    They run in the executor's thread; `to_rgb` and `not_ready_reason` are called by the
    inference thread.

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
        self._node = node
        self._clock = clock
        self._timeline = timeline
        self._steps = steps
        self._embodiment = configuration.embodiment
        self._cameras = configuration.cameras
        self._executed = configuration.executed
        self._joints = configuration.joints
        # The column of each joint in a row of positions.
        self._columns = {
            name: column for column, name in enumerate(configuration.embodiment.joints)}
        self._camera_faults: dict[str, str] = {}
        self._executed_publishers = 0
        self._subscriptions: list[Any] = []
        self.count_publishers()
        self._subscribe(configuration)

    def close(self) -> None:
        """End all subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def clear(self) -> None:
        """Discard all received messages, after a step of the clock."""
        self._camera_faults.clear()
        self.control.restart(self._clock.now_ns())
        self._cameras.clear()
        self._joints.clear()
        if self._executed is not None:
            self._executed.clear()

    def count_publishers(self) -> None:
        """Check whether the executed commands and the control mode have a publisher."""
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
        for name, fault in list(self._camera_faults.items()):
            return f'camera {name}: {fault}'
        faults = self._cameras.faults(now, self._node.get_parameter('max_camera_age').value)
        if faults:
            return '; '.join(faults)
        return self._joints.fault(now, self._node.get_parameter('max_joint_age').value)

    def to_rgb(self, camera: str, message: Image | CompressedImage) -> np.ndarray:
        """
        Convert an image to RGB uint8 [H, W, 3], cropped and flipped as the embodiment requires.

        :raises CameraFault: the image cannot be converted.
        """
        image = to_rgb(message) if isinstance(message, Image) else compressed_to_rgb(message)
        source = self._embodiment.cameras.get(camera)
        return image if source is None else as_mounted(image, source.crop, source.flip)

    def _subscribe(self, configuration: Configuration) -> None:
        def subscribe(
            kind: type, topic: str, callback: Callable[..., None], profile: QoSProfile,
        ) -> None:
            self._subscriptions.append(
                self._node.create_subscription(kind, topic, callback, profile))

        for name in configuration.policy.cameras:
            source = self._embodiment.cameras.get(name)
            topic, transport = declare_camera(
                self._node, name, source.topic if source else f'camera/{name}/image_raw',
                source.transport if source else 'raw')
            if transport == 'raw':
                subscribe(Image, topic, functools.partial(self._on_image, name), qos.SENSOR)
            else:
                subscribe(
                    CompressedImage, f'{topic}/compressed',
                    functools.partial(self._on_compressed, name), qos.SENSOR)
        subscribe(JointState, 'joint_states', self._on_joint_state, qos.JOINT_STATES)
        subscribe(ControlMode, 'control_mode', self._on_control_mode, qos.LATCHED)
        subscribe(Float32, 'speed_scale', self._on_speed_scale, qos.LATCHED)
        if self._executed is not None:
            subscribe(JointTrajectory, 'executed', self._on_executed, qos.EXECUTED)

    def _on_image(self, camera: str, message: Image) -> None:
        self._keep_image(camera, message, image_fault(message))

    def _on_compressed(self, camera: str, message: CompressedImage) -> None:
        self._keep_image(camera, message, None)

    def _keep_image(
        self, camera: str, message: Image | CompressedImage, fault: str | None,
    ) -> None:
        self._steps.look()
        stamp = nanoseconds_of(message.header.stamp)
        if self._is_of_the_time_before(stamp):
            return
        if not fault and stamp > self._clock.now_ns() + to_nanoseconds(MAX_AHEAD):
            fault = f"stamps are more than {MAX_AHEAD:g} s ahead of this node's clock"
        if fault:
            if self._camera_faults.get(camera) != fault:
                self._node.get_logger().error(f'camera {camera}: {fault}')
            self._camera_faults[camera] = fault
            return
        self._camera_faults.pop(camera, None)
        if self._cameras.add(camera, stamp, message):
            self._clock.wake()
            # The woken thread gets the GIL now, not when this thread next waits.
            time.sleep(GIL_YIELD_SECONDS)

    def _is_of_the_time_before(self, stamp_ns: int) -> bool:
        """Return whether a message was sent before the clock was set back a moment ago."""
        return self._steps.is_settling() and (
            stamp_ns > self._clock.now_ns() + to_nanoseconds(MAX_AHEAD_SETTLING))

    def _on_joint_state(self, message: JointState) -> None:
        stamp = nanoseconds_of(message.header.stamp)
        if self._is_of_the_time_before(stamp):
            return
        self._joints.update(
            message.name, message.position, stamp)

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
        known = 0 < stamp <= now + to_nanoseconds(MAX_AHEAD)
        self.control.update(message.mode, self._timeline.to_plan(stamp if known else now))
        self._clock.wake()

    def _on_speed_scale(self, message: Float32) -> None:
        if not 0.0 < message.data <= 1.0:  # NaN too
            self._node.get_logger().error(
                f'speed_scale is {message.data:g}; expected a number above 0 and at most 1',
                throttle_duration_sec=1.0)
            return
        self._timeline.set_speed(message.data, self._clock.now_ns())
