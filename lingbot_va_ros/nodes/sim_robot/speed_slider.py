"""The speed slider of a simulated Universal Robots arm, and the topic that reports it."""

from rclpy.node import Node
from std_msgs.msg import Float64

from lingbot_va_ros.nodes.qos import EVENTS
from lingbot_va_ros.sim.controllers.trajectory_controller import TrajectoryController

# As Universal Robots' driver names it.
TOPIC = 'speed_scaling_state_broadcaster/speed_scaling'
# The controller of CONTROLLERS whose robot has the slider.
SCALED_CONTROLLER = 'ur_scaled'
FULL_SPEED = 100.0  # percent


class SpeedSlider:
    """
    Sets the speed scaling of the controller, and publishes it in percent.

    The parameter `speed_scaling` moves the slider; any thread may do so. The driver of Universal
    Robots publishes it all the time, not only when it changes.

    :param percent: at first, 0 … 100.
    """

    def __init__(self, node: Node, percent: float):
        self.percent = percent
        self._publisher = node.create_publisher(Float64, TOPIC, EVENTS)

    def apply(self, controller: TrajectoryController) -> None:
        """Let the controller's trajectory time advance at the slider's share, and report it."""
        percent = self.percent
        controller.speed_scaling = percent / FULL_SPEED
        self._publisher.publish(Float64(data=percent))
