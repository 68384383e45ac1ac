"""The history of commands: each joint's command at the time of its measurement."""

import numpy as np
import pytest

from lingbot_va_ros.mux.command_history import CommandHistory

PERIOD = 10_000_000
START = 1_700_000_000_000_000_000


def filled(ticks, seconds=0.2):
    history = CommandHistory(2, PERIOD, seconds)
    history.restart(START, np.zeros(2))
    for tick in range(1, ticks):
        history.add(START + tick * PERIOD, np.array([0.01, -0.02]) * tick)
    return history


@pytest.mark.parametrize('ticks', [2, 30, 88, 89, 500])
def test_each_joint_has_its_own_time(ticks):
    last = ticks - 1
    now = START + last * PERIOD
    back = np.array([PERIOD // 4, 0])
    np.testing.assert_allclose(
        filled(ticks).at(now - back), [0.01 * (last - 0.25), -0.02 * last], atol=1e-12)


def test_it_reaches_back_over_its_seconds_and_no_further():
    history = filled(500)
    now = START + 499 * PERIOD
    ages = np.array([0.2, 0.2]) * 1e9
    np.testing.assert_allclose(history.at(now - ages.astype(int)), [4.79, -9.58])
    oldest = history.at(np.array([START, START]))
    assert 4.7 < oldest[0] < 4.79


def test_outside_its_times_the_nearest_command_counts():
    history = filled(5)
    np.testing.assert_allclose(history.at(np.full(2, START - 10 ** 9)), [0, 0])
    np.testing.assert_allclose(history.at(np.full(2, START + 10 ** 9)), [0.04, -0.08])


def test_after_a_restart_the_command_has_rested_where_it_begins():
    history = filled(30)
    again = START + 100 * PERIOD
    history.restart(again, np.array([1.0, 2.0]))
    history.add(again + PERIOD, np.array([1.1, 2.2]))
    np.testing.assert_allclose(
        history.at(np.array([again - 5 * PERIOD, again + PERIOD // 2])), [1.0, 2.1])


def test_an_empty_history_says_so():
    with pytest.raises(RuntimeError, match='empty'):
        CommandHistory(2, PERIOD, 0.2).at(np.zeros(2, dtype=np.int64))
