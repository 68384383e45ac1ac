"""Plans the path that wipes the plate: similar strokes from rim to rim, each with its tempo."""

import numpy as np

from lingbot_va_ros.sim.experts.path import ToolPath
from lingbot_va_ros.sim.scenes.wipe_plate import PLATE_TOP, SPONGE_REACH, STROKES, WipePlateScene

# Durations are multiplied by the tempo of the episode and by that of the stroke. The ranges are
# wide, so that elapsed time is a poor predictor of the number of strokes.
_EPISODE_TEMPO = (0.85, 1.50)
_STROKE_TEMPO = (0.85, 1.20)
_PAUSE = (0.0, 0.45)  # s; the range of an episode's longest pause
_FIRST_PAUSE = (0.0, 1.0)  # s
_LENGTH = (0.092, 0.120)  # m
_PRESS = 0.016  # m of the relaxed sponge below the surface of the plate
_HOVER = (0.022, 0.034)  # m of the sponge above the plate between strokes
_SWERVE = 0.015  # m
_SWERVES = 3  # per episode, at most
_CALM = 1.15  # the tempo of a stroke that is not drawn at random


def wipe(scene: WipePlateScene, path: ToolPath, rng: np.random.Generator, perturb: bool,
         strokes: int = STROKES) -> None:
    """Append `strokes` strokes and the return home to a path that begins at home."""
    tempo = rng.uniform(*_EPISODE_TEMPO)
    longest_pause = rng.uniform(*_PAUSE)
    path.wait(rng.uniform(*_FIRST_PAUSE))
    away = path.time
    for number in range(strokes):
        pace = tempo * rng.uniform(*_STROKE_TEMPO)
        length = rng.uniform(*_LENGTH)
        middle = scene.plate + rng.uniform(-0.006, 0.006, 2)
        hover = PLATE_TOP + SPONGE_REACH + rng.uniform(*_HOVER)
        first = scene.mirror * length / 2
        if number == 0:
            path.to(1.0 * tempo, middle[0], middle[1] + first, hover)
            begun = path.time
        else:
            path.to(0.55 * pace, middle[0], middle[1] + first, overlap=0.22 * pace)
        path.wait(rng.uniform(0.0, longest_pause))
        _press_and_wipe(path, pace, middle[1] - first, hover)
    ended = path.time
    path.to_start(1.0 * tempo, overlap=0.10 * tempo)
    if perturb:
        _add_deviations(path, rng, away, begun, ended)


def wipe_once(scene: WipePlateScene, path: ToolPath) -> None:
    """
    Append one stroke like the expert's to a path that begins anywhere, lifting the sponge first.

    It ends as the expert's strokes do, above the opposite rim.
    """
    length, hover = np.mean(_LENGTH), PLATE_TOP + SPONGE_REACH + np.mean(_HOVER)
    first = scene.mirror * length / 2
    if path.start[2] < hover:
        path.to(0.34 * _CALM, z=hover)
        path.to(0.55 * _CALM, scene.plate[0], scene.plate[1] + first, overlap=0.10 * _CALM)
    else:
        path.to(0.55 * _CALM, scene.plate[0], scene.plate[1] + first, hover)
    _press_and_wipe(path, _CALM, scene.plate[1] - first, hover)


def _press_and_wipe(path: ToolPath, pace: float, y: float, hover: float) -> None:
    """Append moves down to the plate, across to `y` and up to `hover`, blended into one motion."""
    path.to(0.36 * pace, z=PLATE_TOP + SPONGE_REACH - _PRESS, overlap=0.12 * pace)
    path.to(0.60 * pace, y=y, overlap=0.06 * pace)
    path.to(0.34 * pace, z=hover, overlap=0.06 * pace)


def _add_deviations(path: ToolPath, rng: np.random.Generator, away: float, begun: float,
                    ended: float) -> None:
    """Add deviations to the approach and the return, and sideways ones between the strokes."""
    for begin, seconds in ((away, begun - away), (ended, path.time - ended)):
        if rng.random() < 0.4:
            offset = rng.uniform(-_SWERVE, _SWERVE, 3)
            offset[2] = abs(offset[2])
            path.swerve(begin, seconds, offset)
    for _ in range(rng.integers(0, _SWERVES + 1)):
        # Orthogonal to the strokes, so that their number and length stay the same.
        offset = np.array([rng.uniform(-_SWERVE, _SWERVE), 0.0, 0.0])
        seconds = rng.uniform(0.5, 1.0)
        path.swerve(rng.uniform(begun, ended - seconds), seconds, offset)
