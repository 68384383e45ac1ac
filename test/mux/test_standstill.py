"""The standstill watch: an arm that stands while its command moves is noticed, nothing else."""

import numpy as np
import pytest

from lingbot_va_ros.mux.standstill import LONGEST, StandstillWatch

ARM = np.array([True, True, False])


def run(measured, commanded, seconds=2.0):
    """Return when (s) a watch of motions by time says that the arm stands, or None."""
    watch = StandstillWatch(ARM)
    for tick in range(int(seconds * 100)):
        now = tick / 100
        if watch.stands(np.asarray(measured(now)), np.asarray(commanded(now)), now):
            return now
    return None


def at(*places):
    return lambda _now: places


def test_a_standing_arm_is_noticed_in_time():
    found = run(at(0.0, 0.0, 0.0), lambda now: (0.5 * now, 0.0, 0.0))
    assert found == pytest.approx(LONGEST + 0.02, abs=0.021)


@pytest.mark.parametrize('lag', [0.0, 0.05, 0.2])
def test_an_arm_that_follows_late_is_not(lag):
    def swing(now):
        return (0.3 * np.sin(3 * max(now - 0.3, 0.0)), 0.0, 0.0)
    assert run(lambda now: swing(now - lag), swing, 6.0) is None


def test_one_joint_that_moves_is_enough():
    def command(now):
        return (0.5 * now, 0.5 * now, 0.0)
    assert run(lambda now: (0.0, 0.5 * now, 0.0), command) is None


def test_a_gripper_may_stand_and_rest_is_no_motion():
    assert run(at(0.0, 0.0, 0.0), lambda now: (0.0, 0.0, 0.5 * now)) is None
    assert run(at(0.0, 0.0, 0.0), at(0.009, 0.0, 0.0)) is None


def test_a_slow_motion_is_judged_by_where_it_has_led():
    def creep(now):
        return (0.004 * now, 0.0, 0.0)
    assert run(creep, creep, 20.0) is None
    assert run(at(0.0, 0.0, 0.0), creep, 20.0) == pytest.approx(2.5 + LONGEST, abs=0.05)


def test_it_begins_anew():
    watch = StandstillWatch(ARM)
    for tick in range(20):
        watch.stands(np.zeros(3), np.array([0.05 * tick, 0.0, 0.0]), tick / 100)
    watch.reset()
    assert not watch.stands(np.zeros(3), np.array([1.0, 0.0, 0.0]), 100.0)
