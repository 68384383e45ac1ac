"""Gazebo and Isaac Sim as launch actions: the robot's description, controllers, bridges."""

from pathlib import Path
import shlex

from launch.action import Action
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import PathJoinSubstitution
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
from lingbot_va_ros.launching.ros2_control import (
    CONTROL_PACKAGES,
    controller_manager,
    node,
    require,
    robot_state_publisher,
    spawner,
    then,
)
from lingbot_va_ros.resources import shared_file
from lingbot_va_ros.specs.embodiment import load_embodiment

_CONTROL_PACKAGES = (*CONTROL_PACKAGES, 'xacro')
_GAZEBO_PACKAGES = (
    'ros_gz_sim', 'ros_gz_bridge', 'ros_gz_image', 'gz_ros2_control', *_CONTROL_PACKAGES)
_ISAAC_PACKAGES = ('joint_state_topic_hardware_interface', *_CONTROL_PACKAGES)


def gazebo(arguments: GazeboArguments) -> list[Action]:
    """
    Return Gazebo with the simulated robot, its controllers, and the bridges.

    The launch ends if Gazebo exits or the robot cannot be spawned.

    :raises MissingPackages: names the packages that are not installed.
    """
    require(_GAZEBO_PACKAGES)
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
    create = node(namespace, 'ros_gz_sim', 'create', arguments=[
        '-topic', 'robot_description', '-name', 'sim_robot'])
    bridge = node(
        namespace, 'ros_gz_bridge', 'parameter_bridge', name='gazebo_bridge',
        parameters=[{'config_file': arguments.bridge_config}])
    images = node(
        namespace, 'ros_gz_image', 'image_bridge', name='gazebo_image_bridge',
        arguments=[source.topic for source in
                   load_embodiment(SIM_EMBODIMENTS[arguments.arms]).cameras.values()],
        additional_env=image_profile())
    return [
        simulator, robot_state_publisher(arguments, description), bridge, images,
        then(create, [spawner(namespace)], 'the robot could not be spawned in the world'),
        create]


def isaac_control(arguments: IsaacArguments) -> list[Action]:
    """
    Return ros2_control on Isaac Sim's joint topics, unless it runs elsewhere.

    :raises MissingPackages: names the packages that are not installed.
    """
    if not arguments.start_controllers:
        return []
    require(_ISAAC_PACKAGES)
    topics = read_isaac_topics(arguments.bridge_config)
    description = describe(
        arguments.arms, 'isaac', joint_states=_absolute(arguments, topics.joint_states),
        joint_commands=_absolute(arguments, topics.joint_commands))
    return [
        robot_state_publisher(arguments, description),
        controller_manager(arguments, _controllers(arguments.arms)),
        spawner(arguments.namespace)]


def isaac_cameras(arguments: IsaacArguments) -> list[tuple[str, str]]:
    """Return the remaps (from, to) of the embodiment's image topics to Isaac Sim's."""
    topics: IsaacTopics = read_isaac_topics(arguments.bridge_config)
    cameras = load_embodiment(arguments.embodiment).cameras
    return [(source.topic, topics.cameras[name]) for name, source in cameras.items()
            if topics.cameras.get(name, source.topic) != source.topic]


def _controllers(arms: str) -> Path:
    return shared_file('config', 'bridges', 'controllers', f'{SIM_EMBODIMENTS[arms]}.yaml')


def _absolute(arguments: Arguments, topic: str) -> str:
    """Return a topic with the namespace of the launch file; hardware plugins have none."""
    namespace = arguments.namespace.strip('/')
    return topic if topic.startswith('/') else '/' + f'{namespace}/{topic}'.lstrip('/')
