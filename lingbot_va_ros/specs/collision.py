"""The collision section of an embodiment file: distances, what stands in the cell, exclusions."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from lingbot_va_ros.specs.robot_description import DescriptionError, find_description
from lingbot_va_ros.specs.yaml_lines import KeyPath, Mistake

STOP_DISTANCE, SLOW_DISTANCE = 0.02, 0.10  # m, where the file gives none
SHORTEST_NORMAL = 1e-6

# Two names, in alphabetical order: of links, or of a link and an obstacle.
NamePair = tuple[str, str]


@dataclass(frozen=True)
class Box:
    """A box of the cell: edges [3] in m, its middle xyz [3] in m and rpy [3] in rad."""

    name: str
    size: np.ndarray
    xyz: np.ndarray
    rpy: np.ndarray


@dataclass(frozen=True)
class Plane:
    """All behind a plane: places x with normal · x < offset; a unit vector [3], and m."""

    name: str
    normal: np.ndarray
    offset: float


@dataclass(frozen=True)
class Collision:
    """
    How near the robot's links may come to each other and to what stands in the cell.

    :param stop_distance: m, at which nothing comes nearer.
    :param slow_distance: m, from which on what comes nearer slows down.
    :param environment: in the embodiment's base frame, which they need.
    :param ignored: pairs that the file names; they are not checked.
    :param disabled: pairs of links that the SRDF disables.
    :param unknown_links: names in the SRDF that are no link of the URDF.
    """

    stop_distance: float = STOP_DISTANCE
    slow_distance: float = SLOW_DISTANCE
    environment: tuple[Box | Plane, ...] = ()
    ignored: frozenset[NamePair] = frozenset()
    disabled: frozenset[NamePair] = frozenset()
    unknown_links: tuple[str, ...] = ()


def name_pair(one: str, other: str) -> NamePair:
    """Return two names in their order."""
    return (one, other) if one <= other else (other, one)


def read_collision(
    data: dict[str, Any], path: Path, links: set[str] | None, mistakes: list[Mistake],
) -> Collision | None:
    """
    Return the section `collision` of an embodiment file that keeps to the schema, or None.

    :param data: the file.
    :param path: of the file.
    :param links: of the URDF; None: unknown.
    :param mistakes: receives the mistakes.
    """
    section = data.get('collision')
    if section is None:
        return None
    place: KeyPath = ('collision',)
    stop = float(section.get('stop_distance', STOP_DISTANCE))
    slow = float(section.get('slow_distance', SLOW_DISTANCE))
    if not stop < slow:
        mistakes.append((
            (*place, 'slow_distance'), f'{slow:g} is not above stop_distance {stop:g}'))
    environment = _read_environment(section.get('environment', []), links or set(), mistakes)
    if environment and 'base_frame' not in data:
        mistakes.append(((*place, 'environment'), 'needs base_frame, in which it is given'))
    known = None if links is None else links | {obstacle.name for obstacle in environment}
    ignored = set()
    for index, (one, other) in enumerate(section.get('ignore', [])):
        for name in (one, other):
            if known is not None and name not in known:
                mistakes.append((
                    (*place, 'ignore', index),
                    f"'{name}' is neither a link of the URDF nor in environment"))
        if one == other:
            mistakes.append(((*place, 'ignore', index), f"names '{one}' twice"))
        ignored.add(name_pair(one, other))
    disabled: frozenset[NamePair] = frozenset()
    unknown: tuple[str, ...] = ()
    if 'srdf' in section:
        try:
            disabled, unknown = read_srdf(section['srdf'], path, links)
        except DescriptionError as error:
            mistakes.append(((*place, 'srdf'), str(error)))
    return Collision(stop, slow, environment, frozenset(ignored), disabled, unknown)


def _read_environment(
    entries: list[dict[str, Any]], links: set[str], mistakes: list[Mistake],
) -> tuple[Box | Plane, ...]:
    obstacles: list[Box | Plane] = []
    names = set(links)
    for index, entry in enumerate(entries):
        place: KeyPath = ('collision', 'environment', index)
        name = entry['name']
        if name in names:
            what = 'a link of the URDF' if name in links else 'there already'
            mistakes.append(((*place, 'name'), f"'{name}' is {what}"))
        names.add(name)
        if ('box' in entry) == ('plane' in entry):
            mistakes.append((place, 'needs either box or plane'))
        elif 'box' in entry:
            box = entry['box']
            obstacles.append(Box(
                name, np.array(box['size'], float), np.array(box['xyz'], float),
                np.array(box.get('rpy', (0.0, 0.0, 0.0)), float)))
        else:
            plane = entry['plane']
            normal = np.array(plane['normal'], float)
            length = float(np.linalg.norm(normal))
            if length < SHORTEST_NORMAL:
                mistakes.append(((*place, 'plane', 'normal'), 'has no direction'))
                continue
            # The offset is along the unit vector, whatever length the file's normal has.
            obstacles.append(Plane(name, normal / length, float(plane['offset'])))
    return tuple(obstacles)


def read_srdf(
    entry: Any, embodiment_file: Path, links: set[str] | None,
) -> tuple[frozenset[NamePair], tuple[str, ...]]:
    """
    Return the pairs of links that SRDF files disable, and names in them that are no links.

    :param entry: a path or package URI, a dict with `file`, `arguments` and `link_prefix`, or a
        list of those.
    :param links: of the URDF; None: unknown.
    :raises DescriptionError: a file is missing or cannot be read.
    """
    parts = entry if isinstance(entry, list) else [entry]
    disabled: set[NamePair] = set()
    named: set[str] = set()
    for part in parts:
        part = {'file': part} if isinstance(part, str) else part
        path = find_description(
            {key: value for key, value in part.items() if key != 'link_prefix'}, embodiment_file)
        pairs, names = _disabled_pairs(path, part.get('link_prefix', ''), links or set())
        disabled |= pairs
        named |= names
    unknown = () if links is None else tuple(sorted(named - links))
    return frozenset(disabled), unknown


def _disabled_pairs(
    path: Path, prefix: str, links: Iterable[str]) -> tuple[set[NamePair], set[str]]:
    """Return the disabled pairs of one SRDF file, and all names of links in it."""
    try:
        robot = ElementTree.parse(path).getroot()
        pairs = {
            tag: {name_pair(prefix + each.attrib['link1'], prefix + each.attrib['link2'])
                  for each in robot.findall(tag)}
            for tag in ('disable_collisions', 'enable_collisions')}
        alone = {prefix + each.attrib['link']
                 for each in robot.findall('disable_default_collisions')}
    except OSError as error:
        raise DescriptionError(f'SRDF {path} cannot be read: {error.strerror}') from None
    except ElementTree.ParseError as error:
        raise DescriptionError(f'SRDF {path} is not well-formed XML: {error}') from None
    except KeyError as error:
        raise DescriptionError(
            f'SRDF {path}: a disabled pair lacks the attribute {error}') from None
    if robot.tag != 'robot':
        raise DescriptionError(f'SRDF {path} is no SRDF: its root is <{robot.tag}>, not <robot>')
    names = alone.union(*(pair for each in pairs.values() for pair in each))
    # With one's default disabled, only the pairs that are enabled by name are left.
    by_default = {
        name_pair(one, other) for one in alone for other in links if one != other}
    return pairs['disable_collisions'] | (by_default - pairs['enable_collisions']), names
