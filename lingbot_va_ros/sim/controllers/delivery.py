"""The transport of messages to a controller, with delay and jitter, in virtual time."""

from collections import deque

import numpy as np

from lingbot_va_ros.motion.time import to_nanoseconds
from lingbot_va_ros.sim.controllers.messages import Trajectory


class Delivery:
    """
    Messages in transit; they arrive in the order in which they were sent.

    :param delay: seconds that every message takes.
    :param jitter: seconds; the longest additional delay of a message, drawn uniformly.
    :param seed: of the jitter.
    """

    def __init__(self, delay: float = 0.0, jitter: float = 0.0, seed: int = 0):
        self._delay, self._jitter = delay, jitter
        self._rng = np.random.default_rng(seed)
        self._under_way: deque[tuple[int, Trajectory]] = deque()

    def send(self, trajectory: Trajectory, now_ns: int) -> None:
        """Send a message."""
        took = self._delay
        if self._jitter:
            took += self._rng.uniform(0.0, self._jitter)
        arrives_ns = now_ns + to_nanoseconds(took)
        if self._under_way:
            arrives_ns = max(arrives_ns, self._under_way[-1][0])
        self._under_way.append((arrives_ns, trajectory))

    def arrived(self, until_ns: int) -> list[tuple[int, Trajectory]]:
        """Return messages that arrived until a time with their times of arrival, once each."""
        messages = []
        while self._under_way and self._under_way[0][0] <= until_ns:
            messages.append(self._under_way.popleft())
        return messages

    def clear(self) -> None:
        """Drop the messages in transit."""
        self._under_way.clear()
