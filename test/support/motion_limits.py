"""Checks that commanded motions keep the limits of an embodiment."""

import numpy as np


def assert_points_inside_limits(points, start, limits, period, jerk=None):
    """
    Check the points of consecutive ticks: (time, positions [J], velocities [J]).

    :param start: positions [J] at rest one period before the first point.
    :param period: seconds.
    :param jerk: limits [J]; default: those of stops.
    """
    jerk = limits.stopping_jerk if jerk is None else jerk
    q, v, gain = np.asarray(start), np.zeros(len(start)), np.zeros(len(start))
    for _, q_next, v_next in points:
        assert np.all(np.abs(v_next) <= limits.velocity + 1e-7)
        # The mean over the tick.
        gain_next = (v_next - v) / period
        assert np.all(np.abs(gain_next) <= limits.acceleration + 1e-5)
        assert np.all(np.abs(gain_next - gain) <= jerk * period + 1e-5)
        assert np.all(
            np.abs(q_next - q - (v + v_next) / 2 * period) <= jerk * period ** 3 / 8 + 1e-8)
        q, v, gain = q_next, v_next, gain_next
