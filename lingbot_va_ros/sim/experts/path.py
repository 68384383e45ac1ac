"""Tool paths of minimum-jerk moves, and their joint positions by inverse kinematics."""

from collections.abc import Sequence

import numpy as np

from lingbot_va_ros.robot.kinematics import ArmKinematics
from lingbot_va_ros.specs.embodiment import Arm, Embodiment


class ToolPath:
    """
    A sum of minimum-jerk moves (Flash and Hogan 1985) of a point [x, y, z, opening], in meters.

    Moves that overlap in time blend at the corners. The sum ends at the last goal, at rest.
    `time` is the start of the next move, in seconds.

    :param start: the point [4] where the path begins.
    """

    def __init__(self, start: np.ndarray):
        self.start = np.asarray(start, float)
        self._goal = self.start.copy()
        self._moves: list[tuple[float, float, np.ndarray]] = []
        self.time = 0.0

    def to(self, seconds: float, x: float | None = None, y: float | None = None,
           z: float | None = None, opening: float | None = None,
           overlap: float = 0.0) -> None:
        """Append a move to these coordinates (m), beginning `overlap` seconds before `time`."""
        goal = self._goal.copy()
        for column, value in enumerate((x, y, z, opening)):
            if value is not None:
                goal[column] = value
        begin = max(0.0, self.time - overlap)
        self._moves.append((begin, seconds, goal - self._goal))
        self._goal = goal
        self.time = begin + seconds

    def to_start(self, seconds: float, overlap: float = 0.0) -> None:
        """Append a move back to the start; arguments as those of `to`."""
        x, y, z, opening = self.start
        self.to(seconds, x, y, z, opening, overlap)

    def wait(self, seconds: float) -> None:
        """Append a rest of `seconds`."""
        self.time += seconds

    def swerve(self, begin: float, seconds: float, offset: np.ndarray) -> None:
        """Add a deviation by `offset` [3] (m) and back, which begins at `begin` (s)."""
        offset = np.append(offset, 0.0)
        self._moves.append((begin, seconds / 2, offset))
        self._moves.append((begin + seconds / 2, seconds / 2, -offset))

    def sample(self, period: float) -> np.ndarray:
        """Return the points [n, 4] after 1, 2, … periods (s), until all moves have ended."""
        end = max([self.time] + [begin + seconds for begin, seconds, _ in self._moves])
        times = period * np.arange(1, int(np.ceil(end / period - 1e-9)) + 1)
        points = np.tile(self.start, (len(times), 1))
        for begin, seconds, way in self._moves:
            share = np.clip((times - begin) / seconds, 0.0, 1.0)
            points += (share**3 * (10 - 15 * share + 6 * share**2))[:, None] * way
        return points


class Reach:
    """
    Inverse kinematics of one arm for points of its tool, in the tool's orientation at home.

    Points are in the world frame, in m; the arm's base is parallel to it.

    :param base: position [3] of the arm's base in the world frame.
    """

    def __init__(self, embodiment: Embodiment, arm: Arm, base: Sequence[float]):
        self._kinematics = ArmKinematics(embodiment, arm)
        self._home = embodiment.home[[embodiment.joints.index(joint) for joint in arm.joints]]
        self._pose = self._kinematics.forward(self._home)
        self._base = np.asarray(base, float)

    @property
    def home(self) -> np.ndarray:
        """The tool's position at home, [3] in m."""
        return self._base + self._pose[:3, 3]

    def place(self, joints: np.ndarray) -> np.ndarray:
        """Return the tool's position [3] in m at positions of the arm's joints."""
        return self._base + self._kinematics.forward(joints)[:3, 3]

    def joints(self, points: np.ndarray) -> np.ndarray:
        """
        Return joint positions [n, joints of the arm] for points [n, 3]; the first is near home.

        :raises OutOfReach: a point cannot be reached, or only with a jump of a joint.
        """
        poses = np.tile(self._pose, (len(points), 1, 1))
        poses[:, :3, 3] = points - self._base
        return self._kinematics.follow(poses, self._home)
