"""Declares the arguments of the launch files and checks them before any node starts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
import re
from typing import Any, TypeVar

from launch import LaunchContext
from launch.actions import DeclareLaunchArgument
import yaml

from lingbot_va_ros.launching.bridges import check_gazebo_bridge, read_isaac_topics
from lingbot_va_ros.resources import shared_file
from lingbot_va_ros.specs.embodiment import load_embodiment
from lingbot_va_ros.specs.policy_file import find_policy_file, load_policy_file

_SWITCHES = {'true': True, '1': True, 'false': False, '0': False}
_LOG_LEVELS = ('debug', 'info', 'warn', 'error', 'fatal')
_SCENE_SEEDS = range(2 ** 31)
# The simulated robot's arms, and the embodiment that describes them.
SIM_EMBODIMENTS = {'left': 'sim_left', 'right': 'sim_right', 'both': 'sim_dual'}

# Name: default, description.
_COMMON = {
    'namespace': ('', 'Namespace of all nodes.'),
    'use_sim_time': ('false', 'Whether the nodes follow /clock (true or false).'),
    'params_file': (
        '', 'ROS parameter file for the nodes, keyed /**/lingbot_va_policy, /**/command_mux …; '
        'config/params/policy.yaml is an example. Arguments here override it.'),
    'autostart': (
        'true', 'Whether the policy is configured and activated at start (true or false). The arm '
        'does not move before the mux is set to POLICY.'),
    'log_level': ('info', f'Lowest severity that the nodes log: {", ".join(_LOG_LEVELS)}.'),
    'use_respawn': (
        'false', 'Whether a node that exits by itself is restarted (true or false).'),
    'checkpoint': (
        '', 'Checkpoint folder. Required unless params_file names one or autostart is false.'),
    'policy_config': (
        '', 'Policy file: a path or the name of a shipped one. Empty: as in params_file, else '
        'the policy file of the checkpoint.'),
    'instruction': (
        '', 'Instruction for the policy. Empty: as in params_file, else the policy waits for '
        'one.'),
}
_EMBODIMENT = {
    'embodiment': (
        '', 'Embodiment file of the robot: a path or the name of a shipped one. Empty: as in '
        'params_file, else sim_left.'),
}
_ARMS = {
    'embodiment': (
        '', 'Embodiment file of the robot: a path or the name of a shipped one. Empty: the '
        'simulated robot with these arms.'),
    'arms': ('left', f'Arms of the simulated robot: {", ".join(SIM_EMBODIMENTS)}.'),
}
_SIM = {
    **_ARMS,
    'use_sim_time': (
        'false', 'Whether sim_robot publishes its time on /clock and the nodes follow it (true or '
        "false). False: the simulation follows the computer's clock."),
    'task': ('', "Scene on the table. Empty: as in params_file, else sim_robot's default."),
    'seed': (
        '', 'Random seed of the scene (not of the policy). Empty: as in params_file, else the '
        'default of sim_robot.'),
}
_PARTS = {
    'start_mux': (
        'true', 'Whether to start the mux (true or false). False: it runs on another machine, at '
        'the robot, in the same namespace.'),
    'start_policy': (
        'true', 'Whether to start the policy (true or false). False: it runs on another machine, '
        'in the same namespace.'),
}
_MOCK = {
    'embodiment': (
        'sim_left', 'Embodiment file of the robot: a path or the name of a shipped one. Its '
        'controllers must be joint_trajectory_controllers.'),
}
_FOLLOW_CLOCK = {
    'use_sim_time': ('true', 'Whether the nodes follow /clock (true or false).')}
_GAZEBO = {
    **_ARMS,
    **_FOLLOW_CLOCK,
    'world': ('', 'World file (SDF). Empty: config/bridges/gazebo_world.sdf, which has a table.'),
    'headless': ('false', 'Whether Gazebo runs without a window (true or false).'),
    'bridge_config': (
        '', 'File of ros_gz_bridge with the topics to bridge besides the images. Empty: '
        'config/bridges/gazebo.yaml.'),
}
_ISAAC = {
    **_ARMS,
    **_FOLLOW_CLOCK,
    'bridge_config': ('', 'File with the topics of Isaac Sim. Empty: config/bridges/isaac.yaml.'),
    'start_controllers': (
        'true', "Whether to start ros2_control for the simulated robot on Isaac Sim's joint "
        'topics (true or false). False: it runs elsewhere, for example inside Isaac Sim.'),
}


class ArgumentError(RuntimeError):
    """Arguments of a launch file are invalid; the message names each with its value."""


@dataclass(frozen=True)
class Arguments:
    """The checked arguments of all launch files. An empty string: not given."""

    namespace: str
    use_sim_time: bool
    params_file: str
    autostart: bool
    log_level: str
    use_respawn: bool
    checkpoint: str
    policy_config: str
    instruction: str
    embodiment: str


@dataclass(frozen=True)
class PolicyArguments(Arguments):
    """The arguments of policy.launch.py; at least one of the two nodes is started."""

    start_mux: bool
    start_policy: bool


@dataclass(frozen=True)
class SimArguments(Arguments):
    """The arguments of sim.launch.py; `seed` is None if it was not given."""

    arms: str
    task: str
    seed: int | None


@dataclass(frozen=True)
class MockArguments(Arguments):
    """The arguments of mock.launch.py; `embodiment` is always given."""


@dataclass(frozen=True)
class GazeboArguments(Arguments):
    """The arguments of gazebo.launch.py; paths are expanded."""

    arms: str
    world: str
    headless: bool
    bridge_config: str


@dataclass(frozen=True)
class IsaacArguments(Arguments):
    """The arguments of isaac.launch.py; the path is expanded."""

    arms: str
    bridge_config: str
    start_controllers: bool


_EXTRA_ARGUMENTS = {
    PolicyArguments: _PARTS, SimArguments: _SIM, MockArguments: _MOCK, GazeboArguments: _GAZEBO,
    IsaacArguments: _ISAAC}
_SWITCH_NAMES = {
    'use_sim_time', 'autostart', 'use_respawn', 'headless', 'start_controllers', 'start_mux',
    'start_policy'}


ArgumentsType = TypeVar('ArgumentsType', bound=Arguments)


def declare(kind: type[Arguments]) -> list[DeclareLaunchArgument]:
    """Return the declarations of all arguments of a launch file."""
    texts = {**_COMMON, **_EMBODIMENT, **_EXTRA_ARGUMENTS.get(kind, {})}
    return [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in texts.items()]


def read(context: LaunchContext, kind: type[ArgumentsType]) -> ArgumentsType:
    """
    Return the checked arguments of a launch file, as `kind`.

    :raises ArgumentError: an argument is invalid; the message names all such arguments.
    """
    given = {field.name: context.launch_configurations[field.name] for field in fields(kind)}
    faults: list[str] = []
    values: dict[str, Any] = dict(given)
    for name in given.keys() & _SWITCH_NAMES:
        values[name] = _SWITCHES.get(given[name].lower())
        if values[name] is None:
            faults.append(f'{name} is {given[name]!r}; expected true or false')
    values['log_level'] = given['log_level'].lower()
    if values['log_level'] not in _LOG_LEVELS:
        faults.append(
            f'log_level is {given["log_level"]!r}; expected one of {", ".join(_LOG_LEVELS)}')
    if not re.fullmatch(r'/?([A-Za-z_]\w*(/[A-Za-z_]\w*)*)?', given['namespace'], re.ASCII):
        faults.append(
            f'namespace is {given["namespace"]!r}; expected letters, digits and _ (not a digit '
            'first), with / between the parts')
    in_file = _set_in_file(given['params_file'], faults)
    if kind is MockArguments:
        values['embodiment'] = given['embodiment'] or _MOCK['embodiment'][0]
    if 'arms' in given:
        _read_arms(values, faults)
    if values.get('start_mux') is False and values.get('start_policy') is False:
        faults.append('start_mux and start_policy are both false; nothing would be started')
    if kind is SimArguments:
        _read_seed(values, faults)
    elif kind is GazeboArguments:
        values['world'] = _path(values['world'], 'gazebo_world.sdf')
        if not Path(values['world']).is_file():
            faults.append(f'world {values["world"]} is not a file')
        values['bridge_config'] = _path(values['bridge_config'], 'gazebo.yaml')
        _check_with(check_gazebo_bridge, values['bridge_config'], faults)
    elif kind is IsaacArguments:
        values['bridge_config'] = _path(values['bridge_config'], 'isaac.yaml')
        _check_with(read_isaac_topics, values['bridge_config'], faults)
    _check_files(values, in_file, faults)
    if faults:
        raise ArgumentError('; '.join(faults))
    return kind(**values)


def _path(given: str, default: str) -> str:
    """Return the given path with ~ expanded, or the path of the default in config/bridges."""
    return str(Path(given).expanduser() if given else shared_file('config', 'bridges', default))


def _check_with(check: Callable[[str], Any], path: str, faults: list[str]) -> None:
    try:
        check(path)
    except ValueError as error:
        faults.append(f'bridge_config {error}')


def _read_arms(values: dict[str, Any], faults: list[str]) -> None:
    """Set the embodiment of the arms if none is given."""
    if values['arms'] not in SIM_EMBODIMENTS:
        faults.append(
            f'arms is {values["arms"]!r}; expected one of {", ".join(SIM_EMBODIMENTS)}')
    values['embodiment'] = values['embodiment'] or SIM_EMBODIMENTS.get(values['arms'], '')


def _read_seed(values: dict[str, Any], faults: list[str]) -> None:
    """Convert the seed to a number."""
    seed, values['seed'] = values['seed'], None
    if seed.isascii() and seed.isdigit() and int(seed) in _SCENE_SEEDS:
        values['seed'] = int(seed)
    elif seed:
        faults.append(f'seed is {seed!r}; expected a whole number from 0 to {_SCENE_SEEDS[-1]}')


def _check_files(
        values: dict[str, Any], in_file: set[str] | None, faults: list[str]) -> None:
    """Check the files and folders of the arguments; the nodes check those of params_file."""
    if values['embodiment']:
        try:
            load_embodiment(values['embodiment'])
        except ValueError as error:
            faults += str(error).splitlines()
    checkpoint = Path(values['checkpoint']).expanduser()
    is_folder = bool(values['checkpoint']) and checkpoint.is_dir()
    if values['checkpoint'] and not is_folder:
        faults.append(f'checkpoint {checkpoint} is not a folder')
    if in_file is None:  # params_file cannot be read
        return
    starts_policy = values.get('start_policy', True) and values['autostart']
    if starts_policy and not values['checkpoint'] and 'checkpoint' not in in_file:
        faults.append(
            'checkpoint is empty; give a checkpoint folder (checkpoint:=FOLDER, or in '
            'params_file), or autostart:=false')
    if values['policy_config'] or (is_folder and 'policy_config' not in in_file):
        try:
            load_policy_file(find_policy_file(values['policy_config'], checkpoint))
        except ValueError as error:
            faults += str(error).splitlines()


def _set_in_file(params_file: str, faults: list[str]) -> set[str] | None:
    """Return the parameters that the file sets for any node, or None if it is unreadable."""
    if not params_file:
        return set()
    try:
        data = yaml.safe_load(Path(params_file).expanduser().read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        faults.append(f'params_file {params_file}: {" ".join(str(error).split())}')
        return None
    found = list(sections(data))
    if not found:
        faults.append(
            f'params_file {params_file} sets no parameter; expected '
            '/**/lingbot_va_policy: {ros__parameters: {…}}')
        return None
    return {name for section in found for name, value in section.items() if value}


def sections(data: Any) -> Iterator[dict]:
    """Yield each `ros__parameters` of a parameter file, which may nest namespaces."""
    if isinstance(data, dict):
        for key, value in data.items():
            if key != 'ros__parameters':
                yield from sections(value)
            elif isinstance(value, dict):
                yield value
