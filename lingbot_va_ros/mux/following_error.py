"""The following error: how far the measured arm is from its command."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# An arm that cannot follow is led back to where it is measured, unless it is more than so many
# times the greatest following error away: an arm that was held up is about that far behind, and a
# measurement from further off is not trusted.
RETREAT_FACTOR = 1.5


@dataclass(frozen=True)
class FollowingError:
    """
    A following error beyond the limit.

    :param reason: one line for people.
    :param can_retreat: whether the arm is near enough to be led back to where it is measured.
    """

    reason: str
    can_retreat: bool


def following_error(
    measured: np.ndarray, commanded: np.ndarray, may_lag: np.ndarray, limit: float,
    joints: Sequence[str],
) -> FollowingError | None:
    """
    Return the largest following error where it is beyond the limit, else None.

    :param measured, commanded: positions [J], rad or m.
    :param may_lag: [J] bool: joints that need not follow. A gripper that holds an object cannot
        reach its command: that is no fault.
    :param limit: rad or m.
    :param joints: names, for the reason.
    """
    error = np.where(may_lag, 0.0, np.abs(measured - commanded))
    worst = int(np.argmax(error))
    if not error[worst] > limit:
        return None
    return FollowingError(
        f"following error of '{joints[worst]}' is {error[worst]:.3f}, more than {limit:g}",
        bool(error[worst] < RETREAT_FACTOR * limit))
