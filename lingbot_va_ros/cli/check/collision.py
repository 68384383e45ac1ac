"""Findings about the collision section of an embodiment file."""

import numpy as np

from lingbot_va_ros.cli.check.finding import Finding
from lingbot_va_ros.specs.embodiment import Embodiment

# Pairs that touch in all of so many random poses inside the limits count as always in contact.
POSES = 200
# So many names stand in one line.
MOST_NAMES = 6


def collision_findings(name: str, embodiment: Embodiment) -> list[Finding]:
    """
    Return what is wrong with, or left out of, the collision check of an embodiment.

    :param name: of the embodiment, as the user gave it.
    """
    from lingbot_va_ros.robot.collision import CollisionModel, Distances  # slow: pinocchio

    spec = embodiment.collision
    if spec is None:
        return []
    found = []
    if spec.unknown_links:
        found.append(Finding(
            'warning', name, 'collision.srdf names links that the URDF does not have: '
            + _listed(list(spec.unknown_links))))
    try:
        model = CollisionModel(embodiment)
    except ValueError as error:
        return [*found, Finding('error', name, f'collision: {error}')]
    found += [Finding('warning', name, f'collision: {line}') for line in model.remarks()]
    distances = Distances(model)
    limits = embodiment.limits
    poses = np.random.default_rng(0).uniform(
        limits.lower, limits.upper, (POSES, len(limits.lower)))
    largest = np.max([distances.at(q) for q in poses], axis=0)
    always = [f'{one} and {other}'
              for (one, other), far in zip(model.bodies, largest, strict=True) if far <= 0.0]
    if always:
        found.append(Finding(
            'warning', name, f'collision: always in contact: {_listed(always)}; disable them in '
            'the SRDF or name them in ignore'))
    return found


def _listed(names: list[str]) -> str:
    more = len(names) - MOST_NAMES
    return ', '.join(names[:MOST_NAMES]) + (f' and {more} more' if more > 0 else '')
