"""Joints that follow their commands with a time constant, without physics."""

import numpy as np


class FirstOrderJoints:
    """
    Joints whose speed is their distance from the command over a time constant.

    :param positions: at the begin, at rest, [J].
    :param time_constant: seconds; 0: the joints are where the command is.
    """

    def __init__(self, positions: np.ndarray, time_constant: float = 0.0):
        self.positions = np.array(positions, float)
        self.velocities = np.zeros_like(self.positions)
        self.blocked = False  # whether an obstacle keeps the joints where they are
        self._time_constant = time_constant

    def step(self, command: np.ndarray, seconds: float) -> None:
        """Follow a command [J] for a time."""
        share = 1.0 if not self._time_constant else -np.expm1(-seconds / self._time_constant)
        before = self.positions
        if not self.blocked:
            self.positions = before + share * (command - before)
        self.velocities = (self.positions - before) / seconds
