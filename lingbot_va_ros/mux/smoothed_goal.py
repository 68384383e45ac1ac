"""A joint goal that comes in messages: checked for jumps, smoothed, and led on between them."""

import math

import numpy as np

from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.mux.validation import Rejected
from lingbot_va_ros.specs.embodiment import JointLimits

# The motion is smoothed over this time, s: encoders are coarse, and hands tremble.
SMOOTHING = 0.06
# Motions smaller than this share of a joint's range are noise: they change no goal.
PLAY = 0.0005
# Between two messages the goal goes on at the smoothed velocity for no longer than this, s.
LONGEST_LEAD = 0.05


class SmoothedGoal:
    """
    Goals of joints [J], each with a stamp of its own.

    :param names: of the joints, for messages to people.
    :param max_jump: seconds; between two messages a goal moves no further than the joint does at
        its velocity limit in the time between them plus this.
    """

    def __init__(self, limits: JointLimits, names: tuple[str, ...], max_jump: float) -> None:
        self._limits = limits
        self._names = names
        self._max_jump = max_jump
        count = len(names)
        self.newest = np.zeros(count)  # of the newest message
        self.stamps = np.full(count, -1, dtype=np.int64)  # ns; -1: none yet
        self._q, self._v = np.zeros(count), np.zeros(count)  # smoothed
        # Smoothed and behind the play; and whether a joint moves, not only within its play.
        self._goal, self._is_moving = np.zeros(count), np.zeros(count, dtype=bool)

    def forget(self) -> None:
        """Count every joint as never received."""
        self.stamps[:] = -1

    def rest_at(self, q: np.ndarray, stamp_ns: int) -> None:
        """Set the goal to rest at positions [J], as if they had come in a message."""
        for array in (self.newest, self._q, self._goal):
            array[:] = q
        self._v[:], self._is_moving[:], self.stamps[:] = 0.0, False, stamp_ns

    def take(
        self, columns: np.ndarray, goal: np.ndarray, stamp_ns: int, is_fresh: np.ndarray) -> None:
        """
        Take the goals of some joints.

        :param columns: [m] of these joints.
        :param goal: positions [m].
        :param stamp_ns: newer than those of the joints.
        :param is_fresh: [m] bool; the goal before counts still.
        :raises Rejected: kind jump.
        """
        seconds = (stamp_ns - self.stamps[columns]) / NANOSECONDS
        self._check_jump(columns, goal, seconds, is_fresh)
        self._smooth(columns, goal, seconds, is_fresh)
        self.newest[columns] = goal
        self.stamps[columns] = stamp_ns

    def _check_jump(
        self, columns: np.ndarray, goal: np.ndarray, seconds: np.ndarray, is_fresh: np.ndarray,
    ) -> None:
        allowed = self._limits.velocity[columns] * (seconds + self._max_jump)
        excess = np.where(is_fresh, np.abs(goal - self.newest[columns]) - allowed, 0.0)
        if np.any(excess > 0):
            worst = int(np.argmax(excess / self._limits.velocity[columns]))
            before = self.newest[columns[worst]]
            raise Rejected(
                'jump', f"'{self._names[columns[worst]]}' would lead from "
                f'{before:.4g} to {goal[worst]:.4g}; {allowed[worst]:.3g} is '
                'possible in that time')

    def _smooth(
        self, columns: np.ndarray, goal: np.ndarray, seconds: np.ndarray, is_fresh: np.ndarray,
    ) -> None:
        # A g-h filter, critically damped (fading memory): no lag behind an even motion.
        fading = np.where(is_fresh, np.exp(-seconds / SMOOTHING), 0.0)
        expected = np.where(is_fresh, self._q[columns] + self._v[columns] * seconds, goal)
        miss = goal - expected
        self._q[columns] = expected + (1.0 - fading ** 2) * miss
        self._v[columns] = np.where(
            is_fresh, self._v[columns] + (1.0 - fading) ** 2 * miss / seconds, 0.0)
        # As a gear with play: at rest nothing moves, in motion it is that much behind.
        play = PLAY * (self._limits.upper - self._limits.lower)[columns]
        smooth = self._q[columns]
        self._goal[columns] = np.where(
            is_fresh, np.clip(self._goal[columns], smooth - play, smooth + play), goal)
        self._is_moving[columns] = np.abs(smooth - self._goal[columns]) >= 0.99 * play

    def at(self, time_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """Return positions and velocities [J] at a time: led on for LONGEST_LEAD at most."""
        lead = np.clip((time_ns - self.stamps) / NANOSECONDS, 0.0, LONGEST_LEAD)
        v = np.where(self._is_moving, self._v, 0.0)
        return self._goal + v * lead, v


def furthest(
    goal: np.ndarray, arm: np.ndarray, counts: np.ndarray, names: tuple[str, ...], most: float,
) -> str:
    """
    Return in one line which joint's goal is further than `most` from the arm, or an empty text.

    :param goal, arm: positions [J].
    :param counts: [J] bool; other joints may be anywhere.
    """
    away = np.where(counts, np.abs(goal - arm), 0.0)
    worst = int(np.argmax(away))
    if not away[worst] > most + 1e-6 or math.isinf(most):
        return ''
    return (f"'{names[worst]}' would lead {away[worst]:.3g} away from where the arm is; "
            f'teleop_max_distance is {most:g}')
