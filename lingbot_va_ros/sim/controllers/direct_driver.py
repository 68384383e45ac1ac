"""A driver that takes positions or velocities in place of trajectories, and nothing brakes."""

from collections import deque

import numpy as np

from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.sim.controllers.control_loop import Measure

# What such a driver takes, and the topic of its commands.
INTERFACES = {
    'forward_position': 'forward_position_controller/commands',
    'forward_velocity': 'forward_velocity_controller/commands',
    'joint_state': 'joint_commands',
}


class DirectDriver:
    """
    Holds the last position of each joint, or goes on at its last velocity; as a `ControlLoop`.

    :param lower, upper: positions [J] that no command leaves.
    :param takes_velocities: the commands are velocities.
    :param timeout: seconds without a command after which velocities are 0; 0: never.
    """

    def __init__(
        self, lower: np.ndarray, upper: np.ndarray, takes_velocities: bool, timeout: float = 0.0,
    ) -> None:
        self.active = False
        self.command = np.zeros(len(lower))
        self._lower, self._upper = lower, upper
        self._takes_velocities = takes_velocities
        self._timeout_ns = timeout * NANOSECONDS
        self._velocity = np.zeros(len(lower))
        self._time_ns = self._commanded_ns = 0
        self._sent: deque[tuple[int, np.ndarray]] = deque()

    def begin(
        self, time_ns: int, positions: np.ndarray, velocities: np.ndarray | None = None) -> None:
        """Begin at measured positions [J]; commands on their way are lost."""
        self._time_ns = time_ns
        self.stop(positions)
        self.active = True

    def stop(self, positions: np.ndarray) -> None:
        """Hold positions [J] and take no commands."""
        self.active = False
        self.command = np.array(positions, float)
        self._velocity[:] = 0.0
        self._sent.clear()

    def send(self, values: np.ndarray, time_ns: int) -> None:
        """
        Take a command at a time, of the joints that are not nan.

        :param values: [J] positions or velocities.
        """
        if self.active:
            self._sent.append((time_ns, values))

    def advance(self, time_ns: int, _measure: Measure) -> np.ndarray:
        """Return the commanded positions [J] at a time."""
        while self._sent and self._sent[0][0] <= time_ns:
            sent_ns, values = self._sent.popleft()
            self._move(max(sent_ns, self._time_ns))
            target = self._velocity if self._takes_velocities else self.command
            target[:] = np.where(np.isnan(values), target, values)
            self._commanded_ns = self._time_ns
            self._clip()
        self._move(time_ns)
        return self.command

    def _move(self, time_ns: int) -> None:
        if self._timeout_ns and time_ns - self._commanded_ns > self._timeout_ns:
            self._velocity[:] = 0.0
        self.command += self._velocity * (time_ns - self._time_ns) / NANOSECONDS
        self._clip()
        self._time_ns = time_ns

    def _clip(self) -> None:
        np.clip(self.command, self._lower, self._upper, out=self.command)
