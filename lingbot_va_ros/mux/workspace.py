"""The workspace box: tells how far a command or a plan would lead a tool frame out of it."""

from dataclasses import dataclass, replace

import numpy as np

from lingbot_va_ros.robot.kinematics import ArmKinematics
from lingbot_va_ros.specs.embodiment import Embodiment

# Joints move at most this far (rad, m) between two checked states. In between, the tool of an arm
# with a reach R is at most R·(0.04)²/8 off the straight line: 0.2 mm at 1 m.
LARGEST_GAP = 0.04
# No more states than this are checked along one path, however long it is.
MOST_STATES = 400
# A command that is outside by no more than this (m) is rounding, no motion.
ROUNDING = 1e-9
AXES = ('x', 'y', 'z')


@dataclass(frozen=True)
class Breach:
    """How one tool leaves the box: metres along an axis, and the bound that it passes."""

    side: str
    axis: str
    value: float
    bound: float

    kind = 'workspace'

    def __str__(self) -> str:
        relation = 'below' if self.value < self.bound else 'above'
        return (f'the {self.side} tool at {self.axis} = {self.value:.3f} m, {relation} the '
                f"workspace's {self.bound:.3f} m")


class WorkspaceWatch:
    """
    Tells how far joint positions put the tool frames outside the embodiment's box.

    An arm that is outside already (moved there by hand) has a way back: a motion leaves the box
    only where it leads further out, on any axis, than it began. For one thread at a time.

    :raises ValueError: the embodiment has no workspace, or the joints between base_frame and a
        tool frame are not the arm's alone.
    """

    def __init__(self, embodiment: Embodiment) -> None:
        if embodiment.workspace is None:
            raise ValueError('no workspace')
        self._lower, self._upper = embodiment.workspace.lower, embodiment.workspace.upper
        self._arms = [
            (arm.side, ArmKinematics(embodiment, replace(arm, base_frame=embodiment.base_frame)),
             np.array([embodiment.joints.index(joint) for joint in arm.joints]))
            for arm in embodiment.arms]
        self._columns = np.concatenate([columns for _, _, columns in self._arms])
        self.nothing = np.zeros((len(self._arms), 2, len(AXES)))

    def places(self, q: np.ndarray) -> np.ndarray:
        """Return the tools' places [arms, 3] in the base frame, m, for joint positions [J]."""
        return np.stack([kinematics.place(q[columns]) for _, kinematics, columns in self._arms])

    def excess(self, q: np.ndarray) -> np.ndarray:
        """Return how far each tool is outside the box, [arms, 2, 3] in m (below, above), ≥ 0."""
        places = self.places(q)
        beyond = np.stack((self._lower - places, places - self._upper), axis=1)
        return np.asarray(np.maximum(beyond, 0.0))

    def worst(self, path: np.ndarray) -> np.ndarray:
        """Return the largest excess [arms, 2, 3] along positions [n, J], densely checked."""
        return np.asarray(np.max([self.excess(q) for q in self._dense(path)], axis=0))

    def leaves(self, path: np.ndarray, allowed: np.ndarray) -> bool:
        """Return whether positions [n, J] lead further out than `allowed` [arms, 2, 3]."""
        return any(np.any(self.excess(q) > allowed + ROUNDING) for q in self._dense(path))

    def breach(self, worst: np.ndarray, allowed: np.ndarray) -> Breach | None:
        """Return the largest part of an excess that is beyond `allowed`, or None."""
        beyond = worst - allowed
        arm, side, axis = np.unravel_index(int(np.argmax(beyond)), beyond.shape)
        if beyond[arm, side, axis] <= 0:
            return None
        bound = (self._lower, self._upper)[side][axis]
        out = worst[arm, side, axis] * (-1 if side == 0 else 1)
        return Breach(self._arms[arm][0], AXES[axis], float(bound + out), float(bound))

    def free_joints(self, breach: Breach | None) -> bool:
        """Return whether joints move on at the wall: none does."""
        return False

    def outside(self, q: np.ndarray) -> Breach | None:
        """Return how positions [J] lie outside the box, or None."""
        return self.breach(self.excess(q), self.nothing)

    def _dense(self, path: np.ndarray) -> list[np.ndarray]:
        """Return the rows of a path, and rows between them where the joints move far."""
        gaps = np.abs(np.diff(path[:, self._columns], axis=0)).max(axis=1, initial=0.0)
        parts = np.maximum(np.ceil(gaps / LARGEST_GAP), 1).astype(int)
        if parts.sum() > MOST_STATES:
            parts = np.maximum(parts * MOST_STATES // parts.sum(), 1)
        rows = [path[0]]
        for before, after, count in zip(path[:-1], path[1:], parts, strict=True):
            rows += [before + (after - before) * part / count for part in range(1, count + 1)]
        return rows
