"""
Compares the names that training data give the columns of an action with an embodiment's joints.

Data name the same joint in many ways: `left_waist`, `shoulder_pan.pos`, `main_shoulder_pan`,
`joint_0`. Two names mean the same where they have the same words, apart from words that every
joint has. Nothing is permuted: names that lie in another order than the channels are refused.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
import re
from typing import Any

from lingbot_va_ros.specs.channels import FIRST_JOINT_CHANNEL, FIRST_POSE_CHANNEL, GRIPPER_CHANNEL
from lingbot_va_ros.specs.embodiment import Arm, Embodiment

SIDES = {'left': 'left', 'right': 'right'}
SHORT_SIDES = {'l': 'left', 'r': 'right'}
POSE = ('x', 'y', 'z', 'qx', 'qy', 'qz', 'qw')
DELTA = ('x', 'y', 'z', 'rx', 'ry', 'rz', 'gripper')
# Words that say nothing about which joint or axis it is.
EMPTY_WORDS = {
    'joint', 'joints', 'j', 'pos', 'position', 'positions', 'qpos', 'rad', 'motor', 'motors',
    'arm', 'main', 'follower', 'robot', 'action', 'state', 'target', 'delta', 'd', 'eef', 'ee',
    'pose', 'tcp'}
GRIPPER_WORDS = {'gripper', 'grip', 'finger', 'jaw', 'claw'}
AXIS_WORDS = (({'quat', 'quaternion'}, 'q'), ({'rot', 'rotation', 'axisangle'}, 'r'))
DELTA_WORDS = {'dx', 'dy', 'dz', 'drx', 'dry', 'drz'}
LONGEST_NAME = 100
MOST_TOLD = 4  # columns that one line names

# What two names that mean the same have in common: the side (None: not said) and the words, or the
# rank of a joint that has a number only.
Key = tuple[str | None, frozenset[str] | int]
GRIPPER = frozenset({'gripper'})


@dataclass(frozen=True)
class NameComparison:
    """
    The result of a comparison.

    :param mistake: why the names contradict the embodiment, one line; '' if they do not.
    :param remark: why they could not be compared, one line; '' if they could.
    """

    mistake: str = ''
    remark: str = ''


def flat_names(names: Any) -> list[str] | None:
    """
    Return the names in one of LeRobot's forms, or None for anything else.

    :param names: a list, a list in a list or in an object, or an object from name to column.
    """
    if isinstance(names, dict):
        if names and all(type(place) is int for place in names.values()):
            if sorted(names.values()) != list(range(len(names))):
                return None
            return sorted(names, key=lambda name: names[name])
        if len(names) != 1:
            return None
        names, = names.values()
    if isinstance(names, list) and len(names) == 1 and isinstance(names[0], list):
        names, = names
    if isinstance(names, list) and names and all(
            isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and name.isprintable()
            for name in names):
        return names
    return None


def compare_names(
    names: Sequence[str], used_channels: Sequence[int], embodiment: Embodiment, frame: str,
) -> NameComparison:
    """
    Compare the names of an action's columns with what the embodiment has in their channels.

    :param names: of the columns; empty: the data name none.
    :param used_channels: of the columns, as many.
    :param frame: the action frame.
    """
    if not names:
        return NameComparison()
    wanted = _of_embodiment(used_channels, embodiment, frame)
    if wanted is None:
        return NameComparison()  # channels without a joint are reported by themselves
    two_arms = len(embodiment.arms) == 2
    given = _of_data(names, two_arms)
    twice = sorted({name for name, key in zip(names, given) if given.count(key) > 1})
    if twice:
        return NameComparison(mistake=(
            f'action names {", ".join(twice[:MOST_TOLD])} cannot be told apart; {_ADVICE}'))
    place = {key: column for column, (keys, _) in enumerate(wanted) for key in keys}
    if len(place) < sum(len(keys) for keys, _ in wanted):
        return NameComparison(remark=(
            'action names are not compared: joints of the embodiment have names that cannot be '
            'told apart'))
    astray = [
        f'{name} (channel {used_channels[column]}) is at {wanted[column][1]}, not at '
        f'{wanted[place[key]][1]}'
        for column, (name, key) in enumerate(zip(names, given))
        if key in place and place[key] != column]
    if astray:
        more = f' and {len(astray) - MOST_TOLD} more' if len(astray) > MOST_TOLD else ''
        return NameComparison(mistake=(
            f'the data of the policy name the columns of an action in another order than '
            f"embodiment '{embodiment.name}': {', '.join(astray[:MOST_TOLD])}{more}; {_ADVICE}"))
    unknown = [f'{name} (at {wanted[column][1]})' for column, (name, key) in enumerate(
        zip(names, given)) if key not in place]
    if unknown:
        more = f' and {len(unknown) - MOST_TOLD} more' if len(unknown) > MOST_TOLD else ''
        return NameComparison(remark=(
            f"action names that say nothing about embodiment '{embodiment.name}': "
            f'{", ".join(unknown[:MOST_TOLD])}{more}; make sure that the order is the same'))
    return NameComparison()


_ADVICE = (
    "write the embodiment's joints and sides in the order of the data, or the right "
    'action_names in the policy file')


def _of_embodiment(
    used: Sequence[int], embodiment: Embodiment, frame: str,
) -> list[tuple[list[Key], str]] | None:
    """Return keys and label of each column, or None where a channel is not the embodiment's."""
    content: dict[int, tuple[list[Key], str]] = {}
    two_arms = len(embodiment.arms) == 2
    for arm in embodiment.arms:
        side = arm.side if two_arms else None
        if frame == 'joints':
            content.update({
                FIRST_JOINT_CHANNEL[arm.side] + number: ([(side, word) for word in words], joint)
                for number, (joint, words) in enumerate(_words_of_joints(arm).items())})
        else:
            parts = DELTA if frame == 'eef_delta' else POSE
            content.update({
                FIRST_POSE_CHANNEL[arm.side] + number: (
                    [(side, frozenset({part}))], f'{arm.side} {part}')
                for number, part in enumerate(parts)})
        if arm.gripper is not None and frame != 'eef_delta':
            content[GRIPPER_CHANNEL[arm.side]] = ([(side, GRIPPER)], arm.gripper.joint)
    if not all(channel in content for channel in used):
        return None
    return [content[channel] for channel in used]


