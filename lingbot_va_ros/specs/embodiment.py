"""The embodiment file: what a robot has (joints, grippers, cameras, controllers) and may do."""

from dataclasses import dataclass
import json
import math
from pathlib import Path

import jsonschema
import numpy as np
import yaml

from lingbot_va_ros.resources import share_folder, shared_file
from lingbot_va_ros.specs.robot_description import (
    DescriptionError,
    find_description,
    read_urdf,
    UrdfJoint,
)

_NO_LIMITS = "joint '{}' has no acceleration and jerk limits"


class EmbodimentError(ValueError):
    """An embodiment file cannot be used; the message lists every mistake, one per line."""


@dataclass(frozen=True)
class JointLimits:
    """
    Limits per joint in the embodiment's joint order, arrays [J] of float64.

    Revolute joints in rad, rad/s, rad/s², rad/s³; prismatic joints in m, m/s, m/s², m/s³.
    """

    lower: np.ndarray
    upper: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    jerk: np.ndarray


@dataclass(frozen=True)
class Gripper:
    """One gripper joint and its positions (m or rad) when open and when closed."""

    joint: str
    open: float
    closed: float


@dataclass(frozen=True)
class Arm:
    """
    One arm: at most seven joints from base to tool, and its gripper.

    End-effector poses are those of the link `tool_frame` in the link `base_frame`, which without
    one of its own is the embodiment's.
    """

    side: str
    joints: tuple[str, ...]
    gripper: Gripper | None = None
    tool_frame: str | None = None
    base_frame: str | None = None


@dataclass(frozen=True)
class CameraSource:
    """
    Where the images of one role come from.

    `flip`: turn by 180 degrees. `crop`: (x, y, width, height) in pixels of the published image.
    """

    name: str
    topic: str
    transport: str = 'raw'
    flip: bool = False
    crop: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Controller:
    """
    One controller that takes commands; kind is 'trajectory' or 'gripper_action'.

    `max_effort` (N, Nm): what each goal of a gripper_action allows; None: the controller's own.
    """

    topic: str
    joints: tuple[str, ...]
    kind: str
    max_effort: float | None = None


@dataclass(frozen=True)
class Workspace:
    """A box in the base frame (m) that the tool frames may not leave; lower and upper are [3]."""

    lower: np.ndarray
    upper: np.ndarray


@dataclass(frozen=True)
class Embodiment:
    """
    One robot. `joints` is the order of every command: all arms, then their grippers.

    `home` is [J] in that order. `urdf` is the path of the robot description as a plain URDF; where
    the file names xacro or several parts, it lies in the cache folder.
    """

    name: str
    joints: tuple[str, ...]
    limits: JointLimits
    home: np.ndarray
    arms: tuple[Arm, ...]
    controllers: tuple[Controller, ...]
    cameras: dict[str, CameraSource]
    urdf: Path
    base_frame: str | None = None
    workspace: Workspace | None = None


def load_embodiment(name_or_path: str) -> Embodiment:
    """
    Read and check an embodiment file.

    :param name_or_path: a bare name stands for config/embodiments/<name>.yaml of the package;
        anything with a slash or ending in .yaml or .yml is a path.
    :raises EmbodimentError: every mistake at once, each with file, line and key.
    """
    path = _find_file(str(name_or_path))
    data, line_of = _read_yaml(path)
    schema = json.loads(shared_file('config', 'schemas', 'embodiment.json').read_text())
    mistakes = [
        (tuple(error.absolute_path), error.message)
        for error in jsonschema.Draft202012Validator(schema).iter_errors(data)]
    if not mistakes:
        mistakes = _not_finite(data)
    if not mistakes:
        embodiment, mistakes = _build(data, path)
    if mistakes:
        mistakes.sort(key=lambda mistake: line_of(mistake[0]))
        raise EmbodimentError('\n'.join(
            f'{path}:{line_of(place)}: {_dotted(place)}{message}' for place, message in mistakes))
    return embodiment


