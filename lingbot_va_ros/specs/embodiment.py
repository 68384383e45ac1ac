"""Reads the embodiment file: a robot's joints, grippers, cameras, controllers and limits."""

from dataclasses import dataclass
import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np

from lingbot_va_ros.resources import share_folder, shared_file
from lingbot_va_ros.specs.collision import Collision, read_collision
from lingbot_va_ros.specs.contact import ContactLimits, read_contact
from lingbot_va_ros.specs.controllers import Controller, loops, read_controllers
from lingbot_va_ros.specs.held_joints import HeldJoint, read_held_joints
from lingbot_va_ros.specs.joint_limits import (
    COMMANDABLE,
    JointBounds,
    LEAST_WIDTH,
    read_limits,
    unused_names,
    Urdf,
)
from lingbot_va_ros.specs.joint_state_topics import (
    DEFAULT_TOPICS,
    JointStateTopic,
    read_joint_state_topics,
)
from lingbot_va_ros.specs.pose_task import PoseWeights, read_pose_weights
from lingbot_va_ros.specs.robot_description import DescriptionError, find_description, read_urdf
from lingbot_va_ros.specs.strict_schema import described
from lingbot_va_ros.specs.yaml_lines import dotted, KeyPath, Mistake, read_yaml


class EmbodimentError(ValueError):
    """An embodiment file cannot be used; the message lists every mistake, one per line."""


@dataclass(frozen=True)
class JointLimits:
    """
    Limits per joint in the embodiment's joint order, arrays [J] of float64.

    Revolute joints in rad, rad/s, rad/s², rad/s³; prismatic joints in m, m/s, m/s², m/s³.

    :param following_error: distance of a joint from its command that means HOLD; NaN where the
        file gives none. None: it gives none at all.
    :param stop_jerk: of a stop, at least `jerk`. None: the same.
    """

    lower: np.ndarray
    upper: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    jerk: np.ndarray
    following_error: np.ndarray | None = None
    stop_jerk: np.ndarray | None = None

    @property
    def stopping_jerk(self) -> np.ndarray:
        """The jerk limits [J] of stops."""
        return self.jerk if self.stop_jerk is None else self.stop_jerk


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

    :param joints: from base to tool.
    :param tool_frame: link whose poses are the end-effector poses.
    :param base_frame: link in which they are expressed; None: the embodiment's base frame.
    :param pose_weights: what counts of a pose; None: the arm takes whole poses only.
    """

    side: str
    joints: tuple[str, ...]
    gripper: Gripper | None = None
    tool_frame: str | None = None
    base_frame: str | None = None
    pose_weights: PoseWeights | None = None


@dataclass(frozen=True)
class CameraSource:
    """
    The source of the images of one camera role.

    :param name: the role.
    :param rotate: degrees clockwise by which images are rotated: 0, 90, 180 or 270.
    :param crop: (x, y, width, height) in pixels of the published image.
    """

    name: str
    topic: str
    transport: str = 'raw'
    rotate: int = 0
    crop: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Workspace:
    """A box in the base frame (m) that the tool frames may not leave; lower and upper are [3]."""

    lower: np.ndarray
    upper: np.ndarray


@dataclass(frozen=True)
class StatusInput:
    """
    A topic on which the robot's driver says whether the arm may move.

    :param topic: absolute or relative.
    :param message_type: such as std_msgs/msg/Bool.
    :param field: of the message; a dot leads into a nested message.
    :param good: values of the field with which the arm may move.
    :param timeout: seconds of silence after which the value counts as unknown; 0: none (the
        driver publishes changes only).
    :param latched: the publisher is transient local, and its last message counts at start.
    """

    topic: str
    message_type: str
    field: str
    good: tuple[bool | int | float | str, ...]
    timeout: float = 0.0
    latched: bool = False


@dataclass(frozen=True)
class Embodiment:
    """
    A robot, as its embodiment file describes it.

    :param joints: in the order of every command: all arms, then their grippers.
    :param home: positions [J] float64, rad or m.
    :param held_joints: of controllers, beside `joints`; no action and no plan has them.
    :param cameras: by role.
    :param urdf: path of a plain URDF; in the cache folder if the file names xacro or parts.
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
    status_inputs: tuple[StatusInput, ...] = ()
    joint_states: tuple[JointStateTopic, ...] = DEFAULT_TOPICS
    collision: Collision | None = None
    contact: ContactLimits = ContactLimits()
    held_joints: tuple[HeldJoint, ...] = ()


