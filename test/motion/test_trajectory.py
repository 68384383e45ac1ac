"""Plans: sampled along their knots, at rest outside them, led to without a bend."""

import numpy as np
import pytest

from lingbot_va_ros.motion.plan import Plan, resting_at
from lingbot_va_ros.motion.trajectory import finite_differences

MS = 1_000_000


def cubic(t):
    return np.array([0.3 + 0.5 * t - 2 * t ** 2 + 4 * t ** 3, -t ** 3])


def slope(t):
    return np.array([0.5 - 4 * t + 12 * t ** 2, -3 * t ** 2])


TIMES = np.array([0, 100, 250]) * MS
PLAN = Plan(
    TIMES, np.array([cubic(t * 1e-9) for t in TIMES]), np.array([slope(t * 1e-9) for t in TIMES]))


@pytest.mark.parametrize('ms', [0, 30, 100, 180, 250])
def test_a_cubic_is_sampled_exactly(ms):
    q, v = PLAN.sample(ms * MS)
    np.testing.assert_allclose(q, cubic(ms * 1e-3), atol=1e-12)
    np.testing.assert_allclose(v, slope(ms * 1e-3), atol=1e-12)


def test_it_rests_after_the_end():
    q, v = PLAN.sample(300 * MS)
    np.testing.assert_array_equal(q, PLAN.positions[-1])
    assert not np.any(v)


def test_a_lead_from_a_state_on_the_plan_changes_nothing():
    later = Plan(PLAN.times_ns[1:], PLAN.positions[1:], PLAN.velocities[1:])
    led = later.led_to(40 * MS, *PLAN.sample(40 * MS))
    for ms in (40, 70, 150, 240):
        np.testing.assert_allclose(led.sample(ms * MS), PLAN.sample(ms * MS), atol=1e-12)


def test_a_plan_that_has_begun_needs_no_lead():
    assert PLAN.led_to(30 * MS, np.array([9.0, 9.0]), np.zeros(2)) is PLAN


def test_one_knot_is_a_place_to_rest():
    plan = resting_at(5, np.array([1.0]))
    assert plan.sample(0)[0] == plan.sample(9)[0] == 1.0 and plan.end_ns == 5


def test_finite_differences_are_central_and_end_in_rest():
    velocities = finite_differences(
        np.array([0.0, 0.1, 0.3]), np.array([[0.0], [0.2], [0.9]]))
    np.testing.assert_allclose(velocities, [[0.0], [3.0], [0.0]])
