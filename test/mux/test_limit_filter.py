"""The limit filter: limits hold whatever is asked, and plans inside them are followed."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from lingbot_va_ros.mux.limit_filter import approach_speed, LimitFilter
from lingbot_va_ros.specs.embodiment import JointLimits

T = 0.01
LIMITS = JointLimits(
    lower=np.array([-1.0, 0.0, -2.5]), upper=np.array([1.5, 0.04, 2.5]),
    velocity=np.array([2.0, 0.2, 0.7]), acceleration=np.array([10.0, 1.0, 35.0]),
    jerk=np.array([100.0, 10.0, 300.0]))
GATE = LimitFilter(LIMITS, T)

anything = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True), st.floats(-3, 3), st.just(1.5), st.just(-1.0))
states = st.lists(anything, min_size=3, max_size=3).map(np.array)


def assert_tick_inside_limits(q, v, q_next, v_next):
    slack = 1e-9
    assert np.all(np.abs(v_next) <= LIMITS.velocity + slack)
    assert np.all(np.abs(v_next - v) <= LIMITS.acceleration * T + slack)
    np.testing.assert_allclose(q_next, q + (v + v_next) / 2 * T, atol=1e-12)
    # Extremes inside the tick, where the velocity passes 0.
    for u in np.linspace(0, 1, 6):
        inside = q + T * (v * u + (v_next - v) * u * u / 2)
        assert np.all(inside <= LIMITS.upper + slack)
        assert np.all(inside >= LIMITS.lower - slack)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(states, states, st.integers(1, 40)), min_size=1, max_size=12),
       st.lists(st.floats(0, 1), min_size=3, max_size=3).map(np.array))
def test_limits_hold_whatever_is_asked(goals, start):
    q = LIMITS.lower + start * (LIMITS.upper - LIMITS.lower)
    v = np.zeros(3)
    for q_goal, v_goal, ticks in goals:
        for _ in range(ticks):
            q_next, v_next = GATE.step(q, v, q_goal, v_goal)
            assert_tick_inside_limits(q, v, q_next, v_next)
            q, v = q_next, v_next
        _, tail, _ = GATE.braking_tail(q, v)
        assert np.all(tail <= LIMITS.upper + 1e-9) and np.all(tail >= LIMITS.lower - 1e-9)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3).map(np.array),
       st.lists(st.floats(-1, 1), min_size=3, max_size=3).map(np.array))
def test_any_still_goal_is_reached_without_overshoot(start, goal):
    middle, half = (LIMITS.upper + LIMITS.lower) / 2, (LIMITS.upper - LIMITS.lower) / 2
    q, v, goal = middle + half * start, np.zeros(3), middle + half * goal
    first = np.sign(goal - q)
    for _ in range(1000):
        q, v = GATE.step(q, v, goal, np.zeros(3))
        assert np.all((goal - q) * first >= -1e-9)
    np.testing.assert_allclose(q, goal, atol=1e-9)
    np.testing.assert_allclose(v, 0, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=60, max_size=60))
def test_a_motion_inside_the_limits_is_followed_exactly(accelerations):
    q, v = np.array([0.2, 0.02, 0.0]), np.zeros(3)
    plan = []
    for share in accelerations:
        v_next = v + 0.9 * share * LIMITS.acceleration * T
        v_next = np.clip(v_next, -0.1 * LIMITS.velocity, 0.1 * LIMITS.velocity)
        q, v = q + (v + v_next) / 2 * T, v_next
        plan.append((q, v))
    q, v = np.array([0.2, 0.02, 0.0]), np.zeros(3)
    for q_goal, v_goal in plan:
        q, v = GATE.step(q, v, q_goal, v_goal)
        np.testing.assert_allclose(q, q_goal, atol=1e-12)
        np.testing.assert_allclose(v, v_goal, atol=1e-9)


def test_a_smooth_motion_sampled_off_the_trapezoid_is_followed_closely():
    def desired(t):
        swing = np.array([0.5, 0.01, 0.5])
        return 0.02 + swing * np.sin(t), swing * np.cos(t)
    q, v = desired(0.0)
    for tick in range(1, 500):
        q, v = GATE.step(q, v, *desired(tick * T))
        np.testing.assert_allclose(q, desired(tick * T)[0], atol=1e-6)


def test_an_offset_is_gone_after_two_ticks():
    q, v = np.array([1e-4, 1e-5, -1e-4]) + [0, 0.02, 0], np.array([1e-3, 1e-4, 2e-3])
    for _ in range(2):
        q, v = GATE.step(q, v, np.array([0, 0.02, 0]), np.zeros(3))
    np.testing.assert_allclose(q, [0, 0.02, 0], atol=1e-12)
    np.testing.assert_allclose(v, 0, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(states, st.lists(st.floats(0.001, 0.3), min_size=3, max_size=3).map(np.array),
       st.sampled_from([-1, 1]))
def test_a_start_outside_the_limits_never_goes_further_out(goal, outside, side):
    q = LIMITS.upper + outside if side > 0 else LIMITS.lower - outside
    v = np.zeros(3)
    for _ in range(300):
        q_next, v_next = GATE.step(q, v, goal, np.zeros(3))
        out_before = np.maximum(q - LIMITS.upper, 0) + np.maximum(LIMITS.lower - q, 0)
        out_after = np.maximum(q_next - LIMITS.upper, 0) + np.maximum(LIMITS.lower - q_next, 0)
        assert np.all(out_after <= out_before + 1e-9)
        assert np.all(np.abs(v_next - v) <= LIMITS.acceleration * T + 1e-9)
        q, v = q_next, v_next


def test_a_start_outside_comes_back():
    q, v = LIMITS.upper + 0.05, np.zeros(3)
    for _ in range(300):
        q, v = GATE.step(q, v, LIMITS.upper + 1.0, np.zeros(3))
    np.testing.assert_allclose(q, LIMITS.upper, atol=1e-9)


def test_pushing_against_a_limit_rests_there_without_chatter():
    q, v = np.array([0.0, 0.02, 0.0]), np.zeros(3)
    speeds = []
    for _ in range(600):
        q, v = GATE.step(q, v, np.full(3, 9.0), np.full(3, 9.0))
        speeds.append(v)
    np.testing.assert_allclose(q, LIMITS.upper, atol=1e-9)
    assert np.all(np.array(speeds) >= -1e-9), 'it bounced off the limit'
    np.testing.assert_allclose(speeds[-50:], 0, atol=1e-9)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3).map(np.array))
def test_the_braking_tail_stops_inside_the_acceleration_limits(share):
    q, v = np.array([0.1, 0.02, 0.3]), share * LIMITS.velocity
    ticks, positions, velocities = GATE.braking_tail(q, v)
    q_before, v_before, tick_before = q, v, 0
    for tick, q_next, v_next in zip(ticks, positions, velocities):
        span = (tick - tick_before) * T
        assert span > 0
        assert np.all(np.abs(v_next - v_before) <= LIMITS.acceleration * span + 1e-7)
        np.testing.assert_allclose(q_next, q_before + (v_before + v_next) / 2 * span, atol=1e-9)
        q_before, v_before, tick_before = q_next, v_next, tick
    if np.any(v):
        assert np.all(velocities[-1] == 0.0)


def test_there_is_no_tail_at_rest():
    assert GATE.braking_tail(np.zeros(3), np.zeros(3))[0].size == 0


@pytest.mark.parametrize('ticks', [0, 1, 2, 7])
def test_approach_speed_is_exact_at_whole_ticks(ticks):
    a = 3.0
    assert approach_speed(a * T * T * ticks * (ticks + 1) / 2, a, T) == pytest.approx(
        ticks * a * T, abs=1e-12)
