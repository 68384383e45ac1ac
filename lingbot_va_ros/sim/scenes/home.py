"""Detects that the arm has left home, and that it is back."""

import mujoco
import numpy as np

AWAY = 0.30  # rad: the joint that is furthest from home is at least so far off
BACK = 0.12  # rad: no joint is further from home
REST = 0.3  # s that it must stay so


class HomeWatch:
    """
    Watches the six joints of one arm; home is their position at the start.

    `left`: the arm has been away. `at_home`: it has been within `BACK` of home for `REST` seconds.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, side: str):
        self._joints = np.array(
            [model.joint(f'{side}_joint_{number}').qposadr[0] for number in range(1, 7)])
        self._home = data.qpos[self._joints].copy()
        self._since = data.time
        self.left = False
        self.at_home = True

    def look(self, data: mujoco.MjData) -> None:
        """Update with the present joint positions."""
        off = np.abs(data.qpos[self._joints] - self._home).max()
        if off > BACK:
            self._since = data.time
        self.left |= bool(off > AWAY)
        self.at_home = data.time - self._since >= REST