def load_embodiment(name_or_path: str) -> Embodiment:
    """
    Read and check an embodiment file.

    :param name_or_path: a path if it has a slash or ends in .yaml or .yml; else the name of a
        file config/embodiments/<name>.yaml of the package.
    :raises EmbodimentError: the message lists all mistakes, each with file, line and key.
    """
    path = _find_file(str(name_or_path))
    try:
        data, lines = read_yaml(path)
    except ValueError as error:
        raise EmbodimentError(str(error)) from None
    schema = json.loads(shared_file('config', 'schemas', 'embodiment.json').read_text())
    mistakes = _not_finite(data)
    not_finite = {place for place, _ in mistakes}
    mistakes += [
        (tuple(error.absolute_path), described(error))
        for error in jsonschema.Draft202012Validator(schema).iter_errors(data)
        if tuple(error.absolute_path) not in not_finite]
    embodiment = None
    if not mistakes:
        embodiment = _build(data, schema, path, mistakes)
    if embodiment is None or mistakes:
        mistakes.sort(key=lambda mistake: lines.line_of(mistake[0]))
        raise EmbodimentError('\n'.join(
            f'{path}:{lines.line_of(place)}: {dotted(place)}{message}'
            for place, message in mistakes))
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
            f"no embodiment is called '{name_or_path}'; expected one of {known}, or the path of a "
            'file')
    return path


def _not_finite(data: Any, place: KeyPath = ()) -> list[Mistake]:
    """Find .inf and .nan, which YAML and the schema's type number let pass."""
    if isinstance(data, dict):
        return [m for key, value in data.items() for m in _not_finite(value, (*place, key))]
    if isinstance(data, list):
        return [m for i, value in enumerate(data) for m in _not_finite(value, (*place, i))]
    if isinstance(data, float) and not math.isfinite(data):
        return [(place, f'{data} is not a finite number')]
    return []


# Readers, one for each section of a file that keeps to the schema. Each returns what it has read
# and appends the mistakes that a schema cannot find.

def _build(
    data: dict[str, Any], schema: dict[str, Any], path: Path, mistakes: list[Mistake],
) -> Embodiment | None:
    """Return the embodiment, or None with the mistakes appended."""
    urdf = _read_description(data['urdf'], path, mistakes)
    arms = tuple(_read_arm(entry, ('arms', index), mistakes)
                 for index, entry in enumerate(data['arms']))
    places = _places_of_joints(arms, mistakes)
    _check_links(data, urdf, mistakes)
    bounds = read_limits(data['limits'], schema, places, urdf, mistakes)
    home = _read_home(data['home'], places, bounds, mistakes)
    _check_grippers(data['arms'], arms, urdf, bounds, mistakes)
    held = read_held_joints(data.get('held_joints', {}), places, urdf, mistakes)
    held_names = list(data.get('held_joints', {}))
    controllers = read_controllers(data['controllers'], places, held_names, mistakes)
    joint_states = read_joint_state_topics(
        data.get('joint_states'), [*places, *held_names], mistakes)
    mistakes += loops(controllers, [topic.topic for topic in joint_states])
    contact = read_contact(data.get('contact'), places, mistakes)
    workspace = _read_workspace(data, arms, mistakes)
    collision = read_collision(data, path, None if urdf is None else urdf.links, mistakes)
    cameras = _read_cameras(data['cameras'], mistakes)
    if mistakes or urdf is None:
        return None
    rows = [bounds[name] for name in places]
    return Embodiment(
        name=data['name'], joints=tuple(places),
        limits=JointLimits(
            lower=_frozen([row.lower for row in rows]),
            upper=_frozen([row.upper for row in rows]),
            velocity=_frozen([row.velocity for row in rows]),
            acceleration=_frozen([row.acceleration for row in rows]),
            jerk=_frozen([row.jerk for row in rows]),
            following_error=_frozen([row.following_error for row in rows]),
            stop_jerk=_frozen([row.stop_jerk for row in rows])),
        home=_frozen([home[name] for name in places]), arms=arms, controllers=controllers,
        cameras=cameras, urdf=urdf.path, base_frame=data.get('base_frame'), workspace=workspace,
        status_inputs=tuple(_read_status_input(entry) for entry in data.get('status_inputs', ())),
        joint_states=joint_states, collision=collision, contact=contact, held_joints=held)


def _frozen(values: list[float]) -> np.ndarray:
    array = np.array(values, dtype=np.float64)
    array.flags.writeable = False
    return array


def _read_description(entry: Any, path: Path, mistakes: list[Mistake]) -> Urdf | None:
    try:
        urdf = find_description(entry, path)
        return Urdf(urdf, *read_urdf(urdf))
    except DescriptionError as error:
        # The rest of the file is still checked: only the vendor's package may be missing.
        mistakes.append((('urdf',), str(error)))
        return None


def _read_arm(entry: dict[str, Any], place: KeyPath, mistakes: list[Mistake]) -> Arm:
    gripper = entry.get('gripper')
    return Arm(
        side=entry['side'], joints=tuple(entry['joints']),
        tool_frame=entry.get('tool_frame'), base_frame=entry.get('base_frame'),
        pose_weights=read_pose_weights(entry, place, mistakes),
        gripper=None if gripper is None else Gripper(
            gripper['joint'], float(gripper['open']), float(gripper['closed'])))


