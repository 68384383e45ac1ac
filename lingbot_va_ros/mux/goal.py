"""The goal: what a command source asks the joints to have at the next tick."""

from typing import NamedTuple

import numpy as np

from lingbot_va_ros.motion.plan import Plan

# A goal with more than this share of the jerk limits is not caught while it moves so: the joints
# need what is left to come nearer.
JERK_SHARE = 0.5


class Goal(NamedTuple):
    """
    Where the joints are asked to be one tick later, and how they move there.

    :param q, v, a, j: positions, velocities, accelerations and jerks [J]; rad and s, or m and s.
        The jerk is that of the tick that ends there.
    """

    q: np.ndarray
    v: np.ndarray
    a: np.ndarray
    j: np.ndarray


def even_goal(q: np.ndarray, v: np.ndarray | None = None) -> Goal:
    """Return the goal to be at positions [J] at an even velocity [J], by default at rest."""
    rest = np.zeros_like(q)
    return Goal(q, rest if v is None else v, rest, rest)


def plan_goal(
    plan: Plan, time_ns: int, acceleration: np.ndarray, jerk: np.ndarray) -> Goal:
    """
    Return the goal to be at a plan's state at a time.

    Where a plan bends more than a joint may, as splines through rough positions do at their knots,
    its bend says nothing of the motion: the goal moves evenly there.

    :param acceleration, jerk: limits [J].
    """
    q, v = plan.sample(time_ns)
    a, j = plan.bend(time_ns)
    is_smooth = (np.abs(a) <= acceleration) & (np.abs(j) <= JERK_SHARE * jerk)
    return Goal(q, v, np.where(is_smooth, a, 0.0), np.where(is_smooth, j, 0.0))
