"""Read parameters of nodes in the graph, and check the controllers' configuration."""

from collections.abc import Sequence
from typing import Any

from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters, ListParameters

from lingbot_va_ros.cli.check.finding import error, Finding, warning
from lingbot_va_ros.cli.check.streams import join_names
from lingbot_va_ros.specs.embodiment import Controller

# joint_trajectory_controller's, by their names in Jazzy and before.
WANTED = (
    'joints', 'interpolate_from_desired_state', 'open_loop_control', 'command_interfaces',
    'state_interfaces', 'allow_nonzero_velocity_at_trajectory_end', 'allow_partial_joints_goal')
_FIELDS = {
    ParameterType.PARAMETER_BOOL: 'bool_value', ParameterType.PARAMETER_INTEGER: 'integer_value',
    ParameterType.PARAMETER_DOUBLE: 'double_value', ParameterType.PARAMETER_STRING: 'string_value',
    ParameterType.PARAMETER_STRING_ARRAY: 'string_array_value'}


def read_parameters(probe, node: str, names: Sequence[str]) -> dict[str, Any] | None:
    """
    Return the parameters that a node has, or None if it does not answer.

    The names are listed first: rclcpp returns no values at all if one name is unknown.

    :param probe: a GraphProbe, which calls services.
    """
    known = probe.call(ListParameters, f'{node}/list_parameters', ListParameters.Request())
    if known is None:
        return None
    present = [name for name in names if name in known.result.names]
    if not present:
        return {}
    reply = probe.call(
        GetParameters, f'{node}/get_parameters', GetParameters.Request(names=present))
    if reply is None:
        return None
    return {name: getattr(value, _FIELDS[value.type])
            for name, value in zip(present, reply.values) if value.type in _FIELDS}


def controller_findings(probe, controller: Controller, nodes: Sequence[str]) -> list[Finding]:
    """Return the findings about the controller of a topic; `nodes` subscribe to it."""
    where = probe.resolve(controller.topic)
    for node in nodes:
        values = read_parameters(probe, node, WANTED)
        if values and 'joints' in values:
            return judge_parameters(node, values, controller)
    return [warning(
        where, f'no parameters of a joint_trajectory_controller can be read from '
        f'{join_names(nodes)}: not ros2_control; whether it keeps to the rules is not known')]


def judge_parameters(
    node: str, values: dict[str, Any], controller: Controller,
) -> list[Finding]:
    """Return the findings about the parameters of a controller."""
    found = []
    joints = list(values['joints'])
    missing = [name for name in controller.joints if name not in joints]
    extra = [name for name in joints if name not in controller.joints]
    if missing:
        found.append(error(node, f'its joints ({join_names(joints)}) lack {join_names(missing)}, '
                                 'which the embodiment sends to it'))
    if extra and not values.get('allow_partial_joints_goal', False):
        found.append(error(
            node, f"joints {join_names(extra)} are not in the embodiment's entry for this "
            'controller, which rejects commands for only some of its joints'))
    if 'interpolate_from_desired_state' in values:
        if not values['interpolate_from_desired_state']:
            found.append(error(
                node, 'interpolate_from_desired_state is false: every command would begin anew at '
                'the measured state and the arm lag behind; expected true'))
    elif not values.get('open_loop_control', False):
        found.append(error(
            node, 'open_loop_control is not true, and there is no interpolate_from_desired_state '
            '(before 4.22); expected one of them'))
    if values.get('open_loop_control') and 'interpolate_from_desired_state' in values:
        found.append(warning(
            node, 'open_loop_control is true: deprecated; interpolate_from_desired_state is '
            'enough'))
    commands = list(values.get('command_interfaces', ()))
    if 'command_interfaces' in values and 'position' not in commands:
        found.append(warning(
            node, f'command_interfaces are {join_names(commands) or "none"}: without position the '
            "controller's gains decide how near the arm keeps to the commands"))
    states = list(values.get('state_interfaces', ()))
    if 'state_interfaces' in values and 'position' not in states:
        found.append(error(node, f'state_interfaces are {join_names(states) or "none"}; expected '
                                 'position among them'))
    if values.get('allow_nonzero_velocity_at_trajectory_end'):
        found.append(warning(
            node, 'allow_nonzero_velocity_at_trajectory_end is true: a command of somebody else '
            'that does not end in a stop would be taken; expected false'))
    return found


def manager_findings(probe, controllers: Sequence[str]) -> list[Finding]:
    """
    Return the inactive controllers of the arm, if a controller_manager runs.

    :param controllers: full names of the nodes that receive the commands.
    """
    # Managers in other namespaces belong to other robots.
    spaces = {probe.resolve(''), *(name.rsplit('/', 1)[0] + '/' for name in controllers)}
    managers = sorted({f'{space}controller_manager' for space in spaces} & set(probe.nodes()))
    if not managers:
        return []
    try:
        from controller_manager_msgs.srv import ListControllers
    except ImportError:
        return [warning(managers[0], 'which controllers are active cannot be asked: '
                                     'controller_manager_msgs is not installed')]
    found = []
    for manager in managers:
        reply = probe.call(
            ListControllers, f'{manager}/list_controllers', ListControllers.Request())
        if reply is None:
            found.append(error(manager, 'list_controllers is not answered'))
            continue
        own = {name.rsplit('/', 1)[-1] for name in controllers}
        found += [
            error(manager, f'controller {entry.name} is {entry.state}; expected active')
            for entry in reply.controller if entry.name in own and entry.state != 'active']
    return found
