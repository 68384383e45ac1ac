"""The joint states that several threads share, filtered as the mux filters them."""

from collections.abc import Sequence
import threading

import numpy as np

from lingbot_va_ros.robot.joint_state_filter import JointStateFilter, JointStateReport
from lingbot_va_ros.specs.embodiment import JointLimits
from lingbot_va_ros.specs.joint_state_topics import DEFAULT_TOPICS, JointStateTopic


class JointStateBuffer:
    """
    A JointStateFilter for any thread.

    :param joints: names, in the order of positions.
    :param limits: of these joints.
    :param timeout: seconds of silence after which a joint must be measured anew.
    :param topics: some of which have a timeout of their own for their joints.
    """

    def __init__(
        self, joints: Sequence[str], limits: JointLimits, timeout: float,
        topics: Sequence[JointStateTopic] = DEFAULT_TOPICS,
    ) -> None:
        self._filter = JointStateFilter(joints, limits, timeout, topics)
        self._lock = threading.Lock()

    def update(
        self, names: Sequence[str], positions: Sequence[float], velocities: Sequence[float],
        stamp_ns: int, now_ns: int, now_s: float,
    ) -> None:
        """Take one joint state; see `JointStateFilter.update`."""
        with self._lock:
            self._filter.update(names, positions, velocities, stamp_ns, now_ns, now_s)

    def clear(self) -> None:
        """Discard all positions, for instance after a jump of the clock."""
        with self._lock:
            self._filter.forget()

    def positions(self) -> np.ndarray | None:
        """Return the positions [J] in rad or m, or None until all are known."""
        with self._lock:
            return self._filter.positions.copy() if self._filter.is_known else None

    def fault(self, now_s: float, max_age: float) -> str | None:
        """
        Return a line that names the joints with unknown or old positions, or None.

        :param now_s: on the clock of `update`.
        :returns: None where there is no fault.
        """
        with self._lock:
            return self._filter.lost(now_s, timeout=max_age) or None

    def report(self, now_s: float) -> JointStateReport:
        """Return the figures of the filter."""
        with self._lock:
            return self._filter.report(now_s)
