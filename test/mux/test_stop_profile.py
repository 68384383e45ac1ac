"""Stops: limits of acceleration and jerk hold, and the joints end at rest."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from lingbot_va_ros.mux.stop_profile import fastest_stop, straight_stop

ACCELERATION = np.array([10.0, 1.0, 35.0])
JERK = np.array([100.0, 20.0, 5000.0])
Q = np.array([0.1, -0.2, 0.3])
KINDS = pytest.mark.parametrize('kind', [fastest_stop, straight_stop])
shares = st.lists(
    st.one_of(st.just(0.0), st.floats(-1, 1)), min_size=3, max_size=3).map(np.array)


def stop_from(kind, speed, gain):
    return kind(Q, 2.0 * speed, gain * ACCELERATION, ACCELERATION, JERK)


@KINDS
@settings(max_examples=200, deadline=None)
@given(speed=shares, gain=shares)
def test_a_stop_keeps_the_limits_and_ends_in_exactly_zero(kind, speed, gain):
    stop = stop_from(kind, speed, gain)
    times = np.linspace(0.0, stop.end + 0.01, 400)
    step = times[1]
    q, v, a = stop.at(times)
    np.testing.assert_allclose(q[0], Q)
    np.testing.assert_allclose(v[0], np.where(stop.end > 0, 2.0 * speed, 0.0), atol=1e-9)
    assert np.all(v[-1] == 0.0) and np.all(a[-1] == 0.0)
    assert np.all(np.abs(a) <= ACCELERATION * (1 + 1e-9) + 1e-9)
    assert np.all(np.abs(np.diff(a, axis=0)) <= JERK * step * (1 + 1e-6) + 1e-6)
    # Positions and velocities belong together.
    ways = np.diff(q, axis=0) - (v[1:] + v[:-1]) / 2 * step
    assert np.all(np.abs(ways) <= JERK * step ** 3 / 8 + 1e-9)


@KINDS
@settings(max_examples=100, deadline=None)
@given(speed=shares, gain=shares)
def test_a_stop_knows_how_far_and_how_fast_it_leads(kind, speed, gain):
    stop = stop_from(kind, speed, gain)
    times = np.linspace(0.0, stop.end, 400)
    q, v, _ = stop.at(times)
    near = ACCELERATION * times[1] + 1e-6
    np.testing.assert_array_less(q.max(axis=0), stop.upper + 1e-9)
    np.testing.assert_array_less(stop.upper, q.max(axis=0) + near * times[1] + 1e-6)
    np.testing.assert_array_less(stop.lower - 1e-9, q.min(axis=0))
    np.testing.assert_array_less(q.min(axis=0) - near * times[1] - 1e-6, stop.lower)
    np.testing.assert_array_less(np.abs(v).max(axis=0), stop.fastest + 1e-9)
    np.testing.assert_array_less(stop.fastest, np.abs(v).max(axis=0) + near)


@settings(max_examples=100, deadline=None)
@given(shares, shares, st.floats(0, 1))
def test_the_fastest_stop_from_the_middle_of_one_is_the_rest_of_it(speed, gain, part):
    stop = stop_from(fastest_stop, speed, gain)
    now = part * stop.end
    later = fastest_stop(*(each[0] for each in stop.at(np.array([now]))), ACCELERATION, JERK)
    times = np.linspace(0.0, stop.end - now, 9)
    for one, other in zip(later.at(times), stop.at(now + times)):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_the_fastest_stop_of_a_joint_at_full_speed_is_that_of_the_textbook():
    stop = fastest_stop(
        np.zeros(1), np.array([2.0]), np.zeros(1), np.array([10.0]), np.array([100.0]))
    assert stop.end == pytest.approx(2.0 / 10.0 + 10.0 / 100.0)  # v/A + A/J
    assert stop.upper[0] == pytest.approx(2.0 * stop.end / 2.0)


def test_in_a_straight_stop_from_an_even_motion_all_joints_stay_on_their_line():
    v = np.array([1.0, 0.05, -0.7])
    stop = straight_stop(Q, v, np.zeros(3), ACCELERATION, JERK)
    q, speeds, _ = stop.at(np.linspace(0.0, stop.end, 50))
    np.testing.assert_allclose((q - Q) / v, np.tile(((q - Q) / v)[:, :1], 3), atol=1e-9)
    np.testing.assert_allclose(speeds[:-1] / v, np.tile((speeds / v)[:-1, :1], 3), atol=1e-9)


@KINDS
def test_at_rest_there_is_nothing_to_stop(kind):
    stop = kind(Q, np.zeros(3), np.zeros(3), ACCELERATION, JERK)
    assert stop.end < 1e-9
    np.testing.assert_array_equal(stop.lower, Q)
    np.testing.assert_array_equal(stop.upper, Q)
