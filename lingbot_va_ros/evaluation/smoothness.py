"""Smoothness at the seams between chunks: the largest step and acceleration of the commands."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONTROL_PERIOD = 0.02  # seconds; a step is the difference of two commands with this distance


@dataclass(frozen=True)
class Smoothness:
    """
    The largest values at some seams, over all joints.

    :param step: rad, the largest commanded motion of a joint within a control period.
    :param acceleration: rad/s², from the second difference of three commands, a period apart.
    """

    step: float = 0.0
    acceleration: float = 0.0

    def worst(self, other: 'Smoothness') -> 'Smoothness':
        """Return the larger value of each field."""
        return Smoothness(
            max(self.step, other.step), max(self.acceleration, other.acceleration))


def seams_of(
    first_due: Sequence[float], last_due: Sequence[float], margin: float,
) -> tuple[tuple[float, float], ...]:
    """
    Return the time span (s) of each seam between two chunks.

    It begins `margin` before the last action of a chunk and ends `margin` after the first action
    of the next one.

    :param first_due: due time of each chunk's first action, s.
    :param last_due: due time of its last action, s.
    """
    return tuple((end - margin, begin + margin) for end, begin in zip(last_due, first_due[1:]))


def measure_smoothness(
    times: np.ndarray, positions: np.ndarray, seams: Sequence[tuple[float, float]],
    period: float = CONTROL_PERIOD,
) -> Smoothness:
    """
    Return the largest step and acceleration of commands during some spans of time.

    Commands are interpolated linearly at every `period`, so that streams of different rates can be
    compared. Parts of a span outside the times of the commands are ignored.

    :param times: [n] seconds, increasing.
    :param positions: [n, J] rad, of the joints to measure.
    :param seams: start and end of each span, seconds.
    """
    worst = Smoothness()
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
        worst = worst.worst(Smoothness(
            float(np.abs(steps).max()), float(np.abs(bends).max(initial=0.0))))
    return worst
