"""A robot on ros2_control's mock hardware as launch actions: it follows every command at once."""

import atexit
import os
from pathlib import Path
import tempfile
from typing import Any
from xml.etree import ElementTree

from launch.action import Action
import yaml

from lingbot_va_ros.launching.arguments import MockArguments
from lingbot_va_ros.launching.ros2_control import (
    CONTROL_PACKAGES,
    controller_manager,
    end_with,
    require,
    robot_state_publisher,
    spawner,
    then,
)
from lingbot_va_ros.specs.controllers import Controller
from lingbot_va_ros.specs.embodiment import Embodiment, load_embodiment
from lingbot_va_ros.specs.joint_state_topics import DEFAULT_TOPICS

_PACKAGES = (*CONTROL_PACKAGES, 'hardware_interface')  # the last one brings mock_components
UPDATE_RATE = 500  # Hz
_ENDING = '/joint_trajectory'


class NotMockable(RuntimeError):
    """An embodiment has a controller that mock hardware does not have; the message names it."""


def mock_hardware(arguments: MockArguments) -> list[Action]:
    """
    Return ros2_control with mock hardware and the controllers of the embodiment.

    The launch ends if controller_manager exits or the controllers cannot be started.

    :raises MissingPackages: names the packages that are not installed.
    :raises NotMockable: names a controller that this hardware does not have.
    """
    require(_PACKAGES)
    embodiment, namespace = load_embodiment(arguments.embodiment), arguments.namespace
    names = controller_names(embodiment)
    manager = controller_manager(
        arguments,
        _written(controller_parameters(embodiment, os.environ.get('ROS_DISTRO', ''))),
        [(f'{name}{_ENDING}', topic) for topic, name in names.items()
         if topic != f'{name}{_ENDING}'])
    start = spawner(namespace, list(names.values()))
    return [
        robot_state_publisher(arguments, mock_description(embodiment)),
        end_with(manager, 'controller_manager ended: the mock hardware stopped'),
        manager, then(start, [], 'the controllers could not be started'), start]


def controller_names(embodiment: Embodiment) -> dict[str, str]:
    """
    Return the name of each trajectory controller, by its topic.

    A controller in a namespace of its own gets a name without one: all run in one manager.

    :raises NotMockable: names held joints, a gripper_action, a topic that is not a controller's,
        or topics of joint states on which mock hardware does not publish.
    """
    if embodiment.joint_states != DEFAULT_TOPICS:
        raise NotMockable(
            f'embodiment {embodiment.name}: joint_states lists '
            f'{", ".join(topic.topic for topic in embodiment.joint_states)}; mock hardware '
            'publishes joint_states alone')
    if embodiment.held_joints:
        raise NotMockable(
            f'embodiment {embodiment.name}: mock hardware is not started with held_joints')
    for controller in embodiment.controllers:
        if controller.kind != 'trajectory' or not controller.topic.endswith(_ENDING):
            raise NotMockable(
                f'embodiment {embodiment.name}: controller {controller.topic} is no '
                'joint_trajectory_controller (<name>/joint_trajectory, kind trajectory); mock '
                'hardware is started with these alone')
    return {controller.topic: _name_of(controller) for controller in embodiment.controllers}


def _name_of(controller: Controller) -> str:
    return controller.topic.removesuffix(_ENDING).replace('/', '_')


def controller_parameters(embodiment: Embodiment, distribution: str) -> dict[str, Any]:
    """
    Return the ROS parameters of controller_manager and its controllers.

    :param distribution: of ROS; Humble's controllers know an older name.
    """
    manager: dict[str, Any] = {
        'update_rate': UPDATE_RATE,
        'joint_state_broadcaster': {
            'type': 'joint_state_broadcaster/JointStateBroadcaster'}}
    sections: dict[str, Any] = {'/**/controller_manager': {'ros__parameters': manager}}
    from_command = (
        'open_loop_control' if distribution == 'humble' else 'interpolate_from_desired_state')
    for controller in embodiment.controllers:
        name = _name_of(controller)
        manager[name] = {'type': 'joint_trajectory_controller/JointTrajectoryController'}
        sections[f'/**/{name}'] = {'ros__parameters': {
            'joints': list(controller.joints), 'command_interfaces': ['position'],
            'state_interfaces': ['position', 'velocity'], from_command: True,
            'allow_nonzero_velocity_at_trajectory_end': False}}
    return sections


def mock_description(embodiment: Embodiment) -> str:
    """
    Return the robot's URDF with mock hardware for every joint of the embodiment, at home.

    What the description says of other hardware is left out.
    """
    robot = ElementTree.parse(embodiment.urdf).getroot()
    for other in robot.findall('ros2_control'):
        robot.remove(other)
    system = ElementTree.SubElement(
        robot, 'ros2_control', name='mock_hardware', type='system')
    hardware = ElementTree.SubElement(system, 'hardware')
    ElementTree.SubElement(hardware, 'plugin').text = 'mock_components/GenericSystem'
    # Velocities are calculated from the positions.
    ElementTree.SubElement(hardware, 'param', name='calculate_dynamics').text = 'true'
    for name, home in zip(embodiment.joints, embodiment.home.tolist(), strict=True):
        joint = ElementTree.SubElement(system, 'joint', name=name)
        ElementTree.SubElement(joint, 'command_interface', name='position')
        position = ElementTree.SubElement(joint, 'state_interface', name='position')
        ElementTree.SubElement(position, 'param', name='initial_value').text = repr(home)
        ElementTree.SubElement(joint, 'state_interface', name='velocity')
    return ElementTree.tostring(robot, encoding='unicode')


def _written(parameters: dict[str, Any]) -> Path:
    """Write a parameter file, which is removed when the launch ends; returns its path."""
    with tempfile.NamedTemporaryFile(
            'w', prefix='lingbot_va_controllers_', suffix='.yaml', delete=False) as file:
        yaml.safe_dump(parameters, file, sort_keys=False)
    written = Path(file.name)
    atexit.register(written.unlink, missing_ok=True)
    return written