def _places_of_joints(arms: tuple[Arm, ...], mistakes: list[Mistake]) -> dict[str, KeyPath]:
    """Return the key path of each joint, in the order of commands: arms, then grippers."""
    named: list[tuple[str, KeyPath]] = []
    sides = set()
    for index, arm in enumerate(arms):
        if arm.side in sides:
            mistakes.append((('arms', index, 'side'), f'there are two {arm.side} arms'))
        sides.add(arm.side)
        named += [(name, ('arms', index, 'joints', number))
                  for number, name in enumerate(arm.joints)]
    named += [(arm.gripper.joint, ('arms', index, 'gripper', 'joint'))
              for index, arm in enumerate(arms) if arm.gripper is not None]
    places: dict[str, KeyPath] = {}
    for name, place in named:
        if name in places:
            mistakes.append((place, f"joint '{name}' is used twice"))
        else:
            places[name] = place
    return places


def _check_links(data: dict[str, Any], urdf: Urdf | None, mistakes: list[Mistake]) -> None:
    """Check that the frames are links of the URDF."""
    if urdf is None:
        return
    for index, entry in enumerate(data['arms']):
        mistakes += [
            (('arms', index, key), f"the URDF has no link '{entry[key]}'")
            for key in ('base_frame', 'tool_frame')
            if key in entry and entry[key] not in urdf.links]
    if 'base_frame' in data and data['base_frame'] not in urdf.links:
        mistakes.append((('base_frame',), f"the URDF has no link '{data['base_frame']}'"))


def _read_home(
    section: dict[str, float], places: dict[str, KeyPath], bounds: dict[str, JointBounds],
    mistakes: list[Mistake],
) -> dict[str, float]:
    mistakes += unused_names(section, 'home', places)
    for name in places:
        if name not in section:
            mistakes.append((('home',), f"joint '{name}' has no home position"))
        elif name in bounds:
            mistakes += bounds[name].mistakes_of(('home', name), section[name])
    return section


def _check_grippers(
    entries: list[dict[str, Any]], arms: tuple[Arm, ...], urdf: Urdf | None,
    bounds: dict[str, JointBounds], mistakes: list[Mistake],
) -> None:
    """Check that open and closed differ, lie inside the limits and are in the joint's unit."""
    for index, arm in enumerate(arms):
        gripper, place = arm.gripper, ('arms', index, 'gripper')
        if gripper is None:
            continue
        joint = None if urdf is None else urdf.joints.get(gripper.joint)
        if joint is not None and joint.kind in COMMANDABLE:
            unit = 'm' if joint.kind == 'prismatic' else 'rad'
            if entries[index]['gripper'].get('unit', unit) != unit:
                mistakes.append((
                    (*place, 'unit'),
                    f"joint '{gripper.joint}' is {joint.kind}: its positions are in {unit}"))
        if abs(gripper.open - gripper.closed) < LEAST_WIDTH:
            mistakes.append((place, 'open and closed are the same position'))
        if gripper.joint in bounds:
            for key, position in (('open', gripper.open), ('closed', gripper.closed)):
                mistakes += bounds[gripper.joint].mistakes_of((*place, key), position)


def _read_workspace(
    data: dict[str, Any], arms: tuple[Arm, ...], mistakes: list[Mistake],
) -> Workspace | None:
    section = data.get('workspace')
    if section is None:
        return None
    if not all(low + LEAST_WIDTH <= high
               for low, high in zip(section['lower'], section['upper'])):
        mistakes.append((('workspace',), 'every lower bound must be below its upper bound'))
    if 'base_frame' not in data or not all(arm.tool_frame for arm in arms):
        mistakes.append((('workspace',), 'needs base_frame and the tool_frame of every arm'))
    return Workspace(_frozen(section['lower']), _frozen(section['upper']))


def _read_status_input(entry: dict[str, Any]) -> StatusInput:
    return StatusInput(
        topic=entry['topic'], message_type=entry['type'], field=entry['field'],
        good=tuple(entry['good']), timeout=float(entry.get('timeout', 0.0)),
        latched=entry.get('latched', False))


def _read_cameras(
    section: dict[str, dict[str, Any]], mistakes: list[Mistake],
) -> dict[str, CameraSource]:
    cameras = {}
    for role, entry in section.items():
        crop = None
        if 'crop' in entry:
            x, y, width, height = entry['crop']
            crop = (x, y, width, height)
            if 0 in (width, height):
                mistakes.append((('cameras', role, 'crop'), 'width and height must be above 0'))
        if 'flip' in entry and 'rotate' in entry:
            mistakes.append(
                (('cameras', role, 'flip'), 'flip is rotate: 180; give one of the two'))
        cameras[role] = CameraSource(
            name=role, topic=entry['topic'], transport=entry.get('transport', 'raw'),
            rotate=entry.get('rotate', 180 if entry.get('flip', False) else 0), crop=crop)
    return cameras
