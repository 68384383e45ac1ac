"""Gazebo and Isaac Sim as launch actions: the robot's description, controllers, bridges."""

from collections.abc import Sequence
from pathlib import Path
import shlex

from ament_index_python.packages import get_package_prefix, PackageNotFoundError
from launch import LaunchContext
from launch.action import Action
from launch.actions import IncludeLaunchDescription, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from lingbot_va_ros.launching.arguments import (
    Arguments,
    GazeboArguments,
    IsaacArguments,
    SIM_EMBODIMENTS,
)
from lingbot_va_ros.launching.bridges import IsaacTopics, read_isaac_topics
from lingbot_va_ros.launching.description import describe
from lingbot_va_ros.launching.nodes import image_profile
from lingbot_va_ros.resources import shared_file
from lingbot_va_ros.specs.embodiment import load_embodiment

_CONTROLLERS = ('joint_state_broadcaster', 'joint_trajectory_controller')
_CONTROL_PACKAGES = ('controller_manager', 'robot_state_publisher', 'xacro', *_CONTROLLERS)
_GAZEBO_PACKAGES = (
    'ros_gz_sim', 'ros_gz_bridge', 'ros_gz_image', 'gz_ros2_control', *_CONTROL_PACKAGES)
_ISAAC_PACKAGES = ('joint_state_topic_hardware_interface', *_CONTROL_PACKAGES)
# Longest wait of the spawner; a simulator may load a world slowly.
_CONTROLLER_MANAGER_SECONDS = '120'


class MissingPackages(RuntimeError):
    """ROS packages of a launch file are not installed; the message names them."""


def gazebo(arguments: GazeboArguments) -> list[Action]:
    """
    Return Gazebo with the simulated robot, its controllers, and the bridges.

    The launch ends if Gazebo exits or the robot cannot be spawned.

    :raises MissingPackages: names the packages that are not installed.
    """
    _require(_GAZEBO_PACKAGES)
    namespace = arguments.namespace
    controllers = _controllers(arguments.arms)
    description = describe(
        arguments.arms, 'gazebo', controllers=str(controllers),
        namespace=namespace.strip('/'))
    options = '-r -s --headless-rendering' if arguments.headless else '-r'
    simulator = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution(
            [FindPackageShare('ros_gz_sim'), 'launch', 'gz_sim.launch.py'])),
        launch_arguments=[
            ('gz_args', f'{options} {shlex.quote(arguments.world)}'),
            ('on_exit_shutdown', 'true')])
    create = _node(namespace, 'ros_gz_sim', 'create', arguments=[
        '-topic', 'robot_description', '-name', 'sim_robot'])
    bridge = _node(
        namespace, 'ros_gz_bridge', 'parameter_bridge', name='gazebo_bridge',
        parameters=[{'config_file': arguments.bridge_config}])
    images = _node(
        namespace, 'ros_gz_image', 'image_bridge', name='gazebo_image_bridge',
        arguments=[source.topic for source in
                   load_embodiment(SIM_EMBODIMENTS[arguments.arms]).cameras.values()],
        additional_env=image_profile())
    return [
        simulator, _robot_state_publisher(arguments, description), bridge, images,
        _then(create, [_spawner(namespace)], 'the robot could not be spawned in the world'),
        create]


def isaac_control(arguments: IsaacArguments) -> list[Action]:
    """
    Return ros2_control on Isaac Sim's joint topics, unless it runs elsewhere.

    :raises MissingPackages: names the packages that are not installed.
    """
    if not arguments.start_controllers:
        return []
    _require(_ISAAC_PACKAGES)
    namespace = arguments.namespace
    topics = read_isaac_topics(arguments.bridge_config)
    description = describe(
        arguments.arms, 'isaac', joint_states=_absolute(arguments, topics.joint_states),
        joint_commands=_absolute(arguments, topics.joint_commands))
    manager = _node(
        namespace, 'controller_manager', 'ros2_control_node',
        parameters=[str(_controllers(arguments.arms)), {'use_sim_time': arguments.use_sim_time}])
    return [_robot_state_publisher(arguments, description), manager, _spawner(namespace)]


def isaac_cameras(arguments: IsaacArguments) -> list[tuple[str, str]]:
    """Return the remaps (from, to) of the embodiment's image topics to Isaac Sim's."""
    topics: IsaacTopics = read_isaac_topics(arguments.bridge_config)
    cameras = load_embodiment(arguments.embodiment).cameras
    return [(source.topic, topics.cameras[name]) for name, source in cameras.items()
            if topics.cameras.get(name, source.topic) != source.topic]


def _require(packages: Sequence[str]) -> None:
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


def _controllers(arms: str) -> Path:
    return shared_file('config', 'bridges', 'controllers', f'{SIM_EMBODIMENTS[arms]}.yaml')


def _absolute(arguments: Arguments, topic: str) -> str:
    """Return a topic with the namespace of the launch file; hardware plugins have none."""
    namespace = arguments.namespace.strip('/')
    return topic if topic.startswith('/') else '/' + f'{namespace}/{topic}'.lstrip('/')


def _node(namespace: str, package: str, executable: str, **settings) -> Node:
    return Node(
        package=package, executable=executable, namespace=namespace, output='screen', **settings)


def _robot_state_publisher(arguments: Arguments, description: str) -> Node:
    namespace = arguments.namespace
    return _node(
        namespace, 'robot_state_publisher', 'robot_state_publisher', name='robot_state_publisher',
        parameters=[{
            'robot_description': ParameterValue(description, value_type=str),
            'use_sim_time': arguments.use_sim_time}])


def _spawner(namespace: str) -> Node:
    return _node(namespace, 'controller_manager', 'spawner', arguments=[
        *_CONTROLLERS, '--controller-manager', 'controller_manager',
        '--controller-manager-timeout', _CONTROLLER_MANAGER_SECONDS])


def _then(first: Node, following: list[Action], fault: str) -> Action:
    """Start the following actions when a process has succeeded; end the launch if it failed."""
    def go_on(context: LaunchContext) -> list[Action]:
        if context.locals.event.returncode != 0:
            raise RuntimeError(fault)
        return following

    return RegisterEventHandler(
        OnProcessExit(target_action=first, on_exit=[OpaqueFunction(function=go_on)]))
