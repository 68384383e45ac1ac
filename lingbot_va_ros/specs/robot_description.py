"""Finds the URDF of an embodiment, or builds it from a xacro file or several parts."""

from collections.abc import Iterable
import copy
from dataclasses import dataclass
import hashlib
import os
from pathlib import Path
import re
import shutil
import subprocess
import sys
from typing import Any
from xml.etree import ElementTree

from lingbot_va_ros.atomic_files import write_text
from lingbot_va_ros.resources import PACKAGE, share_folder

_PACKAGE_URI = re.compile(r'package://([A-Za-z][A-Za-z0-9_-]*)/(.+)')
_XACRO_SECONDS = 60.0


class DescriptionError(ValueError):
    """A robot description cannot be found or built; the message is one line."""


@dataclass(frozen=True)
class UrdfJoint:
    """One joint of a URDF: position limits in rad or m, velocity in rad/s or m/s (0: absent)."""

    kind: str
    lower: float
    upper: float
    velocity: float
    mimics: str | None


def find_description(entry: Any, embodiment_file: Path) -> Path:
    """
    Return the path of a plain URDF for the `urdf` entry of an embodiment file.

    The path of a plain URDF is returned as it is. A URDF made of xacro or of several parts is
    written into the cache folder, under a name with a hash of its content.

    :param entry: a path or package URI; the same as `file` of a dict with `arguments` and
        `install`; or a list of such dicts, one per part, with `joint_prefix`, `link_prefix`,
        `xyz` (m) and `rpy` (rad) in a common link `world`.
    :raises DescriptionError: a file or package is missing, or the URDF cannot be built; the
        message says how to get it.
    """
    parts = entry if isinstance(entry, list) else [entry]
    parts = [{'file': part} if isinstance(part, str) else part for part in parts]
    if isinstance(entry, list):
        return _keep(_put_together(parts, embodiment_file), embodiment_file.stem)
    path = _find_file(parts[0], embodiment_file)
    if path.suffix != '.xacro':
        return path
    return _keep(_run_xacro(path, parts[0].get('arguments', {})), embodiment_file.stem)


def read_urdf(path: Path) -> tuple[dict[str, UrdfJoint], set[str]]:
    """
    Return the joints of a URDF by name, and the names of its links.

    :raises DescriptionError: the file is unreadable, not XML, or lacks an attribute.
    """
    try:
        robot = ElementTree.parse(path).getroot()
        joints = {}
        for joint in robot.findall('joint'):
            limit = joint.find('limit')
            attributes = {} if limit is None else limit.attrib
            mimic = joint.find('mimic')
            name = joint.attrib['name']
            if name in joints:
                raise DescriptionError(f"URDF {path} has two joints called '{name}'")
            joints[name] = UrdfJoint(
                kind=joint.attrib['type'],
                lower=float(attributes.get('lower', 0.0)),
                upper=float(attributes.get('upper', 0.0)),
                velocity=float(attributes.get('velocity', 0.0)),
                mimics=None if mimic is None else mimic.attrib['joint'])
        return joints, {link.attrib['name'] for link in robot.findall('link')}
    except DescriptionError:
        raise
    except OSError as error:
        raise DescriptionError(f'URDF {path} cannot be read: {error.strerror}') from None
    except ElementTree.ParseError as error:
        raise DescriptionError(f'URDF {path} is not well-formed XML: {error}') from None
    except KeyError as error:
        raise DescriptionError(
            f'URDF {path}: a joint or link lacks the attribute {error}') from None
    except ValueError as error:
        raise DescriptionError(f'URDF {path}: a joint limit is not a number: {error}') from None


def find_package(name: str) -> Path | None:
    """Return the share folder of an installed ROS package: the first in AMENT_PREFIX_PATH."""
    if name == PACKAGE:
        return share_folder()  # also in a checkout, which is not in a prefix
    for prefix in filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)):
        folder = Path(prefix) / 'share' / name
        if folder.is_dir():
            return folder
    return None


def _find_file(part: dict[str, Any], embodiment_file: Path) -> Path:
    """Return the existing file that a part names; the packages under `needs` must exist too."""
    name: str = part['file']
    matched = _PACKAGE_URI.fullmatch(name)
    packages: list[str] = ([matched.group(1)] if matched else []) + part.get('needs', [])
    found = {package: find_package(package) for package in packages}
    missing = [package for package, folder in found.items() if folder is None]
    if missing:
        which = ', '.join(f"'{package}'" for package in missing)
        how = part.get('install', 'install it and source its setup file')
        raise DescriptionError(
            f'ROS package{"s" if len(missing) > 1 else ""} {which} not found in '
            f'AMENT_PREFIX_PATH: {how}')
    share = found[matched.group(1)] if matched else None
    if matched and share:
        inside: Path = share / matched.group(2)
        if not inside.is_file():
            raise DescriptionError(
                f"package '{matched.group(1)}' has no {matched.group(2)} in {inside.parents[0]}; "
                'is it another version?')
        return inside
    for folder in (embodiment_file.parent, share_folder()):
        path = folder / name
        if path.is_file():
            return path
    raise DescriptionError(
        f'{name} is neither in {embodiment_file.parent} nor in {share_folder()}')


