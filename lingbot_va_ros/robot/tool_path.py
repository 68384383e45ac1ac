"""Where a plan leads the tools, for people to look at."""

from dataclasses import dataclass

import numpy as np

from lingbot_va_ros.robot.kinematics import ArmKinematics
from lingbot_va_ros.specs.embodiment import Embodiment


@dataclass(frozen=True)
class ToolPath:
    """One arm's way from joint positions to points of its tool frame."""

    side: str
    frame: str  # the base frame, in which the points are
    kinematics: ArmKinematics
    columns: tuple  # of the arm's joints among the embodiment's

    def points(self, positions: np.ndarray) -> np.ndarray:
        """Return the tool's places [n, 3] in m for joint positions [n, J]."""
        return np.stack([
            self.kinematics.forward(row)[:3, 3] for row in positions[:, list(self.columns)]])


def tool_paths(embodiment: Embodiment) -> list[ToolPath]:
    """Return one for each arm of which the embodiment names both base and tool frame."""
    return [
        ToolPath(
            arm.side, arm.base_frame or embodiment.base_frame, ArmKinematics(embodiment, arm),
            tuple(embodiment.joints.index(joint) for joint in arm.joints))
        for arm in embodiment.arms
        if arm.tool_frame and (arm.base_frame or embodiment.base_frame)]
