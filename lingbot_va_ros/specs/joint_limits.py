"""The limits of an embodiment's joints: the URDF's, tightened by the embodiment file."""

from dataclasses import dataclass
import math
from pathlib import Path
from typing import Any

from lingbot_va_ros.specs.robot_description import UrdfJoint
from lingbot_va_ros.specs.yaml_lines import KeyPath, Mistake

COMMANDABLE = ('revolute', 'prismatic', 'continuous')
LEAST_WIDTH = 1e-4  # rad or m; a range of positions that is narrower leaves no motion
_NO_LIMITS = "joint '{}' has no acceleration and jerk limits"


@dataclass(frozen=True)
class Urdf:
    """A robot description that was read without errors."""

    path: Path
    joints: dict[str, UrdfJoint]
    links: set[str]


@dataclass(frozen=True)
class JointBounds:
    """
    Limits of one joint: position, velocity, acceleration and jerk, in rad or m, and s.

    :param stop_jerk: of a stop.
    :param following_error: rad or m; NaN: not in the file.
    """

    lower: float
    upper: float
    velocity: float
    acceleration: float
    jerk: float
    stop_jerk: float
    following_error: float = math.nan

    def mistakes_of(self, place: KeyPath, position: float) -> list[Mistake]:
        """Return a mistake if a position is outside the limits."""
        if self.lower <= position <= self.upper:
            return []
        return [(
            place, f'{position:g} is outside the limits {self.lower:g} … {self.upper:g}')]


def read_limits(
    section: dict[str, Any], schema: dict[str, Any], places: dict[str, KeyPath],
    urdf: Urdf | None, mistakes: list[Mistake],
) -> dict[str, JointBounds]:
    """
    Return the limits of each joint whose limits are known and correct.

    :param section: the file's `limits`.
    :param schema: of embodiment files; its ranges apply to the URDF as well.
    :param places: the key path of each joint in the file.
    :param mistakes: receives the mistakes.
    """
    bounds = {}
    for name, place in places.items():
        joint = None
        if urdf is not None:
            joint = urdf.joints.get(name)
            wrong = why_not_commandable(name, joint, urdf)
            if wrong:
                mistakes.append((place, wrong))
                continue
        if name not in section:
            mistakes.append((('limits',), _NO_LIMITS.format(name)))
        elif joint is not None:
            given = section[name]
            wrong_numbers = _implausible(joint, given, schema['$defs'])
            merged, wrong_keys = _merge_limits(joint, given)
            wrong_keys = wrong_numbers or wrong_keys
            mistakes += [(('limits', name, *key), message) for key, message in wrong_keys]
            if not wrong_keys:
                bounds[name] = merged
    mistakes += unused_names(section, 'limits', places)
    return bounds


def why_not_commandable(name: str, joint: UrdfJoint | None, urdf: Urdf) -> str:
    """Return the reason, in one line, why a joint cannot be commanded, or ''."""
    if joint is None:
        return f"the URDF {urdf.path.name} has no joint '{name}'"
    if joint.kind not in COMMANDABLE:
        return f"joint '{name}' is {joint.kind} and cannot be commanded"
    if joint.mimics:
        return f"joint '{name}' mimics '{joint.mimics}'; command that one"
    return ''


def _implausible(
    in_urdf: UrdfJoint, given: dict[str, Any], definitions: dict[str, Any],
) -> list[Mistake]:
    """
    Return the mistakes of the URDF's numbers, by key within `given`.

    A value is a mistake if it is not finite, or if it is outside the schema's range and the file
    does not override it.
    """
    mistakes: list[Mistake] = []
    endless = in_urdf.kind == 'continuous'
    for key, value, kind in (
            ('lower', in_urdf.lower, 'position'), ('upper', in_urdf.upper, 'position'),
            ('velocity', in_urdf.velocity, 'velocity')):
        if (endless and kind == 'position') or (kind == 'velocity' and value == 0):
            continue  # the file must give one
        least, most = definitions[kind]['minimum'], definitions[kind]['maximum']
        if not math.isfinite(value) or (key not in given and not least <= value <= most):
            mistakes.append((
                (), f"the URDF's {key} is {value:g}; expected {least:g} … {most:g}"))
    return mistakes


def _merge_limits(in_urdf: UrdfJoint, given: dict[str, Any]) -> tuple[JointBounds, list[Mistake]]:
    """
    Tighten the URDF's limits of one joint by those of the embodiment file.

    :param given: looser limits than the URDF's are mistakes, unless it has `looser_than_urdf`.
    :returns: the limits, and the mistakes by key within `given`.
    """
    mistakes: list[Mistake] = []
    endless = in_urdf.kind == 'continuous'
    if endless and not ('lower' in given and 'upper' in given):
        mistakes.append(((), 'a continuous joint needs lower and upper here'))
    if in_urdf.velocity <= 0 and 'velocity' not in given:
        mistakes.append(((), 'the URDF has no velocity limit; give velocity here'))
    lower = given.get('lower', in_urdf.lower)
    upper = given.get('upper', in_urdf.upper)
    velocity = given.get('velocity', in_urdf.velocity)
    if not lower + LEAST_WIDTH <= upper and not mistakes:
        mistakes.append(((), f'lower {lower:g} is not below upper {upper:g}'))
    if not given.get('looser_than_urdf', False):
        mistakes += [
            ((key,), f"{value:g} is looser than the URDF's {limit:g}; set looser_than_urdf: true "
             'if that is meant')
            for key, value, limit, looser in (
                ('lower', lower, in_urdf.lower, not endless and lower < in_urdf.lower),
                ('upper', upper, in_urdf.upper, not endless and upper > in_urdf.upper),
                ('velocity', velocity, in_urdf.velocity, 0 < in_urdf.velocity < velocity))
            if looser]
    stop_jerk = given.get('stop_jerk', given['jerk'])
    if stop_jerk < given['jerk']:
        mistakes.append((
            ('stop_jerk',), f"{stop_jerk:g} is below jerk ({given['jerk']:g}); a stop may not be "
            'softer than a motion'))
    return JointBounds(
        lower, upper, velocity, given['acceleration'], given['jerk'], stop_jerk,
        given.get('following_error', math.nan)), mistakes


def unused_names(
    section: dict[str, Any], key: str, places: dict[str, KeyPath],
) -> list[Mistake]:
    """Return a mistake for each name in a section that is not a joint of an arm or gripper."""
    return [((key, name), 'is not a joint of an arm or gripper')
            for name in section if name not in places]
