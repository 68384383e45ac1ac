"""Reads which axes of an end-effector pose count for an arm, and what error of them is taken."""

from dataclasses import dataclass
import math
from typing import Any

from lingbot_va_ros.specs.yaml_lines import KeyPath, Mistake

AXES = ('x', 'y', 'z', 'rx', 'ry', 'rz')
# A smaller weight than this share of the largest is lost in the damping of the inverse kinematics.
LEAST_SHARE = 1e-3
# Errors that are taken where the file gives weights and no tolerance: the position is the task,
# and an orientation that the arm cannot take is taken as well as it can.
TRANSLATION = 0.02  # m
ROTATION = math.pi  # rad


@dataclass(frozen=True)
class PoseWeights:
    """
    What counts of the end-effector poses of an arm that cannot take every pose.

    :param weights: of the error along and about the axes of the commanded tool frame, in the order
        of `AXES`, the largest is 1. 0: the axis does not count. The ratio of a weight of a
        rotation to one of a translation is in m per rad.
    :param translation: error in m, over the axes that count, with which a pose is taken.
    :param rotation: the same in rad.
    """

    weights: tuple[float, ...]
    translation: float = TRANSLATION
    rotation: float = ROTATION


def read_pose_weights(
    entry: dict[str, Any], place: KeyPath, mistakes: list[Mistake],
) -> PoseWeights | None:
    """
    Return the weights of an arm's entry in an embodiment file, or None without any.

    :param entry: keeps to the schema.
    :param place: of the entry.
    :param mistakes: receives what the schema cannot find.
    """
    weights, tolerance = entry.get('pose_weights'), entry.get('pose_tolerance', {})
    if weights is None:
        if 'pose_tolerance' in entry:
            mistakes.append((
                (*place, 'pose_tolerance'), 'without pose_weights an arm takes whole poses only; '
                'give both or neither'))
        return None
    largest = max(weights)
    if largest == 0:
        mistakes.append((
            (*place, 'pose_weights'), 'every weight is 0: no axis of a pose would count'))
        return None
    small = [name for name, weight in zip(AXES, weights) if 0 < weight < LEAST_SHARE * largest]
    if small:
        mistakes.append((
            (*place, 'pose_weights'), f'{", ".join(small)}: a weight is 0 or at least '
            f'{LEAST_SHARE:g} of the largest'))
    return PoseWeights(
        tuple(float(weight) / largest for weight in weights),
        float(tolerance.get('translation', TRANSLATION)),
        float(tolerance.get('rotation', ROTATION)))
