"""Simulated time of sim_robot: paced by real time, and converted to stamps and back."""

import threading

from builtin_interfaces.msg import Time
from rclpy.node import Node

from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.nodes.stamps import nanoseconds_of, stamp_of
from lingbot_va_ros.sim.pacing import Pacing, SteadyOffset


class SimulatedTime:
    """
    Converts between simulated time, steady time and stamps. For the simulation thread.

    :param has_clock: stamps are simulated time, as on /clock; otherwise they are ROS time.
    :param factor: simulated seconds per real second.
    """

    def __init__(self, node: Node, has_clock: bool, factor: float):
        self.has_clock = has_clock
        self.factor = factor  # may be set from another thread
        self._node = node
        self._pacing = Pacing(factor)
        self._ros_offset = SteadyOffset(lambda: int(node.get_clock().now().nanoseconds))

    def wait_for(self, simulated_ns: int, interrupted: threading.Event, warns: bool) -> None:
        """Wait until a simulated time is due; if it is long overdue, drop the delay."""
        if self.factor != self._pacing.factor:
            self._pacing = Pacing(self.factor)
        dropped_ns = self._pacing.wait_for(simulated_ns, interrupted)
        if dropped_ns and warns:
            self._node.get_logger().warning(
                f'the simulation is {dropped_ns / NANOSECONDS:.2f} s behind and drops that '
                f'time: this machine is too slow for realtime_factor {self.factor:g}',
                throttle_duration_sec=5.0)

    def forget(self) -> None:
        """Restart the pacing, because simulated time was set."""
        self._pacing.forget()

    def follow_ros_time(self) -> None:
        """Read ROS time; call this repeatedly."""
        if not self.has_clock:
            self._ros_offset.follow()

    def stamp(self, simulated_ns: int) -> Time:
        """Return the stamp of a simulated time."""
        if self.has_clock:
            return stamp_of(simulated_ns)
        return stamp_of(self._pacing.due(simulated_ns) + self._ros_offset.ns)

    def of_stamp(self, stamp: Time) -> int:
        """Return the simulated time of a stamp, ns; zero stays zero, which means now."""
        stamp_ns = nanoseconds_of(stamp)
        if self.has_clock or stamp_ns == 0:
            return stamp_ns
        return self._pacing.simulated(stamp_ns - self._ros_offset.ns) or 1

    def of_steady(self, steady_ns: int) -> int:
        """Return the simulated time of a steady time, ns."""
        return self._pacing.simulated(steady_ns)