def _find_file(name_or_path: str) -> Path:
    if '/' in name_or_path or name_or_path.endswith(('.yaml', '.yml')):
        path = Path(name_or_path).expanduser()
        if not path.is_file():
            raise EmbodimentError(f'embodiment file {path} does not exist')
        return path
    folder = share_folder() / 'config' / 'embodiments'
    path = folder / f'{name_or_path}.yaml'
    if not name_or_path or not path.is_file():
        known = ', '.join(sorted(file.stem for file in folder.glob('*.yaml')))
        raise EmbodimentError(
            f"no embodiment is called '{name_or_path}'; there are {known}; "
            'a file of your own is given with its path')
    return path


def _read_yaml(path: Path):
    """Return the data and a function from a key path to its line; duplicate keys are mistakes."""
    try:
        text = path.read_text()
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = ' '.join(str(error).split())
        raise EmbodimentError(f'{path}: cannot be read as YAML: {reason}') from None
    lines: dict[tuple, int] = {}
    repeated: list[str] = []

    def walk(node, place):
        lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                inside = (*place, key.value)
                line = key.start_mark.line + 1
                if key.value in seen:
                    repeated.append(f'{path}:{line}: {_dotted(inside)}appears twice')
                seen.add(key.value)
                lines[inside] = line
                walk(value, inside)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                walk(value, (*place, index))

    if root is not None:
        walk(root, ())
    if repeated:
        raise EmbodimentError('\n'.join(repeated))

    def line_of(place: tuple) -> int:
        while place and place not in lines:
            place = place[:-1]
        return lines.get(place, 1)

    return data, line_of


def _dotted(place: tuple) -> str:
    text = ''
    for part in place:
        text += f'[{part}]' if isinstance(part, int) else f'.{part}'
    return f'{text.lstrip(".")}: ' if text else ''


def _not_finite(data, place=()) -> list:
    """Find .inf and .nan, which YAML and the schema's type number let pass."""
    if isinstance(data, dict):
        return [m for key, value in data.items() for m in _not_finite(value, (*place, key))]
    if isinstance(data, list):
        return [m for i, value in enumerate(data) for m in _not_finite(value, (*place, i))]
    if isinstance(data, float) and not math.isfinite(data):
        return [(place, f'{data} is not a finite number')]
    return []


