"""The scene of the task in simulation, and the topic with the state of the task."""

from collections.abc import Callable
import json

from rclpy.node import Node
from std_msgs.msg import String

from lingbot_va_ros.nodes.qos import LATCHED
from lingbot_va_ros.nodes.sim_robot.parameters import read_controller_settings, TRAJECTORY
from lingbot_va_ros.sim.simulation import Simulation


class TaskScene:
    """
    The simulation with the scene that the parameters `task` and `seed` ask for.

    :param make_simulation: the class Simulation.
    :raises ValueError: the parameters name no scene or no arms.
    """

    def __init__(self, node: Node, make_simulation: Callable[..., Simulation]):
        self._node = node
        self._make_simulation = make_simulation
        self.simulation = self._new_simulation()
        self._states = node.create_publisher(String, '~/task_state', LATCHED)

    def arrange(self) -> str:
        """
        Reset the scene, with the arms at home, and return its task and seed.

        Time and the counts of messages continue.
        """
        task = self._node.get_parameter('task').value
        seed = self._node.get_parameter('seed').value
        before = self.simulation
        if task == before.task:
            before.reset(seed)
        else:
            after = self._new_simulation()
            after.continue_from(before)
            before.close()
            self.simulation = after
        return f'task {task}, seed {seed}'

    def publish(self) -> None:
        """Publish the state of the task."""
        state = self.simulation.task_state
        controller = self.simulation.controller
        self._states.publish(String(data=json.dumps({
            'task': self.simulation.task, 'counts': state.counts, 'done': state.done,
            'success': state.success, 'detail': state.detail,
            'accepted_trajectories': controller.accepted,
            'rejected_trajectories': controller.rejected})))

    def _new_simulation(self) -> Simulation:
        value = {name: self._node.get_parameter(name).value for name in (
            'task', 'arms', 'seed', 'camera_width', 'camera_height', 'controller_delay')}
        simulation = self._make_simulation(
            value['task'], value['arms'], value['seed'], value['camera_width'],
            value['camera_height'], read_controller_settings(self._node),
            float(value['controller_delay']))
        interface = self._node.get_parameter('command_interface').value
        if interface != TRAJECTORY:
            simulation.drive_directly(
                interface == 'forward_velocity',
                float(self._node.get_parameter('command_timeout').value))
        return simulation