def _run_xacro(path: Path, arguments: dict[str, Any]) -> str:
    """Return the output of `xacro FILE name:=value …`, or raise its first error message."""
    # The xacro beside this Python first: its environment can find ROS packages.
    beside = Path(sys.executable).parent / 'xacro'
    program = str(beside) if beside.is_file() else shutil.which('xacro')
    if program is None:
        raise DescriptionError(
            f'{path.name} needs xacro, which is not installed: apt install ros-$ROS_DISTRO-xacro, '
            'or pip install xacro')
    command = [program, str(path), *(
        f'{name}:={_as_xacro(value)}' for name, value in arguments.items())]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_XACRO_SECONDS)
    except subprocess.TimeoutExpired:
        raise DescriptionError(
            f'xacro took more than {_XACRO_SECONDS:g} s for {path}') from None
    except OSError as error:
        raise DescriptionError(f'{program} cannot be run: {error.strerror}') from None
    if done.returncode != 0:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in said if 'rror' in line or 'not found' in line] or said
        raise DescriptionError(
            f'xacro cannot read {path}: {errors[0] if errors else f"exit {done.returncode}"}')
    return done.stdout


def _as_xacro(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _put_together(parts: list[dict[str, Any]], embodiment_file: Path) -> str:
    """Return one URDF of all parts, each fixed to the link `world` and with its prefixes."""
    robot = ElementTree.Element('robot', name=embodiment_file.stem)
    ElementTree.SubElement(robot, 'link', name='world')
    seen = {('link', 'world')}
    for index, part in enumerate(parts):
        path = _find_file(part, embodiment_file)
        tree = _parse(path, part)
        _add_prefixes(tree, part.get('joint_prefix', ''), part.get('link_prefix', ''))
        for element in tree:
            # Other elements, such as transmissions and simulators' plugins, are dropped.
            if element.tag not in ('link', 'joint', 'material'):
                continue
            key = (element.tag, element.get('name', ''))
            if key in seen and element.tag == 'material':
                continue
            if key in seen:
                raise DescriptionError(
                    f"part {index} ({path.name}) has a second {key[0]} '{key[1]}'; give the parts "
                    f'a {key[0]}_prefix each')
            seen.add(key)
            robot.append(copy.deepcopy(element))
        root = _root_link(tree, path)
        name = f'world_to_{root}'
        joint = ElementTree.SubElement(robot, 'joint', name=name, type='fixed')
        ElementTree.SubElement(joint, 'parent', link='world')
        ElementTree.SubElement(joint, 'child', link=root)
        ElementTree.SubElement(
            joint, 'origin', xyz=_numbers(part.get('xyz', (0, 0, 0))),
            rpy=_numbers(part.get('rpy', (0, 0, 0))))
    return ElementTree.tostring(robot, encoding='unicode')


def _parse(path: Path, part: dict[str, Any]) -> ElementTree.Element:
    try:
        if path.suffix == '.xacro':
            return ElementTree.fromstring(_run_xacro(path, part.get('arguments', {})))
        return ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise DescriptionError(f'URDF {path} is not well-formed XML: {error}') from None
    except OSError as error:
        raise DescriptionError(f'URDF {path} cannot be read: {error.strerror}') from None


def _add_prefixes(robot: ElementTree.Element, joint_prefix: str, link_prefix: str) -> None:
    for link in robot.findall('link'):
        link.set('name', link_prefix + link.get('name', ''))
    for joint in robot.findall('joint'):
        joint.set('name', joint_prefix + joint.get('name', ''))
        for end in joint.findall('parent') + joint.findall('child'):
            end.set('link', link_prefix + end.get('link', ''))
        for mimic in joint.findall('mimic'):
            mimic.set('joint', joint_prefix + mimic.get('joint', ''))


def _root_link(robot: ElementTree.Element, path: Path) -> str:
    children = {child.get('link', '') for child in robot.findall('joint/child')}
    roots = [name for link in robot.findall('link')
             if (name := link.get('name', '')) not in children]
    if len(roots) != 1:
        raise DescriptionError(f'{path} has {len(roots)} links without a parent, not one')
    return roots[0]


def _numbers(values: Iterable[float]) -> str:
    return ' '.join(repr(float(value)) for value in values)


def _keep(urdf: str, name: str) -> Path:
    """Write a URDF atomically into the cache folder, under a name with a hash of its content."""
    base = os.environ.get('XDG_CACHE_HOME', '')
    # A relative path has to be ignored (XDG Base Directory Specification).
    root = Path(base) if os.path.isabs(base) else Path(os.path.expanduser('~')) / '.cache'
    digest = hashlib.sha256(urdf.encode()).hexdigest()[:16]
    path = root / 'lingbot_va_ros' / 'urdf' / f'{name}_{digest}.urdf'
    if path.is_file():
        return path
    try:
        write_text(path, urdf)
    except OSError as error:
        raise DescriptionError(
            f'{path} cannot be written: {error.strerror}; set XDG_CACHE_HOME to a '
            'writable folder') from None
    return path
