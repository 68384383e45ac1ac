"""Plans the path of a tool: minimum-jerk moves, then joint positions by inverse kinematics."""

from collections.abc import Sequence

import numpy as np

from lingbot_va_ros.robot.kinematics import ArmKinematics
from lingbot_va_ros.specs.embodiment import Arm, Embodiment


class ToolPath:
    """
    A sum of minimum-jerk moves (Flash and Hogan 1985) of a point [x, y, z, opening], in metres.

    Moves that overlap in time blend at the corners; the sum always ends at the last goal, at
    rest. `time` is where the next move begins, in seconds.
    """

    def __init__(self, start: np.ndarray):
        self.start = np.asarray(start, float)
        self._goal = self.start.copy()
        self._moves: list[tuple[float, float, np.ndarray]] = []
        self.time = 0.0

    def to(self, seconds: float, x: float | None = None, y: float | None = None,
           z: float | None = None, opening: float | None = None,
           overlap: float = 0.0) -> None:
        """Move on to these coordinates; the move begins `overlap` seconds before `time`."""
        goal = self._goal.copy()
        for column, value in enumerate((x, y, z, opening)):
            if value is not None:
                goal[column] = value
        begin = max(0.0, self.time - overlap)
        self._moves.append((begin, seconds, goal - self._goal))
        self._goal = goal
        self.time = begin + seconds

    def to_start(self, seconds: float, overlap: float = 0.0) -> None:
        """Move back to the start; arguments as those of `to`."""
        x, y, z, opening = self.start
        self.to(seconds, x, y, z, opening, overlap)

    def wait(self, seconds: float) -> None:
        """Rest for a time, s."""
        self.time += seconds

    def swerve(self, begin: float, seconds: float, offset: np.ndarray) -> None:
        """Leave the way by `offset` [3] (m) and come back to it, within `seconds`."""
        offset = np.append(offset, 0.0)
        self._moves.append((begin, seconds / 2, offset))
        self._moves.append((begin + seconds / 2, seconds / 2, -offset))

    def sample(self, period: float) -> np.ndarray:
        """Return the points [n, 4] after 1, 2, … periods, until all is at rest."""
        end = max([self.time] + [begin + seconds for begin, seconds, _ in self._moves])
        times = period * np.arange(1, int(np.ceil(end / period - 1e-9)) + 1)
        points = np.tile(self.start, (len(times), 1))
        for begin, seconds, way in self._moves:
            share = np.clip((times - begin) / seconds, 0.0, 1.0)
            points += (share**3 * (10 - 15 * share + 6 * share**2))[:, None] * way
        return points


class Reach:
    """
    One arm's joint positions for points of its tool, which points as it does at home.

    Points are in the world frame, from which the arm's base is not turned.
    """

    def __init__(self, embodiment: Embodiment, arm: Arm, base: Sequence[float]):
        self._kinematics = ArmKinematics(embodiment, arm)
        self._home = embodiment.home[[embodiment.joints.index(joint) for joint in arm.joints]]
        self._pose = self._kinematics.forward(self._home)
        self._base = np.asarray(base, float)

    @property
    def home(self) -> np.ndarray:
        """The tool's place at home, [3]."""
        return self._base + self._pose[:3, 3]

    def place(self, joints: np.ndarray) -> np.ndarray:
        """Return where the tool is, [3], at positions of the arm's joints."""
        return self._base + self._kinematics.forward(joints)[:3, 3]

    def joints(self, points: np.ndarray) -> np.ndarray:
        """
        Return joint positions [n, joints of the arm] for points [n, 3], beginning near home.

        :raises OutOfReach: a point cannot be reached, or not without a jump.
        """
        poses = np.tile(self._pose, (len(points), 1, 1))
        poses[:, :3, 3] = points - self._base
        return self._kinematics.follow(poses, self._home)
