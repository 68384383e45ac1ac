"""The log of executed commands, read on the action grid."""

import numpy as np
import pytest

from lingbot_va_ros.policy.runtime.executed_log import ExecutedLog

NOW = 1_700_000_000_123_456_789
TICK = 10_000_000


def make_log(count=11, keep=10.0):
    log = ExecutedLog(keep)
    for tick in range(count):
        log.add(NOW + tick * TICK, np.array([tick, -tick]))
    return log


def test_a_command_is_read_at_its_own_time():
    np.testing.assert_allclose(make_log().at([NOW + 3 * TICK]), [[3, -3]])


def test_between_two_commands_it_is_interpolated():
    np.testing.assert_allclose(
        make_log().at([NOW + TICK // 4, NOW + 5 * TICK // 2]), [[0.25, -0.25], [2.5, -2.5]])


def test_outside_the_nearest_command_holds():
    np.testing.assert_allclose(
        make_log().at([NOW - 10 ** 9, NOW + 10 ** 9]), [[0, 0], [10, -10]])


def test_a_command_out_of_order_is_dropped():
    log = make_log()
    for stamp in (NOW, NOW + 10 * TICK):
        log.add(stamp, np.array([99.0, 99.0]))
    assert log.newest().tolist() == [10, -10]
    np.testing.assert_allclose(log.at([NOW]), [[0, 0]])


def test_a_late_command_from_before_a_jump_back_does_not_hide_the_new_ones():
    log = make_log()
    log.clear()  # the jump was seen
    log.add(NOW + 11 * TICK, np.array([99.0, 99.0]))
    for tick in range(3):
        log.add(tick * TICK, np.array([tick, tick]))
    assert log.newest_ns == 2 * TICK
    np.testing.assert_allclose(log.at([0, 2 * TICK]), [[0, 0], [2, 2]])


def test_commands_older_than_the_limit_are_dropped():
    log = make_log(keep=0.05)
    np.testing.assert_allclose(log.at([NOW]), [[5, -5]])


def test_the_newest_command_has_its_stamp():
    log = make_log()
    assert log.newest_ns == NOW + 10 * TICK and log.newest().tolist() == [10, -10]


def test_a_cleared_log_is_empty_and_takes_an_earlier_clock():
    log = make_log()
    log.clear()
    assert log.newest_ns is None and log.newest() is None
    log.add(5, np.array([7.0, 7.0]))
    np.testing.assert_allclose(log.at([0]), [[7, 7]])


def test_an_empty_log_cannot_be_read():
    with pytest.raises(ValueError, match='no executed command'):
        ExecutedLog(1.0).at([NOW])


def test_the_limit_counts_in_the_time_that_the_log_is_told():
    log = ExecutedLog(0.05, lambda stamp_ns: NOW + (stamp_ns - NOW) // 4)
    for tick in range(41):
        log.add(NOW + tick * TICK, np.array([tick, -tick]))
    np.testing.assert_allclose(log.at([NOW]), [[20, -20]])
