"""The two clocks of command_mux: ROS time, and the clock of the watchdogs."""

import time

from rclpy.node import Node

from lingbot_va_ros.motion.time import NANOSECONDS


class Clocks:
    """Reads ROS time, and the watchdogs' clock: steady time, or ROS time in simulation."""

    def __init__(self, node: Node) -> None:
        self._clock = node.get_clock()
        self.is_simulated = bool(node.get_parameter('use_sim_time').value)

    def now_ns(self) -> int:
        """Return ROS time in ns; 0 before the first /clock."""
        return int(self._clock.now().nanoseconds)

    def now_s(self) -> float:
        """Return the watchdogs' clock in seconds."""
        return self.now_ns() / NANOSECONDS if self.is_simulated else time.monotonic()
