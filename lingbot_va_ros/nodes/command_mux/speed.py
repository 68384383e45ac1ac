"""The speed scale of command_mux: its service, its publisher, and the driver's speed scaling."""

import functools
import threading

from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_msgs.msg import Float32, Float64

from lingbot_va_ros.mux.speed_scale import SpeedScale
from lingbot_va_ros.nodes.command_mux.controller_watch import offered_types
from lingbot_va_ros.nodes.qos import LATCHED, SENSOR
from lingbot_va_ros.srv import SetSpeed

SCALING_TYPE = 'std_msgs/msg/Float64'
LOOK_SECONDS = 0.5  # between two looks at the type of the driver's topic
# A driver may change its scaling at each cycle; so often the log tells, s.
LOG_SECONDS = 1.0


class SpeedInterface:
    """
    Serves ~/set_speed, reads the driver's speed scaling, publishes ~/speed_scale when it changes.

    :param topic: std_msgs/Float64 with the driver's speed scaling; empty: there is none.
    :param urgent: the callback group of the service, which waits for no message of another topic.
    """

    def __init__(
        self, node: Node, speed: SpeedScale, topic: str, urgent: CallbackGroup) -> None:
        self._logger = node.get_logger()
        self._speed = speed
        self._lock = threading.Lock()
        self._published: float | None = None
        self._publisher = node.create_publisher(Float32, '~/speed_scale', LATCHED)
        node.create_service(
            SetSpeed, '~/set_speed', self._on_set_speed, callback_group=urgent)
        if topic:
            node.create_subscription(Float64, topic, self._on_speed_scaling, SENSOR)
            node.create_timer(
                LOOK_SECONDS, functools.partial(self._look_at_type, node, topic),
                clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.publish()

    def publish(self) -> None:
        """Publish the scale in force, if it is another than the last one published."""
        with self._lock:
            scale = self._speed.scale
            if scale == self._published:
                return
            self._published = scale
            self._publisher.publish(Float32(data=scale))
        self._logger.info(
            f'speed scale {scale:g}, as the {self._speed.source} asks for',
            throttle_duration_sec=LOG_SECONDS)

    def _on_set_speed(
        self, request: SetSpeed.Request, response: SetSpeed.Response) -> SetSpeed.Response:
        response.success, response.message = self._speed.set_operator(request.scale)
        self.publish()
        return response

    def _look_at_type(self, node: Node, topic: str) -> None:
        offered = offered_types(node, topic)
        if offered and SCALING_TYPE not in offered:
            self._speed.refuse_driver(
                f'{topic} is {", ".join(sorted(offered))}, expected {SCALING_TYPE}')

    def _on_speed_scaling(self, message: Float64) -> None:
        refused = self._speed.take_driver(message.data)
        if refused:
            self._logger.warning(refused, throttle_duration_sec=1.0)
        self.publish()
