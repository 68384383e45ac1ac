"""The reference watch: whether a controller is on the commanded motion, by what it says itself."""

from collections import deque
from collections.abc import Sequence

import numpy as np

from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.mux.command_history import CommandHistory

# A reference is that of the update's time, or of the next update's: so far ahead, ns.
LONGEST_LOOK_AHEAD_NS = 20_000_000
STEP_NS = 500_000
# Distance from the command from which a reference is off it, rad or m: what a braking tail of some
# 15 ms is short of the motion at 10 rad/s². Interpolation between the ticks is off by a tenth.
LEAST_DISTANCE = 0.001
# So many references are looked at; what they say counts for as long as they are so young, s.
REFERENCES = 100
MEMORY = 2.0
# References of a moving arm that are needed for a verdict, and the share of them that is off.
LEAST_COUNT, LEAST_SHARE = 10, 0.2


class ReferenceWatch:
    """
    Compares references of joint_trajectory_controllers with the commands of their times.

    A controller that gets its commands in time is on them. One that gets them too late runs into
    the braking tail of each, and is led back by the next: the joints jerk, and their measured
    positions hardly tell. One that another node commands is off them too.

    :param joints: names, in the order of commands.
    """

    def __init__(self, joints: Sequence[str]) -> None:
        self._column_of = {name: column for column, name in enumerate(joints)}
        # Not judged yet: stamp in ns, columns, positions.
        self._waiting: deque[tuple[int, np.ndarray, np.ndarray]] = deque(maxlen=REFERENCES)
        self._judged: deque[tuple[int, bool]] = deque(maxlen=REFERENCES)

    def restart(self) -> None:
        """Begin anew: references of before say nothing."""
        self._waiting.clear()
        self._judged.clear()

    def add(self, names: Sequence[str], positions: Sequence[float], stamp_ns: int) -> None:
        """
        Take the reference of one controller; joints of other robots are ignored.

        :param positions: rad or m, one for each name.
        :param stamp_ns: ROS time of the controller's update.
        """
        known = [index for index, name in enumerate(names) if name in self._column_of]
        if len(positions) != len(names) or not known:
            return
        q = np.array([positions[index] for index in known], np.float64)
        if np.isfinite(q).all():
            columns = np.array([self._column_of[names[index]] for index in known])
            self._waiting.append((stamp_ns, columns, q))

    def judge(self, now_ns: int, commands: CommandHistory) -> None:
        """
        Compare the references whose commands are all known by now.

        :param now_ns: time of the newest command.
        """
        while self._waiting and self._waiting[0][0] + LONGEST_LOOK_AHEAD_NS <= now_ns:
            stamp_ns, columns, q = self._waiting.popleft()
            times = np.arange(stamp_ns, stamp_ns + LONGEST_LOOK_AHEAD_NS + 1, STEP_NS)
            path = commands.path(times, columns)
            if np.ptp(path, axis=0).max() > LEAST_DISTANCE:  # the arm is commanded to move
                distance = np.abs(path - q).max(axis=1).min()
                self._judged.append((stamp_ns, bool(distance > LEAST_DISTANCE)))

    def share_off(self, now_ns: int) -> float:
        """Return which share of the last references was off the command; 0: too few to say."""
        last = [is_off for stamp_ns, is_off in self._judged
                if now_ns - stamp_ns <= MEMORY * NANOSECONDS]
        return sum(last) / len(last) if len(last) >= LEAST_COUNT else 0.0
