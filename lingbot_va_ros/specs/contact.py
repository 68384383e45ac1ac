"""The contact limits of an embodiment file: efforts and wrenches beyond which the mux holds."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from lingbot_va_ros.specs.yaml_lines import KeyPath, Mistake

AXES = ('force x', 'force y', 'force z', 'torque x', 'torque y', 'torque z')
DEFAULT_TIMEOUT = 0.2  # s


@dataclass(frozen=True)
class WrenchLimits:
    """
    The limits of one wrench topic.

    :param topic: of geometry_msgs/WrenchStamped, absolute or relative.
    :param limits: greatest amounts by axis, N and Nm; axes that are left out have none.
    :param timeout: seconds of silence that mean HOLD.
    """

    topic: str
    limits: Mapping[str, float]
    timeout: float = DEFAULT_TIMEOUT


@dataclass(frozen=True)
class ContactLimits:
    """
    Amounts beyond which command_mux holds; none by default. It is no safety function.

    :param efforts: of joint_states, by joint, Nm (prismatic: N).
    """

    efforts: Mapping[str, float] = field(default_factory=dict)
    wrenches: tuple[WrenchLimits, ...] = ()


def read_contact(
    section: dict[str, Any] | None, joints: Collection[str], mistakes: list[Mistake],
) -> ContactLimits:
    """
    Return the contact limits of a file.

    :param joints: of the robot.
    :param mistakes: gets what the schema cannot find.
    """
    if section is None:
        return ContactLimits()
    efforts = section.get('efforts', {})
    mistakes += [(('contact', 'efforts', name), f"'{name}' is not a joint of the robot")
                 for name in efforts if name not in joints]
    wrenches: list[WrenchLimits] = []
    topics: set[str] = set()
    for index, entry in enumerate(section.get('wrenches', ())):
        at: KeyPath = ('contact', 'wrenches', index)
        if entry['topic'] in topics:
            mistakes.append(((*at, 'topic'), f"topic '{entry['topic']}' appears twice"))
        topics.add(entry['topic'])
        if 'force' not in entry and 'torque' not in entry:
            mistakes.append((at, 'needs force or torque'))
        wrenches.append(WrenchLimits(
            entry['topic'], _by_axis(entry), float(entry.get('timeout', DEFAULT_TIMEOUT))))
    return ContactLimits({name: float(limit) for name, limit in efforts.items()}, tuple(wrenches))


def _by_axis(entry: dict[str, Any]) -> dict[str, float]:
    """Return limits by axis; one number stands for all three axes."""
    limits: dict[str, float] = {}
    for kind in ('force', 'torque'):
        given = entry.get(kind)
        if given is not None:
            values = given if isinstance(given, list) else [given] * 3
            limits |= {f'{kind} {axis}': float(value)
                       for axis, value in zip('xyz', values, strict=True)}
    return limits
