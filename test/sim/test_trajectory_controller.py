"""The simulated joint_trajectory_controller: what it refuses, and how it moves otherwise."""

import math

import numpy as np
import pytest

from lingbot_va_ros.sim.trajectory_controller import (
    Trajectory,
    TrajectoryController,
    TrajectoryPoint,
    TrajectoryRejected,
)

SECOND = 1_000_000_000
NOW = 100 * SECOND
JOINTS = ('a', 'b')


def point(seconds, positions, velocities=(), accelerations=(), effort=()):
    return TrajectoryPoint(
        round(seconds * SECOND), positions, velocities, accelerations, effort)


def trajectory(*points, stamp_ns=0, joints=JOINTS):
    return Trajectory(stamp_ns, joints, points)


@pytest.fixture
def controller():
    made = TrajectoryController(JOINTS)
    made.hold(np.array([1.0, -1.0]))
    return made


def positions_after(controller, seconds):
    return controller.sample(NOW + round(seconds * SECOND)).positions


GOOD = point(1.0, [2.0, 2.0], [0.0, 0.0])
REFUSED = {
    'empty': (trajectory(), 'no points'),
    'unknown joint': (trajectory(GOOD, joints=('a', 'c')), 'unknown joints: c'),
    'missing joint': (trajectory(point(1, [0.0]), joints=('a',)), 'missing joints: b'),
    'no joints': (trajectory(GOOD, joints=()), 'missing joints: a, b'),
    'joint twice': (trajectory(GOOD, joints=('a', 'a')), 'more than once: a'),
    'too few positions': (trajectory(point(1, [0.0])), 'point 0 has 1 positions, expected 2'),
    'no positions': (trajectory(point(1, [], [0.0, 0.0])), 'point 0 has 0 positions'),
    'too many velocities': (
        trajectory(point(1, [0.0, 0.0], [0.0] * 3)), 'point 0 has 3 velocities'),
    'too few accelerations': (
        trajectory(point(1, [0.0, 0.0], [0.0, 0.0], [0.0])), 'point 0 has 1 accelerations'),
    'accelerations alone': (
        trajectory(point(1, [0.0, 0.0], (), [0.0, 0.0])), 'accelerations but no velocities'),
    'effort': (trajectory(point(1, [0.0, 0.0], effort=[1.0, 1.0])), 'effort'),
    'nan': (trajectory(point(1, [0.0, math.nan])), 'positions of joint b is nan'),
    'infinite velocity': (
        trajectory(point(1, [0.0, 0.0], [math.inf, 0.0]), GOOD), 'velocities of joint a is inf'),
    'time stands still': (trajectory(point(1, [0.0, 0.0]), GOOD), 'does not increase'),
    'time goes back': (trajectory(point(2, [0.0, 0.0]), GOOD), 'does not increase'),
    'negative time': (trajectory(point(-0.1, [0.0, 0.0]), GOOD), 'negative'),
    'ends moving': (
        trajectory(point(1, [0.0, 0.0], [0.0, 0.1])), 'last velocity of joint b is 0.1'),
    'past': (trajectory(GOOD, stamp_ns=NOW - SECOND - 1), 'in the past'),
}


@pytest.mark.parametrize('name', REFUSED)
def test_refuses_with_a_one_line_reason_and_changes_nothing(controller, name):
    message, reason = REFUSED[name]
    controller.accept(trajectory(point(1, [3.0, 1.0])), NOW)
    with pytest.raises(TrajectoryRejected, match=reason) as caught:
        controller.accept(message, NOW)
    assert '\n' not in str(caught.value)
    assert (controller.accepted, controller.rejected) == (1, 1)
    np.testing.assert_allclose(positions_after(controller, 0.5), [2.0, 0.0])


def test_last_point_due_just_now_is_not_past(controller):
    controller.accept(trajectory(GOOD, stamp_ns=NOW - SECOND), NOW)
    np.testing.assert_allclose(positions_after(controller, 0.0), [2.0, 2.0])


def test_stamp_zero_starts_when_it_arrives(controller):
    controller.accept(trajectory(point(2, [3.0, 1.0])), NOW)
    np.testing.assert_allclose(positions_after(controller, 1.0), [2.0, 0.0])


def test_future_stamp_is_approached_from_where_the_joints_should_be(controller):
    controller.accept(trajectory(point(0, [3.0, 1.0]), stamp_ns=NOW + 2 * SECOND), NOW)
    np.testing.assert_allclose(positions_after(controller, 1.0), [2.0, 0.0])


