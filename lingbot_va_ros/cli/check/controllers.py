"""Read parameters of nodes in the graph, and check the controllers' configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters, ListParameters

from lingbot_va_ros.cli.check.finding import error, Finding, warning
from lingbot_va_ros.cli.check.streams import join_names
from lingbot_va_ros.specs.controllers import Controller, VELOCITY_ROWS

# Parameters of joint_trajectory_controller, by their names in Jazzy and before.
WANTED = (
    'joints', 'interpolate_from_desired_state', 'open_loop_control', 'command_interfaces',
    'state_interfaces', 'allow_nonzero_velocity_at_trajectory_end', 'allow_partial_joints_goal',
    'allow_trajectory_replacement', 'update_rate')
TOLERANCES = ('trajectory', 'goal')
_FIELDS = {
    ParameterType.PARAMETER_BOOL: 'bool_value', ParameterType.PARAMETER_INTEGER: 'integer_value',
    ParameterType.PARAMETER_DOUBLE: 'double_value', ParameterType.PARAMETER_STRING: 'string_value',
    ParameterType.PARAMETER_STRING_ARRAY: 'string_array_value'}


@dataclass(frozen=True)
class MuxFigures:
    """
    Settings of command_mux with which the controllers must agree.

    :param following_errors: by joint, rad or m, beyond which command_mux holds; inf: never.
    :param command_rate: commands of command_mux per second.
    """

    following_errors: Mapping[str, float]
    command_rate: float


def read_parameters(probe, node: str, names: Sequence[str]) -> dict[str, Any] | None:
    """
    Return the values of a node's parameters, or None if it does not answer.

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


def controller_findings(
    probe, controller: Controller, nodes: Sequence[str], mux: MuxFigures,
) -> list[Finding]:
    """
    Return the findings about the controller of a topic.

    :param nodes: those that subscribe to the topic. ros2_control's has the name with which the
        topic begins; it is read also where it does not subscribe.
    :returns: nothing where neither runs.
    """
    where = probe.resolve(controller.topic)
    named = where.rsplit('/', 1)[0]
    names = [*WANTED, *(
        f'constraints.{joint}.{kind}' for joint in controller.joints for kind in TOLERANCES)]
    # The name from the topic is used only if such a node runs.
    candidates = [name for name in (named, *nodes) if name != named or name in probe.nodes()]
    for node in dict.fromkeys(candidates):
        values = read_parameters(probe, node, names)
        if values is None and node == named:
            return [error(node, 'does not return its parameters in time: its tolerances '
                                'and settings are unknown')]
        if values and (node == named or 'joints' in values):
            if not values.get('update_rate'):  # 0: that of its controller_manager
                values['update_rate'] = _manager_rate(probe, node)
            return judge_parameters(node, values, controller, mux)
    return [] if not candidates else [warning(
        where, f'no parameters of a joint_trajectory_controller can be read from '
        f'{join_names(candidates)}: not ros2_control; its configuration is unknown')]


def unbraked_finding(topic: str, controller: Controller) -> Finding:
    """Return what is to be known of a controller that gets no braking tail."""
    outcome = ('the last velocity goes on: its driver needs a time-out'
               if controller.kind in VELOCITY_ROWS else 'its driver holds the last position')
    return warning(
        topic, f'{controller.kind} commands have no braking tail; if command_mux dies in motion, '
        f'{outcome}')


def judge_parameters(
    node: str, values: dict[str, Any], controller: Controller, mux: MuxFigures,
) -> list[Finding]:
    """Return the findings about the parameters of a controller."""
    found = []
    joints = list(values.get('joints', controller.joints))
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
            found.append(warning(
                node, 'interpolate_from_desired_state is false: after a late '
                'command the arm continues from the measured state, with a jerk; expected true'))
    elif not values.get('open_loop_control', False):
        found.append(warning(
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
            "controller's gains determine the tracking error"))
    states = list(values.get('state_interfaces', ()))
    if 'state_interfaces' in values and 'position' not in states:
        found.append(error(node, f'state_interfaces are {join_names(states) or "none"}; expected '
                                 'position among them'))
    if values.get('allow_nonzero_velocity_at_trajectory_end'):
        found.append(warning(
            node, 'allow_nonzero_velocity_at_trajectory_end is true: the controller would '
            'accept a command of another node that does not end at rest; expected false'))
    if values.get('allow_trajectory_replacement'):
        found.append(error(
            node, 'allow_trajectory_replacement is true: after 6.9 the controller begins each '
            'command when it takes it instead of at its stamp, and the arm shakes; set it to '
            'false'))
    rate = values.get('update_rate')
    if rate and rate < mux.command_rate:
        found.append(warning(
            node, f'its update_rate is {rate:g} Hz: it skips some of the '
            f'{mux.command_rate:g} commands per second of command_mux; expected no less'))
    own = {name: mux.following_errors[name] for name in controller.joints
           if name in mux.following_errors}
    return found + tolerance_findings(node, values, own)


