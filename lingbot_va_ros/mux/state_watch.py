"""Where joint positions may not lead: out of the workspace, and bodies too near each other."""

from typing import Any, Protocol

import numpy as np

from lingbot_va_ros.motion.plan import Plan
from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.mux.collision_watch import CollisionWatch, TooNear
from lingbot_va_ros.mux.validation import Rejected
from lingbot_va_ros.mux.workspace import Breach, WorkspaceWatch
from lingbot_va_ros.robot.collision import CollisionModel
from lingbot_va_ros.specs.embodiment import Embodiment

# A plan may be outside by this (m), the noise of a network: the commands are kept inside.
PLAN_NOISE = 1e-3

AnyBreach = Breach | TooNear


class StateWatch(Protocol):
    """
    Tells by what excess joint positions are outside of where they may be.

    An excess is what one watch makes and understands; `nothing` is that of all states inside.
    """

    @property
    def nothing(self) -> Any:
        """The excess of a state inside."""

    def worst(self, path: np.ndarray) -> Any:
        """Return the largest excess along positions [n, J]."""

    def leaves(self, path: np.ndarray, allowed: Any) -> bool:
        """Return whether positions [n, J] lead further out than an excess."""

    def breach(self, worst: Any, allowed: Any) -> AnyBreach | None:
        """Return the largest part of an excess that is beyond another, or None."""

    def free_joints(self, breach: Any) -> np.ndarray | bool:
        """Return which joints [J] need not stop with the others for the sake of a breach."""


class Watches:
    """
    Workspace and collisions together: their excesses side by side.

    For one thread at a time.

    :param is_gripper: [J] bool.
    """

    def __init__(
        self, workspace: WorkspaceWatch | None, collision: CollisionWatch | None,
        is_gripper: np.ndarray,
    ) -> None:
        self.collision = collision
        self._is_gripper = is_gripper
        self._workspace = workspace
        self._parts = [part for part in (workspace, collision) if part is not None]
        self.nothing = tuple(part.nothing for part in self._parts)

    def worst(self, path: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the largest excess along positions [n, J]."""
        return tuple(part.worst(path) for part in self._parts)

    def leaves(self, path: np.ndarray, allowed: tuple[np.ndarray, ...]) -> bool:
        """Return whether positions [n, J] lead further out than an excess."""
        return any(
            part.leaves(path, each) for part, each in zip(self._parts, allowed, strict=True))

    def breach(
        self, worst: tuple[np.ndarray, ...], allowed: tuple[np.ndarray, ...],
    ) -> AnyBreach | None:
        """Return the largest part of an excess that is beyond another, or None."""
        for part, out, may in zip(self._parts, worst, allowed, strict=True):
            breach = part.breach(out, may)
            if breach is not None:
                return breach
        return None

    def free_joints(self, breach: AnyBreach | None) -> np.ndarray | bool:
        """
        Return which joints [J] need not stop with the others for the sake of a breach.

        Both arms stop together, since what they hold may be one thing. A gripper that has no part
        in it opens and closes.
        """
        return self._is_gripper & ~breach.joints if isinstance(breach, TooNear) else False

    def outside(self, q: np.ndarray) -> AnyBreach | None:
        """Return how positions [J] are outside, or None."""
        return self.breach(self.worst(q[None]), self.nothing)

    def plan_fault(self, plan: Plan, arm: np.ndarray | None) -> Rejected | None:
        """
        Return how a plan leads outside, or further out than the arm is, or None.

        :param arm: positions [J]; None: unknown.
        :returns: kinds workspace, collision.
        """
        path = plan.positions
        start = path[:0] if arm is None else arm[None]
        if self._workspace is not None:
            now = self._workspace.worst(start) if len(start) else self._workspace.nothing
            breach = self._workspace.breach(self._workspace.worst(path), now + PLAN_NOISE)
            if breach is not None:
                return Rejected(breach.kind, f'it would lead {breach}')
        if self.collision is None:
            return None
        now = self.collision.worst(start) if len(start) else self.collision.nothing
        found = self.collision.first_outside(path, now + PLAN_NOISE)
        if found is None:
            return None
        place, too_near = found
        rows = np.arange(len(path))
        after = float(np.interp(place, rows, plan.times_ns - plan.times_ns[0])) / NANOSECONDS
        return Rejected(
            too_near.kind, f'it would lead {too_near}, {after:.2f} s after its first point')


def make_watches(embodiment: Embodiment, model: CollisionModel | None) -> Watches | None:
    """
    Return what watches over an embodiment, or None: it has neither workspace nor collision.

    :param model: of the embodiment, where it has a collision section.
    :raises ValueError: the embodiment's workspace cannot be watched.
    """
    if embodiment.workspace is None and model is None:
        return None
    return Watches(
        None if embodiment.workspace is None else WorkspaceWatch(embodiment),
        None if model is None else CollisionWatch(model), np.isin(embodiment.joints, [
            arm.gripper.joint for arm in embodiment.arms if arm.gripper is not None]))
