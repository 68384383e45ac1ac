"""How smoothly one chunk joins the next: the largest step and acceleration of the commands."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONTROL_PERIOD = 0.02  # seconds; a step is the way between two commands so far apart


@dataclass(frozen=True)
class SeamFigures:
    """
    The worst of some seams, over all joints.

    :param step: rad, the largest way that a joint is sent within a control period.
    :param acceleration: rad/s², from the second difference of three commands, a period apart.
    """

    step: float = 0.0
    acceleration: float = 0.0

    def worst(self, other: 'SeamFigures') -> 'SeamFigures':
        """Return the larger of each figure."""
        return SeamFigures(
            max(self.step, other.step), max(self.acceleration, other.acceleration))


def seams_of(
    first_due: Sequence[float], last_due: Sequence[float], margin: float,
) -> tuple[tuple[float, float], ...]:
    """
    Return the span of time of each seam.

    From `margin` before the last action of a chunk to `margin` after the first one of the next.

    :param first_due: s, when each chunk's first action is due; `last_due` its last.
    """
    return tuple((end - margin, begin + margin) for end, begin in zip(last_due, first_due[1:]))


def seam_figures(
    times: np.ndarray, positions: np.ndarray, seams: Sequence[tuple[float, float]],
    period: float = CONTROL_PERIOD,
) -> SeamFigures:
    """
    Return the largest step and acceleration of commands during some spans of time.

    Commands are read every `period`, linearly between two of them, so that streams of different
    rates compare. What does not lie within the commands' times is left out.

    :param times: [n] s, increasing; `positions` [n, J] rad, the joints that count.
    """
    worst = SeamFigures()
    if len(times) < 2 or not positions.shape[1]:
        return worst
    for begin, end in seams:
        begin, end = max(begin, times[0]), min(end, times[-1])
        grid = begin + period * np.arange(int((end - begin) / period + 1e-6) + 1)
        if end <= begin or len(grid) < 2:
            continue
        rows = np.stack([np.interp(grid, times, column) for column in positions.T], 1)
        steps = np.diff(rows, axis=0)
        bends = np.diff(steps, axis=0) / period ** 2
        worst = worst.worst(SeamFigures(
            float(np.abs(steps).max()), float(np.abs(bends).max(initial=0.0))))
    return worst
