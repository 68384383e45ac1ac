"""The largest step and acceleration of commands at the seams between chunks."""

import numpy as np
import pytest

from lingbot_va_ros.evaluation.smoothness import measure_smoothness, seams_of, Smoothness

TIMES = np.arange(0.0, 4.0 + 1e-9, 0.01)


def test_a_steady_motion_has_its_speed_and_no_acceleration():
    figures = measure_smoothness(TIMES, 0.5 * TIMES[:, None], [(1.0, 2.0)])
    assert figures.step == pytest.approx(0.5 * 0.02)
    assert figures.acceleration == pytest.approx(0.0, abs=1e-6)


def test_an_even_acceleration_is_read_at_any_rate():
    for times in (TIMES, TIMES[::2]):
        figures = measure_smoothness(times, (1.5 * times ** 2)[:, None], [(0.0, 1.0)])
        assert figures.acceleration == pytest.approx(3.0, rel=0.02)


def test_a_jump_counts_within_a_seam_only():
    positions = np.zeros((len(TIMES), 2))
    positions[TIMES > 2.005, 1] = 0.3
    assert measure_smoothness(TIMES, positions, [(1.9, 2.1)]).step == pytest.approx(0.3)
    assert measure_smoothness(TIMES, positions, [(0.5, 1.0), (2.5, 3.0)]) == Smoothness(0.0, 0.0)


def test_times_without_commands_are_ignored():
    assert measure_smoothness(TIMES, TIMES[:, None], [(9.0, 10.0)]) == Smoothness()
    assert measure_smoothness(TIMES[:1], TIMES[:1, None], [(0.0, 1.0)]) == Smoothness()


def test_a_seam_reaches_from_the_last_action_of_a_chunk_to_the_first_of_the_next():
    assert seams_of([1.0, 3.0, 5.0], [2.0, 4.0, 6.0], 0.5) == ((1.5, 3.5), (3.5, 5.5))
    assert seams_of([1.0], [2.0], 0.5) == ()
