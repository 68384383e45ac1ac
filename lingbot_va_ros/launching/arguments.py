"""The arguments of the launch files, checked before any node starts."""

from dataclasses import dataclass, fields
from pathlib import Path
import re
from typing import Any, Iterator, List, Optional, Type

from launch import LaunchContext
from launch.actions import DeclareLaunchArgument
import yaml

from lingbot_va_ros.policy.policy_file import find_policy_file, load_policy_file
from lingbot_va_ros.robot.embodiment import load_embodiment

_SWITCHES = {'true': True, '1': True, 'false': False, '0': False}
_LOG_LEVELS = ('debug', 'info', 'warn', 'error', 'fatal')
_SCENE_SEEDS = range(2 ** 31)
# The simulated robot's arms, and the embodiment that describes them.
_SIM_EMBODIMENTS = {'left': 'sim_left', 'right': 'sim_right', 'both': 'sim_dual'}

# Name: default, description.
_COMMON = {
    'namespace': ('', 'Namespace of all nodes.'),
    'use_sim_time': ('false', 'Whether the nodes follow /clock (true or false).'),
    'params_file': (
        '', 'ROS parameter file for the nodes, keyed /**/lingbot_va_policy, /**/command_mux …; '
        'config/params/policy.yaml is an example. The arguments here win over it.'),
    'autostart': (
        'true', 'Whether the policy is configured and activated at start (true or false). Nothing '
        'moves before the mux is set to POLICY.'),
    'log_level': ('info', f'Least severity that the nodes log: {", ".join(_LOG_LEVELS)}.'),
    'use_respawn': (
        'false', 'Whether a node that ends by itself is started again (true or false).'),
    'checkpoint': (
        '', 'Checkpoint folder. Needed, unless params_file names one or autostart is false.'),
    'policy_config': (
        '', 'Policy file: a path or the name of a shipped one. Empty: as in params_file, else what '
        'the checkpoint itself says.'),
    'instruction': (
        '', 'The task in words. Empty: as in params_file, else the policy waits for one.'),
}
_EMBODIMENT = {
    'embodiment': (
        '', 'The robot: path of an embodiment file or the name of a shipped one. Empty: as in '
        'params_file, else sim_left.'),
}
_SIM = {
    'use_sim_time': (
        'false', 'Whether sim_robot publishes its time on /clock and the nodes follow it (true or '
        'false). False: the simulation runs in step with the computer\'s clock, as an arm does.'),
    'embodiment': (
        '', 'The robot: path of an embodiment file or the name of a shipped one. Empty: the '
        'simulated robot with these arms.'),
    'arms': ('left', f'Arms of the simulated robot: {", ".join(_SIM_EMBODIMENTS)}.'),
    'task': ('', 'Scene on the table. Empty: as in params_file, else sim_robot\'s default.'),
    'seed': (
        '', 'Seed of the scene (not of the policy). Empty: as in params_file, else sim_robot\'s '
        'default.'),
}


class ArgumentError(RuntimeError):
    """Arguments of a launch file cannot be used; the message names each with its value."""


@dataclass(frozen=True)
class Arguments:
    """The arguments of both launch files, checked. Empty text: not given."""

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
class SimArguments(Arguments):
    """The arguments of sim.launch.py; `seed` is None where none was given."""

    arms: str
    task: str
    seed: Optional[int]


def declare(kind: Type[Arguments]) -> List[DeclareLaunchArgument]:
    """Return the declarations of all arguments that `kind` holds."""
    texts = {**_COMMON, **_EMBODIMENT, **(_SIM if kind is SimArguments else {})}
    return [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in texts.items()]


def read(context: LaunchContext, kind: Type[Arguments]) -> Arguments:
    """
    Return the arguments as `kind`, all of them checked.

    :raises ArgumentError: names everything that is wrong with them.
    """
    given = {field.name: context.launch_configurations[field.name] for field in fields(kind)}
    faults: List[str] = []
    values: dict[str, Any] = dict(given)
    for name in ('use_sim_time', 'autostart', 'use_respawn'):
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
    if kind is SimArguments:
        _read_sim(values, faults)
    _check_files(values, in_file, faults)
    if faults:
        raise ArgumentError('; '.join(faults))
    return kind(**values)


def _read_sim(values: dict[str, Any], faults: List[str]) -> None:
    """Put in what the simulation's arguments stand for."""
    if values['arms'] not in _SIM_EMBODIMENTS:
        faults.append(
            f'arms is {values["arms"]!r}; expected one of {", ".join(_SIM_EMBODIMENTS)}')
    values['embodiment'] = values['embodiment'] or _SIM_EMBODIMENTS.get(values['arms'], '')
    seed, values['seed'] = values['seed'], None
    if seed.isascii() and seed.isdigit() and int(seed) in _SCENE_SEEDS:
        values['seed'] = int(seed)
    elif seed:
        faults.append(f'seed is {seed!r}; expected a whole number from 0 to {_SCENE_SEEDS[-1]}')


def _check_files(
        values: dict[str, Any], in_file: Optional[set[str]], faults: List[str]) -> None:
    """Check what names a file or folder; what only params_file names, the nodes check."""
    if values['embodiment']:
        try:
            load_embodiment(values['embodiment'])
        except ValueError as error:
            faults += str(error).splitlines()
    checkpoint = Path(values['checkpoint']).expanduser()
    is_folder = bool(values['checkpoint']) and checkpoint.is_dir()
    if values['checkpoint'] and not is_folder:
        faults.append(f'checkpoint {checkpoint} is not a folder')
    if in_file is None:  # what it was to say is not known
        return
    if values['autostart'] and not values['checkpoint'] and 'checkpoint' not in in_file:
        faults.append(
            'checkpoint is empty; give a checkpoint folder (checkpoint:=FOLDER, or in '
            'params_file), or autostart:=false')
    if values['policy_config'] or (is_folder and 'policy_config' not in in_file):
        try:
            load_policy_file(find_policy_file(values['policy_config'], checkpoint))
        except ValueError as error:
            faults += str(error).splitlines()


def _set_in_file(params_file: str, faults: List[str]) -> Optional[set[str]]:
    """Return which parameters the file sets to something, for whichever node; None: unreadable."""
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
