"""The parameters of sim_robot."""

from typing import Any

from rclpy.node import Node

from lingbot_va_ros.nodes.parameters import NodeParameter
from lingbot_va_ros.sim.controllers.direct_driver import INTERFACES
from lingbot_va_ros.sim.controllers.settings import (
    controller_settings,
    CONTROLLERS,
    ControllerSettings,
)

TRAJECTORY = 'trajectory'  # the command interface of a joint_trajectory_controller

PARAMETERS = (
    NodeParameter('task', 'table', 'Scene on the table. A change takes effect at the next reset.'),
    NodeParameter(
        'seed', 0, 'Random seed of the scene. A change takes effect at the next reset.',
        0, 2**31 - 1),
    NodeParameter(
        'arms', 'left', 'Arms of the robot.', choices=('left', 'right', 'both'), read_only=True),
    NodeParameter('realtime_factor', 1.0, 'Simulated seconds per real second.', 0.01, 100.0),
    NodeParameter(
        'publish_clock', False,
        'Publish the simulated time on /clock and stamp with it; otherwise stamp with ROS time.',
        read_only=True),
    NodeParameter(
        'reset_clock', False, 'A reset sets the simulated time (publish_clock) back to zero.'),
    NodeParameter(
        'command_interface', TRAJECTORY,
        'What the robot takes: trajectories as a joint_trajectory_controller does, or positions '
        'or velocities of every tick.', choices=(TRAJECTORY, *INTERFACES), read_only=True),
    NodeParameter(
        'command_timeout', 0.1,
        'Silence after which a robot that takes forward_velocity stops, simulated seconds; 0: it '
        'never does.', 0.0, 10.0, read_only=True),
    NodeParameter(
        'controller', 'jazzy',
        'joint_trajectory_controller of a distribution, or the scaled one of Universal Robots.',
        choices=CONTROLLERS, read_only=True),
    NodeParameter(
        'controller_rate', 500.0, 'Updates of the controller per simulated second.', 10.0, 1000.0,
        read_only=True),
    NodeParameter(
        'controller_delay', 0.0, 'Simulated seconds that a message to the controller takes.',
        0.0, 1.0, read_only=True),
    NodeParameter(
        'interpolate_from_desired_state', True,
        "The controller's parameter of this name (Humble: open_loop_control).", read_only=True),
    NodeParameter(
        'speed_scaling', 100.0,
        'Speed slider in percent, of the controller ur_scaled alone; published on '
        'speed_scaling_state_broadcaster/speed_scaling.', 0.0, 100.0),
    NodeParameter(
        'camera_rate', 30.0, 'Images per simulated second and camera.', 0.1, 100.0,
        read_only=True),
    NodeParameter(
        'camera_width', 128, 'Width of the images in pixels.', 16, 1920, read_only=True),
    NodeParameter(
        'camera_height', 128, 'Height of the images in pixels.', 16, 1080, read_only=True),
    NodeParameter(
        'overview_rate', 0.0,
        'Images per simulated second of the overview camera, on camera/overview/image_raw; 0: '
        'none.', 0.0, 30.0, read_only=True),
)


def read_controller_settings(node: Node) -> ControllerSettings:
    """Return the settings of the controller from a node's parameters."""
    def value(name: str) -> Any:
        return node.get_parameter(name).value

    return controller_settings(
        value('controller'), rate=float(value('controller_rate')),
        joins_last_command=value('interpolate_from_desired_state'))
