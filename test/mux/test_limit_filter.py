"""The limit filter: limits hold whatever is asked, and motions inside them are followed."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from lingbot_va_ros.mux.curve import end_state
from lingbot_va_ros.mux.goal import even_goal, Goal
from lingbot_va_ros.mux.limit_filter import LimitFilter
from lingbot_va_ros.specs.embodiment import JointLimits

T = 0.01
LIMITS = JointLimits(
    lower=np.array([-1.0, 0.0, -2.5]), upper=np.array([1.5, 0.04, 2.5]),
    velocity=np.array([2.0, 0.2, 0.7]), acceleration=np.array([10.0, 1.0, 35.0]),
    jerk=np.array([200.0, 20.0, 700.0]), stop_jerk=np.array([2000.0, 50.0, 7000.0]))
PLACES = T * np.linspace(0, 1, 6)
MIDDLE, HALF = (LIMITS.upper + LIMITS.lower) / 2, (LIMITS.upper - LIMITS.lower) / 2

anything = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True), st.floats(-3, 3), st.just(1.5), st.just(-1.0))
states = st.lists(anything, min_size=3, max_size=3).map(np.array)
shares = st.lists(st.floats(-1, 1), min_size=3, max_size=3).map(np.array)


class Motion:
    """A state that a limit filter leads on, and checks of every tick."""

    def __init__(self, q, v=None, a=None, limits=LIMITS):
        self.q = np.array(q, float)
        self.v = np.zeros(3) if v is None else np.array(v, float)
        self.a = np.zeros(3) if a is None else np.array(a, float)
        self.filter = LimitFilter(limits, T)

    def step(self, goal, share=1.0, jerk=LIMITS.stop_jerk):
        curve = self.filter.step(self.q, self.v, self.a, goal, share)
        q, v, a = curve.at(PLACES)
        for part, before in zip((q, v, a), (self.q, self.v, self.a)):
            np.testing.assert_allclose(part[0], before, atol=1e-3)
        assert np.all(np.abs(v) <= LIMITS.velocity * (1 + 1e-3))
        assert np.all(np.abs(a) <= LIMITS.acceleration * (1 + 1e-6) + 1e-6)
        assert np.all(np.abs(np.diff(a, axis=0)) <= jerk * T / 5 * (1 + 1e-6) + 2e-3)
        self.positions = q
        self.q, self.v, self.a = end_state(curve, T)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(states, states, st.integers(1, 30)), min_size=1, max_size=8),
       st.lists(st.floats(0, 1), min_size=3, max_size=3).map(np.array))
def test_limits_hold_whatever_is_asked(goals, start):
    motion = Motion(LIMITS.lower + start * (LIMITS.upper - LIMITS.lower))
    for q_goal, v_goal, ticks in goals:
        for _ in range(ticks):
            motion.step(even_goal(q_goal, v_goal))
            assert np.all(motion.positions <= LIMITS.upper + 1e-6)
            assert np.all(motion.positions >= LIMITS.lower - 1e-6)
        for stop in (motion.filter.stop, motion.filter.tail):
            tail = stop(motion.q, motion.v, motion.a)
            assert np.all(tail.upper <= LIMITS.upper + 1e-6)
            assert np.all(tail.lower >= LIMITS.lower - 1e-6)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(shares, shares, st.integers(1, 30)), min_size=1, max_size=6), shares)
def test_far_from_the_position_limits_no_motion_is_jerkier_than_a_motion_may_be(goals, start):
    wide = JointLimits(
        np.full(3, -50.0), np.full(3, 50.0), LIMITS.velocity, LIMITS.acceleration, LIMITS.jerk,
        stop_jerk=LIMITS.stop_jerk)
    motion = Motion(start, limits=wide)
    for q_goal, v_goal, ticks in goals:
        for _ in range(ticks):
            motion.step(even_goal(q_goal, 2 * v_goal), jerk=LIMITS.jerk)


@settings(max_examples=15, deadline=None)
@given(shares, shares, st.floats(0.4, 1.0))
def test_any_still_goal_is_reached_without_overshoot_at_a_share_of_the_speed(start, goal, share):
    motion, goal = Motion(MIDDLE + HALF * start), MIDDLE + HALF * goal
    first = np.sign(goal - motion.q)
    for _ in range(1000):
        motion.step(even_goal(goal), share)
        assert np.all((goal - motion.positions) * first >= -1e-6)
        assert np.all(np.abs(motion.v) <= share * LIMITS.velocity * (1 + 1e-3))
    np.testing.assert_allclose(motion.q, goal, atol=1e-6)
    np.testing.assert_allclose(motion.v, 0, atol=1e-5)


def test_a_motion_inside_the_limits_is_caught_and_then_followed_exactly():
    swing, rate = np.array([0.4, 0.01, 0.2]), 1.5

    def goal(t):
        sine, cosine = swing * np.sin(rate * t), swing * np.cos(rate * t)
        return Goal(MIDDLE + sine, rate * cosine, -rate ** 2 * sine, -rate ** 3 * cosine)
    motion = Motion(MIDDLE + [-0.3, 0.005, 0.1])
    errors = []
    for tick in range(1, 300):
        motion.step(goal(tick * T), jerk=LIMITS.jerk)
        errors.append(np.abs(motion.q - goal(tick * T).q).max())
    assert max(errors[150:]) < 1e-9


@settings(max_examples=20, deadline=None)
@given(states, st.lists(st.floats(0.001, 0.3), min_size=3, max_size=3).map(np.array),
       st.sampled_from([-1, 1]))
def test_a_start_outside_the_limits_never_goes_further_out(goal, outside, side):
    motion = Motion(LIMITS.upper + outside if side > 0 else LIMITS.lower - outside)

    def out():
        return np.maximum(motion.q - LIMITS.upper, 0) + np.maximum(LIMITS.lower - motion.q, 0)
    for _ in range(200):
        before = out()
        motion.step(even_goal(goal))
        assert np.all(out() <= before + 1e-6)


def test_a_start_outside_comes_back():
    motion = Motion(LIMITS.upper + 0.05)
    for _ in range(300):
        motion.step(even_goal(LIMITS.upper + 1.0))
    np.testing.assert_allclose(motion.q, LIMITS.upper, atol=1e-6)


def test_pushing_against_a_limit_rests_there_without_chatter():
    motion = Motion([0.0, 0.02, 0.0])
    speeds = []
    for _ in range(600):
        motion.step(even_goal(np.full(3, 9.0), np.full(3, 9.0)))
        speeds.append(motion.v)
    np.testing.assert_allclose(motion.q, LIMITS.upper, atol=1e-6)
    assert np.all(np.array(speeds) >= -1e-6), 'it bounced off the limit'
    np.testing.assert_allclose(speeds[-50:], 0, atol=1e-6)


def test_behind_a_wall_nothing_winds_up():
    motion = Motion([0.0, 0.02, 0.0], limits=JointLimits(
        LIMITS.lower, np.array([0.3, 0.04, 2.5]), LIMITS.velocity, LIMITS.acceleration,
        LIMITS.jerk, stop_jerk=LIMITS.stop_jerk))
    for _ in range(200):
        motion.step(even_goal(np.array([1.0, 0.02, 0.0])))
        assert np.all(motion.positions[:, 0] <= 0.3 + 1e-6)
    for _ in range(100):
        motion.step(even_goal(np.array([0.0, 0.02, 0.0])))
        assert motion.v[0] <= 0.01
    assert abs(motion.q[0]) < 1e-3


@pytest.mark.parametrize('place', range(4))
@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_a_goal_that_is_no_number_stops_its_joint_alone(place, value):
    motion = Motion([0.0, 0.02, 0.0], v=[1.0, 0.0, 0.1])
    goal = even_goal(np.array([0.5, 0.02, 0.5]), np.array([0.0, 0.0, 0.1]))
    goal = goal._replace(**{goal._fields[place]: np.array([value, 0.02, 0.5])
                            if place == 0 else np.array([value, 0.0, 0.0])})
    for _ in range(60):
        motion.step(goal)
    assert motion.v[0] == 0.0 and 0.05 < motion.q[0] < 0.15
    assert motion.q[2] == pytest.approx(0.5, abs=0.2) and motion.q[2] > 0.03


@pytest.mark.parametrize('beyond', [0.0, 5e-10, 1e-8])
def test_rounding_does_not_add_up_at_a_limit(beyond):
    """Goals at the limit, and motions towards it, for many ticks: it stays where it was."""
    rng = np.random.default_rng(1)
    filter_ = LimitFilter(LIMITS, T)
    q, v, a = LIMITS.upper + beyond, np.zeros(3), np.zeros(3)
    furthest = 0.0
    for _ in range(300):
        goal = LIMITS.upper - rng.uniform(0, 1e-3, 3) * (rng.random(3) < 0.5)
        motion = filter_.step(q, v, a, even_goal(goal, rng.uniform(0, 0.5, 3) * LIMITS.velocity))
        q, v, a = end_state(motion, T)
        furthest = max(furthest, float(np.max(filter_.stop(q, v, a).upper - LIMITS.upper)))
    assert furthest <= max(beyond, 1e-9) + 1e-12
