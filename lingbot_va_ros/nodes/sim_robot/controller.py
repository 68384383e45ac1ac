"""The topics of the simulated joint_trajectory_controller."""

from collections import deque
import time

from rclpy.node import Node
from trajectory_msgs.msg import JointTrajectory

from lingbot_va_ros.nodes.qos import EVENTS, EXECUTED
from lingbot_va_ros.nodes.sim_robot.messages import state_message, state_type, trajectory_of
from lingbot_va_ros.nodes.sim_robot.simulated_time import SimulatedTime
from lingbot_va_ros.sim.controllers.control_loop import ControlLoop
from lingbot_va_ros.sim.controllers.messages import TrajectoryRejected
from lingbot_va_ros.sim.simulation import Simulation

NAME = 'joint_trajectory_controller'
QUIET_SECONDS = 1.0  # between two lines of the log about rejected messages


class ControllerTopics:
    """
    Passes messages to the controller, and publishes its state.

    The executor's thread keeps arriving messages; all methods are for the simulation thread.
    """

    def __init__(self, node: Node, simulated_time: SimulatedTime):
        self._node = node
        self._time = simulated_time
        self._arrived: deque[tuple[int, JointTrajectory]] = deque()  # with steady time, ns
        self._logged_at, self._logged_count = float('-inf'), 0
        self._violations = 0
        self._published_ns = -1
        node.create_subscription(
            JointTrajectory, f'{NAME}/joint_trajectory', self._on_trajectory, EXECUTED)
        self._state_type = state_type()
        self._states = None
        if self._state_type is None:
            node.get_logger().info(
                f'{NAME}/controller_state is not published: the package control_msgs is missing')
        else:
            self._states = node.create_publisher(
                self._state_type, f'{NAME}/controller_state', EVENTS)

    def listen(self, simulation: Simulation) -> None:
        """Log what the controller of a new simulation rejects."""
        control = simulation.control
        assert isinstance(control, ControlLoop)
        control.on_rejected = lambda rejected: self.on_rejected(simulation, rejected)

    def deliver(self, simulation: Simulation, until_ns: int) -> None:
        """
        Send messages to the controller that arrived by a simulated time.

        A message whose stamp is earlier than its arrival counts as sent at its stamp: a busy
        machine delivers messages late, and `controller_delay` is the delay that is wanted.
        """
        while self._arrived:
            sent_ns = self._sent_ns(simulation, *self._arrived[0])
            if sent_ns > until_ns:
                return
            message = self._arrived.popleft()[1]
            control = simulation.control
            assert isinstance(control, ControlLoop)
            control.send(
                trajectory_of(message, self._time.of_stamp(message.header.stamp)), sent_ns)

    def publish(self, simulation: Simulation) -> None:
        """Publish the state after the last update, and log violated tolerances."""
        controller = simulation.controller
        if controller.violations != self._violations:
            self._violations = controller.violations
            self._node.get_logger().error(
                f'the controller holds: {controller.last_violation}', throttle_duration_sec=1.0)
        state = controller.state
        if self._states is None or state is None or state.stamp_ns == self._published_ns:
            return
        self._published_ns = state.stamp_ns
        message = state_message(self._state_type, controller.joints, state)
        message.header.stamp = self._time.stamp(state.stamp_ns)
        self._states.publish(message)

    def on_rejected(self, simulation: Simulation, rejected: TrajectoryRejected) -> None:
        """Log a rejection, at most once a second."""
        count = simulation.controller.rejected
        if time.monotonic() - self._logged_at < QUIET_SECONDS:
            return
        between = count - self._logged_count - 1
        more = f' ({between} more since the last line, {count} in all)' if between > 0 else ''
        self._node.get_logger().error(f'trajectory rejected: {rejected}{more}')
        self._logged_at, self._logged_count = time.monotonic(), count

    def _on_trajectory(self, message: JointTrajectory) -> None:
        self._arrived.append((time.monotonic_ns(), message))

    def _sent_ns(
        self, simulation: Simulation, arrived_ns: int, message: JointTrajectory) -> int:
        """Return when a message counts as sent, simulated time; not before the present."""
        if self._time.has_clock:
            return simulation.time_ns
        came_ns = self._time.of_steady(arrived_ns)
        stamp_ns = self._time.of_stamp(message.header.stamp)
        return max(simulation.time_ns, min(came_ns, stamp_ns or came_ns))