def test_past_stamp_joins_the_trajectory_where_it_is_now(controller):
    controller.accept(
        trajectory(point(0, [0.0, 0.0]), point(2, [2.0, 4.0]), stamp_ns=NOW - SECOND), NOW)
    np.testing.assert_allclose(positions_after(controller, 0.0), [1.0, 2.0])


def test_holds_after_the_last_point(controller):
    controller.accept(trajectory(GOOD), NOW)
    after = controller.sample(NOW + 5 * SECOND)
    np.testing.assert_array_equal(after.positions, [2.0, 2.0])
    np.testing.assert_array_equal(after.velocities, [0.0, 0.0])


def test_joints_may_come_in_any_order(controller):
    controller.accept(
        trajectory(point(1, [5.0, 7.0], [0.0, 0.0]), joints=('b', 'a')), NOW)
    np.testing.assert_array_equal(positions_after(controller, 1.0), [7.0, 5.0])


def test_newer_message_starts_at_the_desired_state_without_a_jump(controller):
    controller.accept(
        trajectory(point(1, [2.0, 0.0], [1.0, 1.0]), point(2, [2.5, 0.5], [0.0, 0.0])), NOW)
    before = controller.sample(NOW + SECOND // 2)
    controller.accept(trajectory(point(1, [0.0, 0.0], [0.0, 0.0])), NOW + SECOND // 2)
    after = controller.sample(NOW + SECOND // 2 + 1000)
    np.testing.assert_allclose(after.positions, before.positions, atol=1e-5)
    np.testing.assert_allclose(after.velocities, before.velocities, atol=1e-4)
    np.testing.assert_allclose(positions_after(controller, 1.5), [0.0, 0.0])


def test_linear_without_velocities(controller):
    controller.accept(trajectory(point(1, [2.0, 0.0]), point(2, [2.0, 4.0])), NOW)
    quarter = controller.sample(NOW + SECOND // 4)
    np.testing.assert_allclose(quarter.positions, [1.25, -0.75])
    np.testing.assert_allclose(quarter.velocities, [1.0, 1.0])
    np.testing.assert_allclose(positions_after(controller, 1.25), [2.0, 1.0])


@pytest.mark.parametrize('with_accelerations', [False, True])
def test_spline_meets_the_derivatives_at_both_ends(controller, with_accelerations):
    accelerations = ([[0.7, -0.4], [-0.2, 0.1]] if with_accelerations else [(), ()])
    start = point(1, [2.0, 0.0], [0.5, -0.5], accelerations[0])
    end = point(3, [1.0, 3.0], [0.0, 0.0], accelerations[1])
    controller.accept(trajectory(start, end), NOW)
    for knot, seconds in ((start, 1.0 + 1e-6), (end, 3.0 - 1e-6)):
        there = controller.sample(NOW + round(seconds * SECOND))
        np.testing.assert_allclose(there.positions, knot.positions, atol=1e-5)
        np.testing.assert_allclose(there.velocities, knot.velocities, atol=1e-5)
        if with_accelerations:
            np.testing.assert_allclose(there.accelerations, knot.accelerations, atol=1e-4)


def test_cubic_from_rest_to_rest_is_halfway_at_half_time(controller):
    controller.accept(trajectory(point(2, [3.0, 1.0], [0.0, 0.0])), NOW)
    half = controller.sample(NOW + SECOND)
    np.testing.assert_allclose(half.positions, [2.0, 0.0])
    np.testing.assert_allclose(half.velocities, [1.5, 1.5])  # 1.5 × the mean velocity
    np.testing.assert_allclose(half.accelerations, 0.0, atol=1e-12)


def test_velocity_is_the_derivative_of_position(controller):
    controller.accept(
        trajectory(point(0.5, [2.0, 0.0], [1.0, -1.0], [0.3, 0.2]),
                   point(1.5, [0.0, 1.0], [0.0, 0.0], [0.0, 0.1])), NOW)
    step = SECOND // 1000
    for at in range(step, 1_490_000_000, 50 * step):
        here = controller.sample(NOW + at)
        there = controller.sample(NOW + at + step)
        np.testing.assert_allclose(
            (there.positions - here.positions) * 1000,
            (here.velocities + there.velocities) / 2, atol=2e-3)