def _words_of_joints(arm: Arm) -> dict[str, list[frozenset[str] | int]]:
    """
    Return what tells each joint of an arm apart, in the arm's order, from base to tool.

    Joints without numbers have the rank of their place too: data may number them.
    """
    ranked = _ranked([_words(joint)[1] for joint in arm.joints])
    return {
        joint: [words] if isinstance(words, int) else [words, place]
        for place, (joint, words) in enumerate(zip(arm.joints, ranked))}


def _of_data(names: Sequence[str], two_arms: bool) -> list[Key]:
    short = all(_words(name, SHORT_SIDES)[0] for name in names)
    split = [_words(name, {**SIDES, **SHORT_SIDES} if short else SIDES) for name in names]
    keys: list[Key] = [(None, frozenset())] * len(names)
    sides = {side for side, _ in split}
    for side in sides:
        columns = [column for column, (each, _) in enumerate(split) if each == side]
        # A single arm is the left or right one of the data as it likes.
        said = side if two_arms or len(sides - {None}) > 1 else None
        joints = [column for column in columns if not split[column][1] & GRIPPER_WORDS]
        for column in columns:
            keys[column] = (said, GRIPPER)
        for column, words in zip(joints, _ranked([split[column][1] for column in joints])):
            keys[column] = (said, words)
    return keys


def _words(name: str, sides: Mapping[str, str] = SIDES) -> tuple[str | None, frozenset[str]]:
    """Return the side that a name says first, or None, and its other words."""
    words = re.findall(r'[a-z]+|[0-9]+', name.lower())
    for group, letter in AXIS_WORDS:  # quat_x and rotation_x are one word each: qx, rx
        if group & set(words):
            words = [letter + word if word in 'xyzw' else word
                     for word in words if word not in group]
    words = [word[1:] if word in DELTA_WORDS else word for word in words]
    side = next((sides[word] for word in words if word in sides), None)
    return side, frozenset(words) - EMPTY_WORDS - set(sides)


def _ranked(joints: Sequence[frozenset[str]]) -> list[frozenset[str] | int]:
    """Return the words without those that all joints have; the rank of pure numbers."""
    common: Iterable[str] = frozenset.intersection(*joints) if len(joints) > 1 else frozenset()
    rest = [words - frozenset(common) for words in joints]
    if all(len(words) == 1 and next(iter(words)).isdigit() for words in rest):
        numbers = [int(next(iter(words))) for words in rest]
        if len(set(numbers)) == len(numbers):
            return [sorted(numbers).index(number) for number in numbers]
    return list(rest)
