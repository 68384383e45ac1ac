"""The tracking delay: found from joint states of a moving arm, whatever else is wrong."""

import math

import numpy as np
import pytest

from lingbot_va_ros.mux.command_history import CommandHistory
from lingbot_va_ros.mux.tracking_delay import TrackingDelay

PERIOD = 10_000_000
ARM = np.array([True, True, False])
VELOCITY = np.array([2.5, 2.5, 0.15])


def swing(seconds):
    """Return positions [3] that begin at rest, with three speeds and a gripper."""
    angle = 2 * np.pi * 0.5 * max(seconds, 0.0)
    return np.array([0.3, -0.15, 0.01]) * (1 - np.cos(angle))


def watch(measured, seconds=3.0, commanded=swing, limit=0.08, state_period=PERIOD, begin=0.0):
    """Return a watch, and the estimates of each tick, of an arm measured at `measured(t)`."""
    commands = CommandHistory(3, PERIOD, 0.2)
    watch = TrackingDelay(VELOCITY, ARM, PERIOD, limit)
    first = round(begin * 1e9)
    commands.restart(10 ** 12 + first, commanded(begin))
    found = []
    for tick in range(1, round(seconds * 100)):
        now = first + tick * PERIOD
        commands.add(10 ** 12 + now, commanded(now * 1e-9))
        stamp = now - now % state_period
        watch.update(measured(stamp * 1e-9), np.full(3, 10 ** 12 + stamp), commands)
        found.append((watch.seconds, watch.is_beyond_limit))
    return watch, found


@pytest.mark.parametrize('delay', [0.0, 0.02, 0.05, 0.1, 0.15])
@pytest.mark.parametrize('state_period', [PERIOD, 33_000_000])
def test_a_delay_is_found_within_half_a_second_and_kept(delay, state_period):
    _, found = watch(lambda t: swing(t - delay), state_period=state_period)
    later = np.array([seconds for seconds, _ in found[50:]])
    assert np.all(np.abs(later - delay) < 0.01 + 0.15 * delay)


@pytest.mark.parametrize('lag', [0.03, 0.05])
def test_servos_that_lag_as_usual_are_no_reason_to_hold(lag):
    arm = np.zeros(3)

    def follow(t):
        nonlocal arm
        arm = arm + (swing(t) - arm) * -np.expm1(-PERIOD * 1e-9 / lag)
        return arm.copy()
    _, found = watch(follow, 6.0)
    assert found[-1][0] == pytest.approx(lag, abs=0.01)
    assert not any(beyond for _, beyond in found)


def test_beyond_the_limit_is_told_after_a_while():
    _, found = watch(lambda t: swing(t - 0.1))
    first = [beyond for _, beyond in found].index(True)
    assert 0.3 < first / 100 < 1.0 and all(beyond for _, beyond in found[first:])
    _, found = watch(lambda t: swing(t - 0.07))
    assert not any(beyond for _, beyond in found)


def test_noise_and_joints_that_sag_are_no_delay():
    rng = np.random.default_rng(1)
    watched, _ = watch(lambda t: swing(t) - [0.02, 0.01, 0.0] + rng.normal(0, 5e-4, 3))
    assert abs(watched.seconds) < 0.01


def test_a_joint_that_an_obstacle_holds_and_a_gripper_are_no_delay():
    """The following error and the standstill are watched by others."""
    watched, _ = watch(lambda t: swing(t) * [1.0, 0.0, 0.0])
    assert abs(watched.seconds) < 0.01


def test_an_arm_that_hardly_moves_has_no_estimate():
    watched, _ = watch(lambda t: swing(t - 0.1) / 50, commanded=lambda t: swing(t) / 50)
    assert math.isnan(watched.seconds)


def test_it_begins_anew_and_keeps_the_last_estimate_meanwhile():
    watched, found = watch(lambda t: swing(t - 0.1))
    assert found[-1][1]
    watched.restart()
    assert not watched.is_beyond_limit and watched.seconds == pytest.approx(0.1, abs=0.01)
