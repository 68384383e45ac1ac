"""Merges partial joint states into the newest position of every joint."""

from collections.abc import Sequence
import threading

import numpy as np

from lingbot_va_ros.motion.time import NANOSECONDS


class JointStateBuffer:
    """
    The newest measured position of each joint, with its own time stamp.

    Arm and gripper may have different publishers. Unknown joints are ignored. The methods are
    thread-safe.

    :param joints: names, in the order of `positions`.
    """

    def __init__(self, joints: Sequence[str]):
        self.joints = tuple(joints)
        self._place = {name: index for index, name in enumerate(joints)}
        self._positions = np.full(len(self.joints), np.nan)
        self._stamps = np.zeros(len(self.joints), np.int64)
        self._foreign: str | None = None
        self._lock = threading.Lock()

    def update(self, names: Sequence[str], positions: Sequence[float], stamp_ns: int) -> None:
        """
        Take the finite positions of one joint state.

        :param positions: rad or m, one for each name.
        :param stamp_ns: ROS time of the measurement.
        """
        with self._lock:
            known = False
            for name, position in zip(names, positions):
                place = self._place.get(name)
                if place is None or not np.isfinite(position):
                    continue
                self._positions[place], self._stamps[place] = position, stamp_ns
                known = True
            if not known and self._foreign is None:
                self._foreign = ', '.join(names[:4])

    def clear(self) -> None:
        """Discard all positions, for instance after a jump of the clock."""
        with self._lock:
            self._positions[:] = np.nan

    def positions(self) -> np.ndarray | None:
        """Return the positions [J] in rad or m, or None until all are known."""
        with self._lock:
            return None if np.isnan(self._positions).any() else self._positions.copy()

    def fault(self, now_ns: int, max_age: float) -> str | None:
        """
        Return a line that names the joints with unknown or old positions, or None.

        A stamp more than `max_age` in the future is a fault too: the position would count as
        recent for that long, even if its publisher stopped.

        :param now_ns: ROS time.
        :param max_age: seconds.
        """
        with self._lock:
            unknown = np.isnan(self._positions)
            old = ~unknown & (now_ns - self._stamps > max_age * NANOSECONDS)
            ahead = ~unknown & (self._stamps - now_ns > max_age * NANOSECONDS)
            foreign = self._foreign
        if unknown.any():
            line = f'joint_states: no position of {self._names(unknown)}'
            return line + (f' (received: {foreign})' if unknown.all() and foreign else '')
        if old.any():
            return f'joint_states: older than {max_age:.2f} s: {self._names(old)}'
        if ahead.any():
            return (f"joint_states: stamps more than {max_age:.2f} s ahead of this node's clock: "
                    f'{self._names(ahead)}')
        return None

    def _names(self, chosen: np.ndarray) -> str:
        return ', '.join(name for name, picked in zip(self.joints, chosen) if picked)