def tolerance_findings(
    node: str, values: Mapping[str, Any], following_errors: Mapping[str, float],
) -> list[Finding]:
    """
    Return the findings about a controller's tolerances, `constraints.<joint>.*`; 0 means none.

    A controller that aborts before command_mux holds gets further commands, and aborts again.

    :param following_errors: by joint; see MuxFigures.
    """
    found = []
    too_large: dict[tuple[float, str, float], list[str]] = {}
    for joint, ours in following_errors.items():
        given = _tolerances(values, joint)
        if not given:
            continue
        kind = min(given, key=given.__getitem__)
        if ours != float('inf') and ours >= given[kind]:
            too_large.setdefault((ours, kind, given[kind]), []).append(joint)
        elif ours == float('inf') and 'trajectory' in given:
            found.append(warning(
                node, f'constraints.{joint}.trajectory is {given["trajectory"]:g}: a gripper that '
                'holds an object does not reach its command, and the controller aborts; '
                'expected 0'))
    for (ours, kind, tolerance), joints in too_large.items():
        names = ', '.join(joints)
        key = f'constraints.{names if len(joints) == 1 else "<joint>"}.{kind}'
        found.append(error(
            node, f'{key} is {tolerance:g}, but command_mux holds from a following error of '
            f'{ours:g} on ({names}): the controller aborts first, and again at every command; '
            f'expected following_error or max_following_error below {tolerance:g}'))
    return found


def _tolerances(values: Mapping[str, Any], joint: str) -> dict[str, float]:
    """Return the tolerances of a joint by kind, without those that are 0."""
    found = {kind: values.get(f'constraints.{joint}.{kind}') for kind in TOLERANCES}
    return {kind: float(value) for kind, value in found.items()
            if isinstance(value, (int, float)) and value > 0}


def manager_findings(probe, controllers: Sequence[str]) -> list[Finding]:
    """
    Return the inactive controllers of the arm, if a controller_manager runs.

    :param controllers: full names of the nodes that receive the commands.
    """
    managers = _managers(probe, controllers)
    if not managers:
        return []
    try:
        from controller_manager_msgs.srv import ListControllers
    except ImportError:
        return [warning(managers[0], 'the active controllers are unknown: '
                                     'controller_manager_msgs is not installed')]
    found = []
    for manager in managers:
        reply = probe.call(
            ListControllers, f'{manager}/list_controllers', ListControllers.Request())
        if reply is None:
            found.append(error(manager, 'list_controllers does not answer'))
            continue
        own = {name.rsplit('/', 1)[-1] for name in controllers}
        found += [
            error(manager, f'controller {entry.name} is {entry.state}; expected active')
            for entry in reply.controller if entry.name in own and entry.state != 'active']
    return found


def _managers(probe, controllers: Sequence[str]) -> list[str]:
    """Return the controller_managers that run; those in other namespaces are of other robots."""
    spaces = {probe.resolve(''), *(name.rsplit('/', 1)[0] + '/' for name in controllers)}
    return sorted({f'{space}controller_manager' for space in spaces} & set(probe.nodes()))


def _manager_rate(probe, controller: str) -> int | None:
    """Return the update_rate of a controller's manager, Hz; None: it is not known."""
    for manager in _managers(probe, [controller]):
        values = read_parameters(probe, manager, ['update_rate'])
        if values:
            return int(values['update_rate'])
    return None
