"""The nodes as launch actions: parameters, remaps, environment, and what is said when one ends."""

import atexit
from collections.abc import Sequence
import os
from pathlib import Path
import tempfile
from typing import Any

from launch import LaunchContext
from launch.action import Action
from launch.actions import OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.logging import get_logger
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue
import yaml

from lingbot_va_ros.launching.arguments import Arguments, sections, SimArguments
from lingbot_va_ros.launching.autostart import Autostart
from lingbot_va_ros.resources import shared_file

RESPAWN_DELAY = 2.0  # s, as Nav2
# Jazzy's Fast DDS reads the first, Kilted's the second.
PROFILE_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')


def policy(
    arguments: Arguments, remappings: Sequence[tuple[str, str]] = (),
) -> list[Action]:
    """
    Return the policy node, and what configures and activates it where that is asked for.

    :param remappings: more of them, (from, to).
    """
    parameters = {
        'use_sim_time': arguments.use_sim_time,
        **_given(arguments, 'checkpoint', 'policy_config', 'embodiment', 'instruction')}
    node = LifecycleNode(
        executable='policy_node', name='lingbot_va_policy',
        remappings=[
            ('~/joint_trajectory', 'policy/joint_trajectory'),
            ('control_mode', 'command_mux/mode'), *remappings],
        **_settings(arguments, parameters))
    actions = [_when_it_fails(node, arguments, 'no plan comes any more; the mux holds the arm')]
    if arguments.autostart:
        actions += Autostart(node).actions()
    return [*actions, node]


def command_mux(arguments: Arguments) -> list[Action]:
    """Return the node that alone commands the arm."""
    parameters = {'use_sim_time': arguments.use_sim_time, **_given(arguments, 'embodiment')}
    node = Node(
        executable='command_mux', name='command_mux', **_settings(arguments, parameters))
    return [_when_it_fails(node, arguments, 'no command reaches the arm any more'), node]


def sim_robot(arguments: SimArguments) -> list[Action]:
    """Return the simulated robot; where it fails, the launch ends, unless it is respawned."""
    parameters = {
        'arms': arguments.arms, 'publish_clock': arguments.use_sim_time,
        **_given(arguments, 'task', 'seed')}
    node = Node(executable='sim_robot', name='sim_robot', **_settings(arguments, parameters))
    return [_when_it_fails(node, arguments, 'there is no robot any more', end_launch=True), node]


def image_profile() -> dict[str, str]:
    """
    Return the variables that make Fast DDS carry images whole; none where the user has set one.

    See config/fastdds_images.xml for the reason.
    """
    if any(variable in os.environ for variable in PROFILE_VARIABLES):
        return {}
    return dict.fromkeys(PROFILE_VARIABLES, str(shared_file('config', 'fastdds_images.xml')))


def _given(arguments: Arguments, *names: str) -> dict[str, Any]:
    """Return the arguments that were given, by name."""
    values = {name: getattr(arguments, name) for name in names}
    return {name: value for name, value in values.items() if value not in ('', None)}


def _settings(arguments: Arguments, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return what all nodes have in common; parameters given as arguments win over the file."""
    # With their types: launch would read the instruction `no` as false.
    typed = {name: ParameterValue(value, value_type=type(value))
             for name, value in parameters.items()}
    file = _file_without(arguments.params_file, set(parameters))
    return {
        'package': 'lingbot_va_ros', 'namespace': arguments.namespace, 'output': 'screen',
        'parameters': [file, typed] if file else [typed],
        'ros_arguments': ['--log-level', arguments.log_level],
        'additional_env': image_profile(), 'respawn': arguments.use_respawn,
        'respawn_delay': RESPAWN_DELAY}


def _file_without(params_file: str, names: set[str]) -> str:
    """
    Return a parameter file that sets none of `names`: a copy, where the file does set one.

    rcl lets the key that comes last in the file win, not the one that was given last: `/**` below
    a key with the node's full name would win over a parameter from the command line.
    """
    if not params_file:
        return ''
    path = Path(params_file).expanduser()
    data = yaml.safe_load(path.read_text())
    in_the_way = [(section, name) for section in sections(data) for name in names & section.keys()]
    if not in_the_way:
        return str(path)
    for section, name in in_the_way:
        del section[name]
    data = _without_empty(data)
    if not data:
        return ''
    with tempfile.NamedTemporaryFile(
            'w', prefix='lingbot_va_params_', suffix='.yaml', delete=False) as file:
        yaml.safe_dump(data, file, sort_keys=False, allow_unicode=True)
    # Not sooner: a node that is started again reads it again.
    atexit.register(Path(file.name).unlink, missing_ok=True)
    return file.name


def _without_empty(data: Any) -> Any:
    """Leave out what holds nothing any more: rcl refuses a node without parameters."""
    if not isinstance(data, dict):
        return data
    kept = {key: _without_empty(value) for key, value in data.items()}
    return {key: value for key, value in kept.items() if value != {}}


def _when_it_fails(
        node: Node, arguments: Arguments, meaning: str, end_launch: bool = False) -> Action:
    """Say what it means that the node's process failed; launch itself says only that it did."""
    def say(context: LaunchContext) -> None:
        code = context.locals.event.returncode
        if code == 0 or context.is_shutdown:
            return
        line = f'{node.node_name} ended with exit code {code}: {meaning}'
        if arguments.use_respawn:
            line += f'; it is started again in {RESPAWN_DELAY:g} s'
        elif end_launch:
            raise RuntimeError(line)
        get_logger('lingbot_va_ros').error(line)

    return RegisterEventHandler(
        OnProcessExit(target_action=node, on_exit=[OpaqueFunction(function=say)]))
