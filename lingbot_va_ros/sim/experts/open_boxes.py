"""Plans the path that opens box A, closes it and opens box B, with rests at home between."""

import numpy as np

from lingbot_va_ros.sim.experts.path import ToolPath
from lingbot_va_ros.sim.scenes.open_boxes import HALF_KNOB, KNOB_TOP, OpenBoxesScene, TRAVEL

_EPISODE_TEMPO = (0.90, 1.20)
_TEMPO = (0.90, 1.15)  # of each of the three moves
# Rest at home before each move, from one distribution, so that it does not reveal the next move.
# The lower bound makes the recent images show only rest, so that the policy needs its memory.
_REST = (1.6, 2.2)  # s
_OPENING = (0.026, 0.030)  # m, the fingers around a knob
_DEPTH = 0.026  # m of the fingertips below the top of the knob
_ABOVE = (0.025, 0.040)  # m of the fingertips above the top of the knob while approaching
_PRESS = 0.004  # m beyond the stop, absorbed by the compliance of the gripper's servo
_SWERVE = np.array([0.025, 0.016, 0.015])  # m, in free motion
_SIDEWAYS = 0.007  # m, while pushing

# Box and action of each move.
TASK = (('a', 'open'), ('a', 'close'), ('b', 'open'))


def open_one_after_the_other(
        scene: OpenBoxesScene, path: ToolPath, rng: np.random.Generator, perturb: bool,
        order: tuple = TASK) -> None:
    """Append the moves of `order`, each with its return home, to a path that begins at home."""
    tempo = rng.uniform(*_EPISODE_TEMPO)
    for name, what in order:
        path.wait(rng.uniform(*_REST))
        _slide(scene, path, rng, perturb, tempo * rng.uniform(*_TEMPO), name, what == 'open')


def _slide(scene: OpenBoxesScene, path: ToolPath, rng: np.random.Generator, perturb: bool,
           pace: float, name: str, to_open: bool) -> None:
    """Put the open fingers around the knob, push the lid to its stop, go home."""
    home = path.start
    outwards = scene.outwards(name)
    x, y = scene.boxes[name]
    opening = rng.uniform(*_OPENING)
    above = KNOB_TOP + rng.uniform(*_ABOVE)
    begin, end = (0.0, TRAVEL) if to_open else (TRAVEL, 0.0)
    push = np.sign(end - begin) * (opening - HALF_KNOB[1] + _PRESS)
    away = path.time
    # The duration grows with the distance, so that the joints stay well within their limits.
    travel = pace * (0.56 + 1.3 * np.hypot(x - home[0], y + outwards * begin - home[1]))
    path.to(travel, x + rng.uniform(-0.004, 0.004), y + outwards * begin, above, opening)
    down = path.time
    path.to(0.42 * pace, z=KNOB_TOP - _DEPTH, overlap=0.16 * pace)
    path.to(0.64 * pace, y=y + outwards * (end + push), overlap=0.06 * pace)
    pushed = path.time
    path.to(0.42 * pace, y=y + outwards * end, z=above, overlap=0.04 * pace)
    up = path.time
    travel = pace * (0.56 + 1.3 * np.hypot(x - home[0], y + outwards * end - home[1]))
    path.to_start(travel, overlap=0.16 * pace)
    if not perturb:
        return
    for begun, ended in ((away, down), (up, path.time)):
        if rng.random() < 0.4:
            offset = rng.uniform(-_SWERVE, _SWERVE)
            offset[2] = abs(offset[2])
            path.swerve(begun, ended - begun, offset)
    if rng.random() < 0.3:
        offset = np.array([rng.uniform(-_SIDEWAYS, _SIDEWAYS), 0.0, 0.0])
        path.swerve(down, pushed - down, offset)
