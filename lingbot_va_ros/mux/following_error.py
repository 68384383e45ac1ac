"""The following error: how far the measured arm is from its command."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lingbot_va_ros.specs.embodiment import Embodiment

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


def following_error_limits(embodiment: Embodiment, default: float) -> np.ndarray:
    """
    Return the greatest following error of each joint, [J], rad or m; inf: it need not follow.

    A gripper that holds an object cannot reach its command: that is no fault, and so a gripper is
    watched only where the embodiment file gives it a limit.

    :param default: of the arms' joints for which the file gives none.
    """
    grippers = [arm.gripper.joint for arm in embodiment.arms if arm.gripper]
    limits = np.where(np.isin(embodiment.joints, grippers), np.inf, default)
    given = embodiment.limits.following_error
    return limits if given is None else np.where(np.isnan(given), limits, given)


def following_error(
    measured: np.ndarray, commanded: np.ndarray, limits: np.ndarray, joints: Sequence[str],
) -> FollowingError | None:
    """
    Return the following error that is furthest beyond its limit, or None: all are inside.

    :param measured, commanded: positions [J], rad or m; a measurement is compared with the command
        of its own time, since joint states come late.
    :param limits: [J], rad or m; see `following_error_limits`.
    :param joints: names, for the reason.
    """
    error = np.abs(measured - commanded)
    share = error / limits
    worst = int(np.argmax(share))
    if not share[worst] > 1.0:
        return None
    return FollowingError(
        f"following error of '{joints[worst]}' is {error[worst]:.3f}, more than "
        f'{limits[worst]:g}', bool(share[worst] < RETREAT_FACTOR))
