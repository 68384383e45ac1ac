"""The wrench topics that the contact limits of an embodiment file name."""

from collections.abc import Callable

from geometry_msgs.msg import WrenchStamped
from rclpy.node import Node

from lingbot_va_ros.mux.contact import ContactWatch
from lingbot_va_ros.nodes.command_mux.clocks import Clocks
from lingbot_va_ros.nodes.command_mux.controller_watch import offered_types
from lingbot_va_ros.nodes.qos import SENSOR
from lingbot_va_ros.specs.embodiment import Embodiment

TYPE = 'geometry_msgs/msg/WrenchStamped'


class ContactInputs:
    """Hands wrenches to the contact watch."""

    def __init__(
        self, node: Node, embodiment: Embodiment, watch: ContactWatch, clocks: Clocks) -> None:
        self._node = node
        self._watch = watch
        self._clocks = clocks
        self._topics = [wrench.topic for wrench in embodiment.contact.wrenches]
        for topic in self._topics:
            node.create_subscription(WrenchStamped, topic, self._taker(topic), SENSOR)

    def faults(self) -> list[str]:
        """Return the topics that have another type, a line each."""
        found = []
        for topic in self._topics:
            offered = offered_types(self._node, topic)
            if offered - {TYPE}:
                found.append(f'{topic} (is {", ".join(sorted(offered))}, expected {TYPE})')
        return found

    def _taker(self, topic: str) -> Callable[[WrenchStamped], None]:
        def take(message: WrenchStamped) -> None:
            force, torque = message.wrench.force, message.wrench.torque
            self._watch.take_wrench(
                topic, (force.x, force.y, force.z, torque.x, torque.y, torque.z),
                self._clocks.now_s())

        return take
