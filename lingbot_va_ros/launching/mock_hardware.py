"""A robot on ros2_control's mock hardware as launch actions: it follows every command at once."""

import atexit
import os
from pathlib import Path
import tempfile
from typing import Any, NamedTuple
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
# Of joint_states, Hz. At 500 Hz policy and mux would spend half a core each on them.
JOINT_STATE_RATE = 100
_FORWARD = ('forward_command_controller', 'ForwardCommandController')


class _Kind(NamedTuple):
    """
    The controller of ros2_controllers for a kind.

    :param ending: of its command topic, which begins with its name.
    :param interface: of the hardware that it commands.
    """

    ending: str
    package: str
    class_name: str
    interface: str


_KINDS = {
    'trajectory': _Kind(
        '/joint_trajectory', 'joint_trajectory_controller', 'JointTrajectoryController',
        'position'),
    'forward_position': _Kind('/commands', *_FORWARD, 'position'),
    'forward_velocity': _Kind('/commands', *_FORWARD, 'velocity'),
}
_STATE = '/controller_state'  # of a trajectory controller, beside its command topic


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
    require(sorted({_KINDS[each.kind].package for each in embodiment.controllers}))
    manager = controller_manager(
        arguments,
        _written(controller_parameters(embodiment, os.environ.get('ROS_DISTRO', ''))),
        topic_remappings(embodiment))
    start = spawner(namespace, list(names.values()))
    return [
        robot_state_publisher(arguments, mock_description(embodiment)),
        end_with(manager, 'controller_manager ended: the mock hardware stopped'),
        manager, then(start, [], 'the controllers could not be started'), start]


def controller_names(embodiment: Embodiment) -> dict[str, str]:
    """
    Return the name of each controller, by its topic.

    A controller in a namespace of its own gets a name without one: all run in one manager.

    :raises NotMockable: names held joints, a controller of another kind, a topic that is not that
        of the kind's controller, joints with names of a driver, or topics of joint states on which
        mock hardware does not publish.
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
        kind = _KINDS.get(controller.kind)
        if kind is None or not controller.topic.endswith(kind.ending):
            raise NotMockable(
                f'embodiment {embodiment.name}: mock hardware has no controller for '
                f'{controller.topic or controller.plugin} of the kind {controller.kind}; it has '
                + ', '.join(f'{name} (<name>{each.ending})' for name, each in _KINDS.items()))
        if controller.names:
            raise NotMockable(
                f'embodiment {embodiment.name}: controller {controller.topic} has names of a '
                "driver; mock hardware knows the joints' own alone")
    return {controller.topic: _name_of(controller) for controller in embodiment.controllers}


def _name_of(controller: Controller) -> str:
    name = controller.topic.removesuffix(_KINDS[controller.kind].ending)
    return name.strip('/').replace('/', '_')


def topic_remappings(embodiment: Embodiment) -> list[tuple[str, str]]:
    """Return (from, to) for the topics of controllers that are not below their names."""
    remappings = []
    for controller in embodiment.controllers:
        name, ending = _name_of(controller), _KINDS[controller.kind].ending
        remappings.append((f'{name}{ending}', controller.topic))
        if controller.kind == 'trajectory':
            # The mux looks for it beside the command topic.
            remappings.append((
                f'{name}{_STATE}', f'{controller.topic.removesuffix(ending)}{_STATE}'))
    return [(source, target) for source, target in remappings if source != target]


def controller_parameters(embodiment: Embodiment, distribution: str) -> dict[str, Any]:
    """
    Return the ROS parameters of controller_manager and its controllers.

    :param distribution: of ROS; Humble's controllers know an older name.
    """
    manager: dict[str, Any] = {
        'update_rate': UPDATE_RATE,
        'joint_state_broadcaster': {
            'type': 'joint_state_broadcaster/JointStateBroadcaster'}}
    sections: dict[str, Any] = {
        '/**/controller_manager': {'ros__parameters': manager},
        '/**/joint_state_broadcaster': {'ros__parameters': {'update_rate': JOINT_STATE_RATE}}}
    from_command = (
        'open_loop_control' if distribution == 'humble' else 'interpolate_from_desired_state')
    for controller in embodiment.controllers:
        name, kind = _name_of(controller), _KINDS[controller.kind]
        manager[name] = {'type': f'{kind.package}/{kind.class_name}'}
        values: dict[str, Any] = {'joints': list(controller.joints)}
        if controller.kind == 'trajectory':
            values |= {
                'command_interfaces': [kind.interface],
                'state_interfaces': ['position', 'velocity'], from_command: True,
                'allow_nonzero_velocity_at_trajectory_end': False}
        else:
            values['interface_name'] = kind.interface
        sections[f'/**/{name}'] = {'ros__parameters': values}
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
    interfaces = {
        name: _KINDS[controller.kind].interface
        for controller in embodiment.controllers for name in controller.joints}
    for name, home in zip(embodiment.joints, embodiment.home.tolist(), strict=True):
        joint = ElementTree.SubElement(system, 'joint', name=name)
        ElementTree.SubElement(joint, 'command_interface', name=interfaces[name])
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
