"""What is near, for people: markers between nearest bodies, and the scale that they ask for."""

from collections.abc import Callable, Sequence

from geometry_msgs.msg import Point
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from lingbot_va_ros.mux.mux import Mux
from lingbot_va_ros.nodes.command_mux.clocks import Clocks
from lingbot_va_ros.nodes.qos import EVENTS
from lingbot_va_ros.nodes.stamps import stamp_of
from lingbot_va_ros.robot.collision import Near
from lingbot_va_ros.specs.collision import Collision

# Between two messages, s.
PERIOD_SECONDS = 0.1
# So many lines at most, the nearest; one at least, however far the nearest pair is.
MOST_LINES = 8
LINE_WIDTH = 0.006  # m
FAR, SLOW, STOPPED = (0.2, 0.9, 0.3), (1.0, 0.7, 0.1), (1.0, 0.2, 0.2)


class ProximityPublisher:
    """
    Publishes ~/collision_markers while somebody subscribes, and the speed scale as it changes.

    :param publish_speed: publishes the speed scale, if it changed.
    """

    def __init__(
        self, node: Node, mux: Mux, clocks: Clocks, publish_speed: Callable[[], None]) -> None:
        model = mux.collision
        if model is None:
            return
        self._mux = mux
        self._clocks = clocks
        self._publish_speed = publish_speed
        self._spec, self._frame = model.spec, model.frame
        self._publisher = node.create_publisher(MarkerArray, '~/collision_markers', EVENTS)
        node.create_timer(
            PERIOD_SECONDS, self._publish, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _publish(self) -> None:
        self._publish_speed()
        if not self._publisher.get_subscription_count():
            return
        pairs = self._mux.nearest(self._clocks.now_s(), MOST_LINES)
        if pairs:
            self._publisher.publish(
                marker_array(self._clocks.now_ns(), self._frame, pairs, self._spec))


def marker_array(
    now_ns: int, frame: str, pairs: Sequence[Near], spec: Collision) -> MarkerArray:
    """
    Return a line between the nearest points of each pair that is near, and of the nearest one.

    A line is red at the stop distance, orange below the slow distance, and else green.

    :param frame: of the points.
    :param pairs: the nearest first, at least one.
    """
    lines = Marker(ns='nearest', id=0, type=Marker.LINE_LIST, action=Marker.ADD)
    lines.header.frame_id, lines.header.stamp = frame, stamp_of(now_ns)
    lines.pose.orientation.w = 1.0
    lines.scale.x = LINE_WIDTH
    lines.color.a = 1.0
    for number, near in enumerate(pairs):
        if number and near.distance >= spec.slow_distance:
            break
        red, green, blue = (
            STOPPED if near.distance <= spec.stop_distance else
            SLOW if near.distance < spec.slow_distance else FAR)
        for x, y, z in near.points.tolist():
            lines.points.append(Point(x=x, y=y, z=z))
            lines.colors.append(ColorRGBA(r=red, g=green, b=blue, a=1.0))
    return MarkerArray(markers=[lines])
