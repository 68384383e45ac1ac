"""The inputs of teleoperation by the tool: twists, poses of hands, and a joystick."""

from collections.abc import Callable, Mapping
import functools
from typing import Any

from geometry_msgs.msg import PoseStamped, TwistStamped
import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import Joy

from lingbot_va_ros.mux.hand_input import take_hand
from lingbot_va_ros.mux.joystick import JoyMessage
from lingbot_va_ros.mux.mux import Mux
from lingbot_va_ros.mux.tool_messages import ToolPose, ToolTwist
from lingbot_va_ros.nodes.bounded_subscription import state_fault, subscribe_bounded
from lingbot_va_ros.nodes.command_mux.clocks import Clocks
from lingbot_va_ros.nodes.command_mux.tf_reader import TfReader
from lingbot_va_ros.nodes.qos import SENSOR
from lingbot_va_ros.nodes.stamps import nanoseconds_of
from lingbot_va_ros.specs.embodiment import Embodiment


class TeleopInputs:
    """
    Passes twists, poses and joystick messages to the mux.

    :param reads_joy: whether a joystick does anything.
    :param report: gets the topic and the reason of every message that is rejected.
    :param on_change: called after every input that may change the mode.
    """

    def __init__(
        self, node: Node, mux: Mux, embodiment: Embodiment, clocks: Clocks, reads_joy: bool,
        report: Callable[[str, str], None], on_change: Callable[[], None],
    ) -> None:
        self._mux = mux
        self._tool = mux.sources.tool
        self._clocks = clocks
        self._report = report
        self._on_change = on_change
        self._tf = TfReader(node)
        sides = [arm.side for arm in embodiment.arms]
        for side in sides:
            for prefix in (f'teleop/{side}', *(['teleop'] if len(sides) == 1 else [])):
                for kind, what, take in (
                        (TwistStamped, 'twist', self._on_twist),
                        (PoseStamped, 'pose', self._on_pose)):
                    topic = f'{prefix}/{what}'
                    subscribe_bounded(
                        node, kind, topic, functools.partial(take, side, topic), SENSOR,
                        state_fault, functools.partial(report, topic))
        if reads_joy:
            subscribe_bounded(
                node, Joy, 'joy', self._on_joy, SENSOR, state_fault,
                functools.partial(report, 'joy'))

    def _on_twist(
        self, side: str, topic: str, message: TwistStamped, _info: Mapping[str, Any]) -> None:
        linear, angular = message.twist.linear, message.twist.angular
        frame, pose = self._frame(side, topic, message.header.frame_id)
        if frame is None:
            return
        twist = ToolTwist(
            side, nanoseconds_of(message.header.stamp), frame,
            (linear.x, linear.y, linear.z, angular.x, angular.y, angular.z), pose)
        now_ns, now_s = self._clocks.now_ns(), self._clocks.now_s()
        self._answer(topic, self._mux.take_from(
            self._tool, lambda: self._tool.take_twist(twist, now_ns, now_s)))

    def _on_pose(
        self, side: str, topic: str, message: PoseStamped, _info: Mapping[str, Any]) -> None:
        place, turn = message.pose.position, message.pose.orientation
        frame, pose = self._frame(side, topic, message.header.frame_id)
        if frame is None:
            return
        self._answer(topic, take_hand(
            self._mux, ToolPose(
                side, nanoseconds_of(message.header.stamp), frame, (place.x, place.y, place.z),
                (turn.x, turn.y, turn.z, turn.w), pose),
            self._clocks.now_ns(), self._clocks.now_s()))

    def _frame(self, side: str, topic: str, name: str) -> tuple[str | None, np.ndarray | None]:
        """Return a frame's name, and its pose where tf has to tell; no name: it was refused."""
        name = name.lstrip('/')
        base = self._tool.frame_to_look_up(side, name)
        if not base:
            return name, None
        pose = self._tf.pose(base, name)
        if isinstance(pose, str):
            self._answer(topic, self._mux.take_refusal(
                self._tool, self._tool.arms[side].frames.refuse(name, pose)))
            return None, None
        return name, pose

    def _on_joy(self, message: Joy, _info: Mapping[str, Any]) -> None:
        self._answer('joy', self._mux.take_joy(
            JoyMessage(nanoseconds_of(message.header.stamp), message.axes, message.buttons),
            self._clocks.now_ns(), self._clocks.now_s()))
        self._on_change()

    def _answer(self, topic: str, reason: str | None) -> None:
        if reason is not None:
            self._report(topic, reason)
            self._on_change()
