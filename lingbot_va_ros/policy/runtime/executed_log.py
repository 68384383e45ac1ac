"""The joint commands that the robot was sent, by time: the action half of the memory."""

from collections import deque
from collections.abc import Callable, Sequence
import threading

import numpy as np

from lingbot_va_ros.motion.time import NANOSECONDS

# A stamp this much behind the newest one was not delayed: the clock went back.
JUMP_NS = 1_000_000_000
# Commands that are kept at most: at a small speed scale, seconds of plan time are many.
MOST_COMMANDS = 100_000


class ExecutedLog:
    """
    Executed joint commands, to be read on the action grid.

    :param keep_seconds: how far back it reaches, of plan time.
    :param to_plan: returns the plan time of a stamp; by default both are the same.
    """

    def __init__(
        self, keep_seconds: float, to_plan: Callable[[int], int] = lambda stamp_ns: stamp_ns):
        self._to_plan = to_plan
        self._keep_ns = round(keep_seconds * NANOSECONDS)
        self._entries: deque = deque(maxlen=MOST_COMMANDS)
        self._lock = threading.Lock()

    def add(self, stamp_ns: int, positions: np.ndarray) -> None:
        """
        Keep one command, positions [J] due at `stamp_ns`; out of order ones are dropped.

        After a jump of the clock the publisher may notice it later than this process, and send a
        command of the time before. The first command of the new time then begins the log anew.
        """
        with self._lock:
            if self._entries and stamp_ns <= self._entries[-1][0]:
                if self._entries[-1][0] - stamp_ns < JUMP_NS:
                    return
                self._entries.clear()
            self._entries.append((stamp_ns, np.asarray(positions, np.float64)))
            oldest_ns = self._to_plan(stamp_ns) - self._keep_ns
            while self._to_plan(self._entries[0][0]) < oldest_ns:
                self._entries.popleft()

    def clear(self) -> None:
        """Forget all commands (a clock that jumped)."""
        with self._lock:
            self._entries.clear()

    @property
    def newest_ns(self) -> int | None:
        """The newest stamp, or None."""
        with self._lock:
            return self._entries[-1][0] if self._entries else None

    def newest(self) -> np.ndarray | None:
        """Return the last command [J], or None."""
        with self._lock:
            return self._entries[-1][1] if self._entries else None

    def after(self, stamp_ns: int) -> list[tuple[int, np.ndarray]]:
        """Return the commands later than a stamp, (stamp, positions [J]), oldest first."""
        later = []
        with self._lock:
            for entry in reversed(self._entries):
                if entry[0] <= stamp_ns:
                    break
                later.append(entry)
        return later[::-1]

    def at(self, times_ns: Sequence[int]) -> np.ndarray:
        """
        Return the commands at some times, [n, J] float64.

        Between two commands it is interpolated linearly; outside, the nearest one holds, as the
        arm does.

        :raises ValueError: nothing was executed yet.
        """
        entries: list = []
        with self._lock:
            if not self._entries:
                raise ValueError('no executed command to read')
            for entry in reversed(self._entries):
                if entry[0] >= max(times_ns):
                    entries.clear()  # the one after the last time is enough
                entries.append(entry)
                if entry[0] <= min(times_ns):
                    break
        entries.reverse()
        origin = entries[0][0]
        stamps = np.array([stamp - origin for stamp, _ in entries], np.float64)
        positions = np.stack([row for _, row in entries])
        wanted = np.array([time - origin for time in times_ns], np.float64)
        return np.stack(
            [np.interp(wanted, stamps, column) for column in positions.T], -1)