def _build(data: dict, path: Path) -> tuple[Embodiment | None, list]:
    """Check what the schema cannot say, and return the embodiment or the mistakes."""
    mistakes: list[tuple[tuple, str]] = []
    urdf_joints, links = None, None
    try:
        urdf_path = find_description(data['urdf'], path)
        urdf_joints, links = read_urdf(urdf_path)
    except DescriptionError as error:
        # What needs no URDF is checked all the same: the vendor's package may be elsewhere.
        mistakes.append((('urdf',), str(error)))

    arms, joints, mistakes_of_arms = _read_arms(data['arms'], links)
    mistakes += mistakes_of_arms
    where_used = dict(joints)
    names = tuple(where_used)
    if links is not None and 'base_frame' in data and data['base_frame'] not in links:
        mistakes.append((('base_frame',), f"the URDF has no link '{data['base_frame']}'"))

    grippers = {
        arm.gripper.joint: index for index, arm in enumerate(arms) if arm.gripper is not None}
    rows = {}
    for name, place in where_used.items():
        in_urdf = None if urdf_joints is None else urdf_joints.get(name)
        if urdf_joints is None:
            if name not in data['limits']:
                mistakes.append((('limits',), _NO_LIMITS.format(name)))
        elif in_urdf is None:
            mistakes.append((place, f"the URDF {urdf_path.name} has no joint '{name}'"))
        elif in_urdf.kind not in ('revolute', 'prismatic', 'continuous'):
            mistakes.append((place, f"joint '{name}' is {in_urdf.kind} and cannot be commanded"))
        elif in_urdf.mimics:
            mistakes.append((place, f"joint '{name}' mimics '{in_urdf.mimics}'; command that one"))
        elif name not in data['limits']:
            mistakes.append((('limits',), _NO_LIMITS.format(name)))
        else:
            row, wrong = _merge_limits(in_urdf, data['limits'][name])
            if not wrong:
                rows[name] = row
            if name in grippers:
                wrong_unit = _check_unit(data['arms'][grippers[name]]['gripper'], in_urdf)
                mistakes += [(('arms', grippers[name], 'gripper', 'unit'), message)
                             for message in wrong_unit]
            mistakes += [(('limits', name, *key), message) for key, message in wrong]
    for section in ('limits', 'home'):
        for name in data[section]:
            if name not in where_used:
                mistakes.append(((section, name), 'is no joint of an arm or gripper'))

    for name in names:
        if name not in data['home']:
            mistakes.append((('home',), f"joint '{name}' has no home position"))
        elif name in rows:
            mistakes += _outside(('home', name), data['home'][name], rows[name])
    for index, arm in enumerate(arms):
        if arm.gripper is None:
            continue
        place = ('arms', index, 'gripper')
        if arm.gripper.open == arm.gripper.closed:
            mistakes.append((place, 'open and closed are the same position'))
        if arm.gripper.joint in rows:
            for key in ('open', 'closed'):
                mistakes += _outside(
                    (*place, key), getattr(arm.gripper, key), rows[arm.gripper.joint])

    mistakes += _check_controllers(data['controllers'], where_used)
    workspace = data.get('workspace')
    if workspace is not None:
        if not all(low < high for low, high in zip(workspace['lower'], workspace['upper'])):
            mistakes.append((('workspace',), 'every lower bound must be below its upper bound'))
        if 'base_frame' not in data or not all(arm.tool_frame for arm in arms):
            mistakes.append(
                (('workspace',), 'needs base_frame and the tool_frame of every arm'))
    for role, camera in data['cameras'].items():
        if 'crop' in camera and 0 in camera['crop'][2:]:
            mistakes.append((('cameras', role, 'crop'), 'width and height must be above 0'))
    if mistakes:
        return None, mistakes

    columns = np.array([rows[name] for name in names], dtype=np.float64).T
    return Embodiment(
        name=data['name'],
        joints=names,
        limits=JointLimits(*(_frozen(column) for column in columns)),
        home=_frozen([data['home'][name] for name in names]),
        arms=arms,
        controllers=tuple(
            Controller(
                entry['topic'], tuple(entry['joints']), entry['kind'], entry.get('max_effort'))
            for entry in data['controllers']),
        cameras={
            role: CameraSource(
                name=role, topic=entry['topic'], transport=entry.get('transport', 'raw'),
                flip=entry.get('flip', False),
                crop=tuple(entry['crop']) if 'crop' in entry else None)
            for role, entry in data['cameras'].items()},
        urdf=urdf_path,
        base_frame=data.get('base_frame'),
        workspace=None if workspace is None else Workspace(
            _frozen(workspace['lower']), _frozen(workspace['upper'])),
    ), []


def _frozen(values) -> np.ndarray:
    array = np.array(values, dtype=np.float64)
    array.flags.writeable = False
    return array


def _read_arms(entries: list, links: set[str] | None):
    """Return the arms, the joints with their places in command order, and mistakes."""
    mistakes = []
    arms = []
    sides = set()
    joints: dict[str, tuple] = {}

    def use(name: str, place: tuple) -> None:
        if name in joints:
            mistakes.append((place, f"joint '{name}' is used twice"))
        else:
            joints[name] = place

    for index, entry in enumerate(entries):
        if entry['side'] in sides:
            mistakes.append((('arms', index, 'side'), f"there are two {entry['side']} arms"))
        sides.add(entry['side'])
        for number, name in enumerate(entry['joints']):
            use(name, ('arms', index, 'joints', number))
        for key in ('base_frame', 'tool_frame'):
            if links is not None and key in entry and entry[key] not in links:
                mistakes.append((('arms', index, key), f"the URDF has no link '{entry[key]}'"))
        gripper = entry.get('gripper')
        arms.append(Arm(
            side=entry['side'], joints=tuple(entry['joints']),
            tool_frame=entry.get('tool_frame'), base_frame=entry.get('base_frame'),
            gripper=None if gripper is None else Gripper(
                gripper['joint'], float(gripper['open']), float(gripper['closed']))))
    for index, arm in enumerate(arms):
        if arm.gripper is not None:
            use(arm.gripper.joint, ('arms', index, 'gripper', 'joint'))
    return tuple(arms), joints, mistakes


