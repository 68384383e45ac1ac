"""The nodes as launch actions: parameters, remaps, environment, messages when one exits."""

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
    Return the policy node, with the actions that configure and activate it if `autostart`.

    :param remappings: further remaps, (from, to).
    """
    parameters = {
        'use_sim_time': arguments.use_sim_time,
        **_given(arguments, 'checkpoint', 'policy_config', 'embodiment', 'instruction')}
    node = LifecycleNode(
        executable='policy_node', name='lingbot_va_policy',
        remappings=[
            ('~/joint_trajectory', 'policy/joint_trajectory'),
            ('control_mode', 'command_mux/mode'),
            ('speed_scale', 'command_mux/speed_scale'), *remappings],
        **_settings(arguments, parameters))
    actions = [_report_failure(node, arguments, 'there are no more plans; the mux holds the arm')]
    if arguments.autostart:
        actions += Autostart(node).actions()
    return [*actions, node]


def command_mux(arguments: Arguments) -> list[Action]:
    """Return the command mux, the only node that commands the arm."""
    parameters = {'use_sim_time': arguments.use_sim_time, **_given(arguments, 'embodiment')}
    node = Node(
        executable='command_mux', name='command_mux', **_settings(arguments, parameters))
    return [_report_failure(node, arguments, 'no more commands reach the arm'), node]


def sim_robot(arguments: SimArguments) -> list[Action]:
    """Return the simulated robot; its exit ends the launch, unless it is respawned."""
    parameters = {
        'arms': arguments.arms, 'publish_clock': arguments.use_sim_time,
        **_given(arguments, 'task', 'seed')}
    node = Node(executable='sim_robot', name='sim_robot', **_settings(arguments, parameters))
    return [_report_failure(node, arguments, 'the simulated robot stopped', end_launch=True), node]


def image_profile() -> dict[str, str]:
    """
    Return the variables that select the Fast DDS profile for images; none if the user set one.

    See config/fastdds_images.xml for the reason.
    """
    if any(variable in os.environ for variable in PROFILE_VARIABLES):
        return {}
    return dict.fromkeys(PROFILE_VARIABLES, str(shared_file('config', 'fastdds_images.xml')))


def _given(arguments: Arguments, *names: str) -> dict[str, Any]:
    """Return the given arguments by name, without empty ones."""
    values = {name: getattr(arguments, name) for name in names}
    return {name: value for name, value in values.items() if value not in ('', None)}


def _settings(arguments: Arguments, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of every node; parameters given as arguments override the file."""
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
    Return a parameter file that sets none of `names`: the file itself, or a copy without them.

    In rcl the last key in the file wins, not the last one given: `/**` below a key with the
    node's full name would override a parameter from the command line.
    """
    if not params_file:
        return ''
    path = Path(params_file).expanduser()
    data = yaml.safe_load(path.read_text())
    overridden = [(section, name) for section in sections(data) for name in names & section.keys()]
    if not overridden:
        return str(path)
    for section, name in overridden:
        del section[name]
    data = _without_empty(data)
    if not data:
        return ''
    with tempfile.NamedTemporaryFile(
            'w', prefix='lingbot_va_params_', suffix='.yaml', delete=False) as file:
        yaml.safe_dump(data, file, sort_keys=False, allow_unicode=True)
    # Deleted at shutdown only: a respawned node reads it again.
    atexit.register(Path(file.name).unlink, missing_ok=True)
    return file.name


def _without_empty(data: Any) -> Any:
    """Remove empty sections: rcl refuses a node without parameters."""
    if not isinstance(data, dict):
        return data
    kept = {key: _without_empty(value) for key, value in data.items()}
    return {key: value for key, value in kept.items() if value != {}}


def _report_failure(
        node: Node, arguments: Arguments, meaning: str, end_launch: bool = False) -> Action:
    """Log the consequence of a failed node; launch itself logs only that it failed."""
    def say(context: LaunchContext) -> None:
        code = context.locals.event.returncode
        if code == 0 or context.is_shutdown:
            return
        line = f'{node.node_name} ended with exit code {code}: {meaning}'
        if arguments.use_respawn:
            line += f'; it restarts in {RESPAWN_DELAY:g} s'
        elif end_launch:
            raise RuntimeError(line)
        get_logger('lingbot_va_ros').error(line)

    return RegisterEventHandler(
        OnProcessExit(target_action=node, on_exit=[OpaqueFunction(function=say)]))
