"""Detects that the arm has left home and has returned."""

import mujoco
import numpy as np

AWAY = 0.30  # rad: the largest distance of a joint from home exceeds this when the arm is away
BACK = 0.12  # rad: the largest distance of a joint from home when the arm is back
REST = 0.3  # s for which the arm must stay within BACK


class HomeDetector:
    """
    Monitors the six joints of one arm; home is their position at construction.

    `left` is whether the arm has been away, `at_home` whether it has been within `BACK` of home
    for `REST` seconds.

    :param side: 'left' or 'right'.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, side: str):
        self._joints = np.array(
            [model.joint(f'{side}_joint_{number}').qposadr[0] for number in range(1, 7)])
        self._home = data.qpos[self._joints].copy()
        self._since = data.time
        self.left = False
        self.at_home = True

    def update(self, data: mujoco.MjData) -> None:
        """Update with the joint positions in `data`."""
        off = np.abs(data.qpos[self._joints] - self._home).max()
        if off > BACK:
            self._since = data.time
        self.left |= bool(off > AWAY)
        self.at_home = data.time - self._since >= REST
