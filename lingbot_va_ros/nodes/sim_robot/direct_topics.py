"""The command topic of a simulated robot that takes positions or velocities, no trajectories."""

from collections import deque
from collections.abc import Sequence
import time
from typing import Any

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from lingbot_va_ros.nodes.qos import EXECUTED
from lingbot_va_ros.nodes.sim_robot.simulated_time import SimulatedTime
from lingbot_va_ros.sim.controllers.direct_driver import DirectDriver, INTERFACES
from lingbot_va_ros.sim.simulation import Simulation


class DirectTopics:
    """
    Passes rows to the driver.

    The executor's thread keeps arriving messages; the other methods are for the simulation thread.

    :param joints: of the robot, in the order of a row.
    """

    def __init__(
        self, node: Node, simulated_time: SimulatedTime, interface: str, joints: Sequence[str],
    ) -> None:
        self._logger = node.get_logger()
        self._time = simulated_time
        self._column_of = {name: column for column, name in enumerate(joints)}
        self._arrived: deque[tuple[int, np.ndarray]] = deque()  # with steady time, ns
        kind = JointState if interface == 'joint_state' else Float64MultiArray
        self.topic = INTERFACES[interface]
        node.create_subscription(kind, self.topic, self._on_row, EXECUTED)

    def listen(self, _simulation: Simulation) -> None:
        """Log nothing: such a driver rejects nothing."""

    def deliver(self, simulation: Simulation, until_ns: int) -> None:
        """Send rows to the driver that arrived by a simulated time."""
        driver = simulation.control
        assert isinstance(driver, DirectDriver)
        while self._arrived:
            now_ns = simulation.time_ns
            came_ns = now_ns if self._time.has_clock else max(
                now_ns, self._time.of_steady(self._arrived[0][0]))
            if came_ns > until_ns:
                return
            driver.send(self._arrived.popleft()[1], came_ns)

    def publish(self, _simulation: Simulation) -> None:
        """Publish nothing: such a driver has no state."""

    def _on_row(self, message: Any) -> None:
        row = np.full(len(self._column_of), np.nan)
        if isinstance(message, JointState):
            for name, position in zip(message.name, message.position):
                if name in self._column_of:
                    row[self._column_of[name]] = position
        elif len(message.data) == len(row):
            row[:] = message.data
        if not np.isfinite(row).any() or np.isinf(row).any():
            self._logger.error(
                f'a row on {self.topic} has no {len(row)} finite numbers',
                throttle_duration_sec=1.0)
            return
        self._arrived.append((time.monotonic_ns(), row))
