"""ros2_control as launch actions: its manager, its controllers and the robot's description."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_prefix, PackageNotFoundError
from launch import LaunchContext
from launch.action import Action
from launch.actions import OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from lingbot_va_ros.launching.arguments import Arguments

CONTROL_PACKAGES = (
    'controller_manager', 'robot_state_publisher', 'joint_state_broadcaster',
    'joint_trajectory_controller')
# Longest wait of the spawner; a simulator may load a world slowly.
_CONTROLLER_MANAGER_SECONDS = '120'


class MissingPackages(RuntimeError):
    """ROS packages of a launch file are not installed; the message names them."""


def require(packages: Sequence[str]) -> None:
    """
    Check that ROS packages are installed.

    :raises MissingPackages: names those that are not.
    """
    missing = []
    for package in packages:
        try:
            get_package_prefix(package)
        except PackageNotFoundError:
            missing.append(package)
    if missing:
        raise MissingPackages(
            f'not installed: {", ".join(missing)}; each is the package ros-$ROS_DISTRO-NAME of '
            'apt, with - for _')


def node(namespace: str, package: str, executable: str, **settings: Any) -> Node:
    """Return a node of another package, which prints to the terminal."""
    return Node(
        package=package, executable=executable, namespace=namespace, output='screen', **settings)


def robot_state_publisher(arguments: Arguments, description: str) -> Node:
    """Return the node that publishes a URDF on robot_description, and the frames of its links."""
    return node(
        arguments.namespace, 'robot_state_publisher', 'robot_state_publisher',
        name='robot_state_publisher',
        parameters=[{
            'robot_description': ParameterValue(description, value_type=str),
            'use_sim_time': arguments.use_sim_time}])


def controller_manager(
    arguments: Arguments, parameters: Path, remappings: Sequence[tuple[str, str]] = (),
) -> Node:
    """
    Return ros2_control's manager, which takes the URDF from the topic robot_description.

    It has no name of its own: that would be given to every controller, which are nodes of this
    process.

    :param parameters: file with the parameters of the manager and its controllers.
    :param remappings: further ones, (from, to).
    """
    return node(
        arguments.namespace, 'controller_manager', 'ros2_control_node',
        parameters=[str(parameters), {'use_sim_time': arguments.use_sim_time}],
        # Humble's manager listens in its own namespace.
        remappings=[('~/robot_description', 'robot_description'), *remappings])


def spawner(
    namespace: str, controllers: Sequence[str] = ('joint_trajectory_controller',),
) -> Node:
    """Return the process that loads and activates the controllers and the broadcaster."""
    return node(namespace, 'controller_manager', 'spawner', arguments=[
        'joint_state_broadcaster', *controllers, '--controller-manager', 'controller_manager',
        '--controller-manager-timeout', _CONTROLLER_MANAGER_SECONDS])


def then(first: Node, following: list[Action], fault: str) -> Action:
    """Start the following actions when a process has succeeded; end the launch if it failed."""
    def go_on(context: LaunchContext) -> list[Action]:
        if context.locals.event.returncode != 0 and not context.is_shutdown:
            raise RuntimeError(fault)
        return following

    return RegisterEventHandler(
        OnProcessExit(target_action=first, on_exit=[OpaqueFunction(function=go_on)]))


def end_with(process: Node, fault: str) -> Action:
    """End the launch when a process ends by itself."""
    def end(context: LaunchContext) -> None:
        if not context.is_shutdown:
            raise RuntimeError(fault)

    return RegisterEventHandler(
        OnProcessExit(target_action=process, on_exit=[OpaqueFunction(function=end)]))
