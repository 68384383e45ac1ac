"""Ramps: limits of velocity, acceleration and jerk hold, goals are caught, stops stop."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from lingbot_va_ros.mux.limit_filter import LimitFilter
from lingbot_va_ros.mux.ramp import CAUGHT_POSITION, Ramp
from lingbot_va_ros.specs.embodiment import JointLimits

T = 0.01
LIMITS = JointLimits(
    lower=np.array([-2.0, 0.0, -2.5]), upper=np.array([2.0, 0.04, 2.5]),
    velocity=np.array([2.0, 0.2, 0.7]), acceleration=np.array([10.0, 1.0, 35.0]),
    jerk=np.array([100.0, 20.0, 500.0]))
ZERO = np.zeros(3)
shares = st.lists(st.floats(-1, 1), min_size=3, max_size=3).map(np.array)
MIDDLE, HALF = (LIMITS.upper + LIMITS.lower) / 2, (LIMITS.upper - LIMITS.lower) / 2


class Record:
    """A motion, and whether it keeps the limits from tick to tick."""

    def __init__(self, q, share=1.0):
        self.q, self.v, self.a = np.array(q, float), ZERO, ZERO
        self.ramp = Ramp(LIMITS, T)
        self.ramp.share = share
        self.ramp.begin(ZERO)
        self.fastest = ZERO

    def step(self, q_goal, v_goal=ZERO, a_goal=ZERO):
        q, v = self.ramp.step(self.q, self.v, q_goal, v_goal, a_goal)
        a = (v - self.v) / T
        assert np.all(np.abs(v) <= LIMITS.velocity * (1 + 1e-6))
        assert np.all(np.abs(a) <= LIMITS.acceleration * (1 + 1e-6))
        assert np.all(np.abs(a - self.a) <= LIMITS.jerk * T * (1 + 1e-6))
        np.testing.assert_allclose(q, self.q + (self.v + v) / 2 * T, atol=1e-12)
        self.q, self.v, self.a = q, v, a
        self.fastest = np.maximum(self.fastest, np.abs(v))


@settings(max_examples=30, deadline=None)
@given(shares, st.lists(st.tuples(shares, shares, st.integers(1, 40)), min_size=1, max_size=6))
def test_limits_of_velocity_acceleration_and_jerk_hold_for_any_goals(start, goals):
    record = Record(MIDDLE + HALF * start)
    for position, speed, ticks in goals:
        for _ in range(ticks):
            record.step(MIDDLE + HALF * position, 3 * speed * LIMITS.velocity)


@settings(max_examples=10, deadline=None)
@given(shares, shares, st.floats(0.4, 1.0))
def test_a_goal_at_rest_is_reached_without_overshoot_at_a_share_of_the_speed(start, goal, share):
    record = Record(MIDDLE + HALF * start, share)
    goal = MIDDLE + HALF * goal
    way = np.sign(goal - record.q)
    for _ in range(4000):
        record.step(goal)
        if record.ramp.caught:
            break
        assert np.all((goal - record.q) * way >= -CAUGHT_POSITION)
    assert record.ramp.caught
    assert np.all(record.fastest <= share * LIMITS.velocity + 1e-9)


def test_a_goal_that_moves_evenly_is_caught_and_kept():
    record = Record([0.0, 0.02, 0.0])
    for tick in range(1, 300):
        record.step(np.array([-0.5, 0.0, 0.3]) + tick * T * np.array([0.5, 0.01, -0.3]),
                    np.array([0.5, 0.01, -0.3]))
    assert record.ramp.caught
    np.testing.assert_allclose(record.v, [0.5, 0.01, -0.3], atol=1e-3)


def test_a_goal_that_swings_is_caught():
    def goal(t):
        swing = np.array([0.5, 0.01, 0.2])
        sine, cosine = np.sin(2 * t), np.cos(2 * t)
        return 0.02 + swing * sine, 2 * swing * cosine, -4 * swing * sine
    record = Record([-0.6, 0.04, 0.5])
    caught = []
    for tick in range(1, 600):
        record.step(*goal(tick * T))
        caught.append(record.ramp.caught)
    assert np.argmax(caught) < 200 and all(caught[300:])


def test_it_goes_on_from_where_the_gate_has_led():
    """A wall at 0.3: the ramp does not wind up behind it."""
    record = Record([0.0, 0.02, 0.0])
    limit_filter = LimitFilter(
        JointLimits(LIMITS.lower, np.array([0.3, 0.04, 2.5]), LIMITS.velocity,
                    LIMITS.acceleration, LIMITS.jerk), T)
    q, v = record.q, record.v
    for _ in range(200):
        q, v = limit_filter.step(q, v, *record.ramp.step(q, v, np.array([1.0, 0.02, 0.0]), ZERO))
        assert q[0] <= 0.3 + 1e-9
    for _ in range(100):
        q, v = limit_filter.step(q, v, *record.ramp.step(q, v, np.array([0.0, 0.02, 0.0]), ZERO))
        assert v[0] <= 0.01
    assert abs(q[0]) < 1e-3


@settings(max_examples=60, deadline=None)
@given(shares, shares)
def test_a_stop_keeps_the_jerk_limit_and_ends_in_exactly_zero(speed, acceleration):
    v, a = 0.8 * speed * LIMITS.velocity, 0.5 * acceleration * LIMITS.acceleration
    ramp = Ramp(LIMITS, T)
    positions, velocities = ramp.stop(MIDDLE, v, a)
    assert np.all(velocities[-1] == 0.0)
    rows = np.vstack((v, velocities))
    gains = np.vstack((a, np.diff(rows, axis=0) / T))
    assert np.all(np.abs(gains) <= LIMITS.acceleration * (1 + 1e-6))
    assert np.all(np.abs(np.diff(gains, axis=0)) <= LIMITS.jerk * T * (1 + 1e-6) + 1e-6)
    np.testing.assert_allclose(
        positions, MIDDLE + np.cumsum((rows[:-1] + rows[1:]) / 2 * T, axis=0), atol=1e-12)


@pytest.mark.parametrize('v', [0.0, 1e-12])
def test_a_stop_at_rest_is_one_tick(v):
    positions, velocities = Ramp(LIMITS, T).stop(MIDDLE, np.full(3, v), ZERO)
    assert len(positions) == 1 and np.all(velocities == 0)
    np.testing.assert_allclose(positions[0], MIDDLE, atol=1e-9)
