"""Further joints of an embodiment file, such as a torso: they are sent and held, none moves."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from lingbot_va_ros.specs.joint_limits import Urdf, why_not_commandable
from lingbot_va_ros.specs.yaml_lines import Mistake

WHERE_IT_IS = 'where_it_is'
# Of a joint for which the URDF has none: rad or m, rad/s or m/s.
_WIDEST, _FASTEST = 100.0, 10.0


@dataclass(frozen=True)
class HeldJoint:
    """
    A joint that no action moves.

    :param position: where it has to stand before anything moves, rad or m; None: anywhere.
    :param lower, upper: its positions, rad or m.
    :param velocity: rad/s or m/s.
    """

    name: str
    position: float | None
    lower: float
    upper: float
    velocity: float


def read_held_joints(
    section: dict[str, Any], joints: Collection[str], urdf: Urdf | None,
    mistakes: list[Mistake],
) -> tuple[HeldJoint, ...]:
    """
    Return the held joints of a file.

    :param section: positions by name.
    :param joints: of arms and grippers.
    :param mistakes: gets what the schema cannot find.
    """
    held = []
    for name, given in section.items():
        place = ('held_joints', name)
        if name in joints:
            mistakes.append((place, 'is a joint of an arm or gripper'))
            continue
        if urdf is None:
            continue
        joint = urdf.joints.get(name)
        wrong = why_not_commandable(name, joint, urdf)
        if wrong or joint is None:
            mistakes.append((place, wrong))
            continue
        endless = joint.kind == 'continuous'
        lower, upper = (-_WIDEST, _WIDEST) if endless else (joint.lower, joint.upper)
        position = None if given == WHERE_IT_IS else float(given)
        if position is not None and not lower <= position <= upper:
            mistakes.append((
                place, f'{position:g} is outside the limits {lower:g} … {upper:g}'))
        velocity = joint.velocity if 0 < joint.velocity <= _WIDEST else _FASTEST
        held.append(HeldJoint(name, position, lower, upper, velocity))
    return tuple(held)
