"""Computes the path of each tool frame along a plan, for visualization."""

from dataclasses import dataclass

import numpy as np

from lingbot_va_ros.robot.kinematics import ArmKinematics
from lingbot_va_ros.specs.embodiment import Embodiment


@dataclass(frozen=True)
class ArmToolPath:
    """
    The tool path of one arm.

    :param frame: the base frame, in which the points are expressed.
    :param columns: of the arm's joints in a row of the embodiment's joints.
    """

    side: str
    frame: str
    kinematics: ArmKinematics
    columns: tuple[int, ...]

    def points(self, positions: np.ndarray) -> np.ndarray:
        """Return positions [n, 3] of the tool frame in m for joint positions [n, J]."""
        return np.stack([
            self.kinematics.forward(row)[:3, 3] for row in positions[:, list(self.columns)]])


def tool_paths(embodiment: Embodiment) -> list[ArmToolPath]:
    """Return the path of each arm whose base and tool frame the embodiment names."""
    paths = []
    for arm in embodiment.arms:
        base = arm.base_frame or embodiment.base_frame
        if base and arm.tool_frame:
            paths.append(ArmToolPath(
                arm.side, base, ArmKinematics(embodiment, arm),
                tuple(embodiment.joints.index(joint) for joint in arm.joints)))
    return paths