def _merge_limits(in_urdf: UrdfJoint, given: dict) -> tuple[tuple, list]:
    """Return (lower, upper, velocity, acceleration, jerk) and the mistakes as (key path, text)."""
    mistakes = []
    endless = in_urdf.kind == 'continuous'
    if endless and not ('lower' in given and 'upper' in given):
        mistakes.append(((), 'a continuous joint needs lower and upper here'))
    if in_urdf.velocity <= 0 and 'velocity' not in given:
        mistakes.append(((), 'the URDF has no velocity limit; give velocity here'))
    lower = given.get('lower', in_urdf.lower)
    upper = given.get('upper', in_urdf.upper)
    velocity = given.get('velocity', in_urdf.velocity)
    if not lower < upper and not mistakes:
        mistakes.append(((), f'lower {lower:g} is not below upper {upper:g}'))
    if not given.get('looser_than_urdf', False):
        advice = '; set looser_than_urdf: true if that is meant'
        if not endless and lower < in_urdf.lower:
            mistakes.append((
                ('lower',), f"{lower:g} is looser than the URDF's {in_urdf.lower:g}{advice}"))
        if not endless and upper > in_urdf.upper:
            mistakes.append((
                ('upper',), f"{upper:g} is looser than the URDF's {in_urdf.upper:g}{advice}"))
        if 0 < in_urdf.velocity < velocity:
            mistakes.append((
                ('velocity',),
                f"{velocity:g} is looser than the URDF's {in_urdf.velocity:g}{advice}"))
    return (lower, upper, velocity, given['acceleration'], given['jerk']), mistakes


def _check_unit(gripper: dict, in_urdf: UrdfJoint) -> list[str]:
    unit = 'm' if in_urdf.kind == 'prismatic' else 'rad'
    if gripper.get('unit', unit) == unit:
        return []
    return [f"joint '{gripper['joint']}' is {in_urdf.kind}: its positions are in {unit}"]


def _outside(place: tuple, position: float, row: tuple) -> list:
    lower, upper = row[:2]
    if lower <= position <= upper:
        return []
    return [(place, f'{position:g} is outside the limits {lower:g} … {upper:g}')]


def _check_controllers(entries: list, where_used: dict) -> list:
    mistakes = []
    topics = set()
    taken = set()
    for index, entry in enumerate(entries):
        if entry['topic'] in topics:
            mistakes.append((
                ('controllers', index, 'topic'), f"topic '{entry['topic']}' appears twice"))
        topics.add(entry['topic'])
        for number, name in enumerate(entry['joints']):
            place = ('controllers', index, 'joints', number)
            if name not in where_used:
                mistakes.append((place, f"'{name}' is no joint of an arm or gripper"))
            elif name in taken:
                mistakes.append((place, f"joint '{name}' is in a controller already"))
            taken.add(name)
        if entry['kind'] == 'gripper_action' and len(entry['joints']) != 1:
            mistakes.append((
                ('controllers', index, 'joints'), 'a gripper_action moves one joint'))
        if entry['kind'] != 'gripper_action' and 'max_effort' in entry:
            mistakes.append((
                ('controllers', index, 'max_effort'), 'only a gripper_action has a max_effort'))
    for name in where_used:
        if name not in taken:
            mistakes.append((('controllers',), f"no controller takes joint '{name}'"))
    return mistakes
