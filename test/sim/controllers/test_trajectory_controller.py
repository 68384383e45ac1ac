"""The simulated joint_trajectory_controller: what it refuses, how it moves, holds and stops."""

import math

import numpy as np
import pytest
from support.controllers import BEGIN, message, plan_at, Rig, SECOND

from lingbot_va_ros.sim.controllers.messages import Trajectory, TrajectoryPoint, TrajectoryRejected
from lingbot_va_ros.sim.controllers.settings import controller_settings, CONTROLLERS, Replacement
from lingbot_va_ros.sim.controllers.trajectory_controller import TrajectoryController

JOINTS = ('a', 'b')
NOW = 100 * SECOND
HERE = np.array([1.0, -1.0])


def point(seconds, positions, velocities=(), accelerations=(), effort=()):
    return TrajectoryPoint(
        round(seconds * SECOND), positions, velocities, accelerations, effort)


def trajectory(*points, stamp_ns=0, joints=JOINTS):
    return Trajectory(stamp_ns, joints, points)


class Driver:
    """A controller at 100 Hz whose joints are where it commands them to be."""

    def __init__(self, controller='jazzy', **changes):
        changes.setdefault('rate', 100.0)
        self.controller = TrajectoryController(JOINTS, controller_settings(controller, **changes))
        self.controller.activate(HERE, np.zeros(2))
        self.period_ns = self.controller.settings.period_ns
        self.now_ns = NOW
        self.update()

    def update(self, positions=None):
        """Run one cycle; return the command."""
        where = self.controller.command if positions is None else positions
        command = self.controller.update(self.now_ns, where, np.zeros(2))
        self.now_ns += self.period_ns
        return command

    def receive(self, received):
        self.controller.receive(received, self.now_ns)

    def after(self, seconds):
        """Run cycles for a time from the next one on; return the last command."""
        return [self.update() for _ in range(round(seconds * SECOND / self.period_ns))][-1]


@pytest.fixture(params=CONTROLLERS)
def driver(request):
    return Driver(request.param, trajectory_tolerance=0.0)


@pytest.fixture
def jazzy():
    return Driver()


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
    'ends moving': (
        trajectory(point(1, [0.0, 0.0], [0.0, 0.1])), 'last velocity of joint b is 0.1'),
    'past': (trajectory(GOOD, stamp_ns=NOW - SECOND - 1), 'in the past'),
}


@pytest.mark.parametrize('name', REFUSED)
def test_refuses_with_a_one_line_reason_and_changes_nothing(driver, name):
    refused, reason = REFUSED[name]
    driver.receive(trajectory(point(1, [3.0, 1.0])))
    with pytest.raises(TrajectoryRejected, match=reason) as caught:
        driver.receive(refused)
    assert '\n' not in str(caught.value)
    assert (driver.controller.accepted, driver.controller.rejected) == (1, 1)
    np.testing.assert_allclose(driver.after(1.1), [3.0, 1.0])


def test_last_point_due_just_now_is_not_past(driver):
    driver.receive(trajectory(GOOD, stamp_ns=driver.now_ns - SECOND))
    np.testing.assert_allclose(driver.update(), [2.0, 2.0])


def test_a_moving_end_is_taken_where_the_setting_allows_it(jazzy):
    moving = trajectory(point(1, [0.0, 0.0], [0.0, 0.1]))
    with pytest.raises(TrajectoryRejected):
        jazzy.receive(moving)
    Driver(allow_nonzero_velocity_at_trajectory_end=True).receive(moving)


def test_a_negative_first_time_is_a_point_before_the_stamp(driver):
    driver.receive(trajectory(
        point(-1, [0.0, 0.0]), point(1, [2.0, 4.0]), stamp_ns=driver.now_ns + SECOND // 10))
    driver.after(0.5)
    assert driver.controller.accepted == 1


def test_stamp_zero_starts_at_the_next_update(jazzy):
    jazzy.receive(trajectory(point(0, [1.0, -1.0]), point(2, [3.0, 1.0])))
    # An update commands what the trajectory has one period later.
    np.testing.assert_allclose(jazzy.update(), [1.01, -0.99])
    np.testing.assert_allclose(jazzy.after(0.99), [2.0, 0.0])


def test_humble_commands_what_the_trajectory_has_at_the_update():
    humble = Driver('humble')
    humble.receive(trajectory(point(0, [1.0, -1.0]), point(2, [3.0, 1.0])))
    np.testing.assert_allclose(humble.update(), [1.0, -1.0])
    np.testing.assert_allclose(humble.after(1.0), [2.0, 0.0])


def test_jazzy_joins_its_last_command_one_period_too_early(jazzy):
    # The command of the last update counts for its time, though it was due a period later.
    jazzy.receive(trajectory(point(0.03, [1.04, -1.0])))
    np.testing.assert_allclose(jazzy.update(), [1.02, -1.0])


def test_future_stamp_is_approached_from_the_last_command(jazzy):
    jazzy.receive(trajectory(point(0, [3.0, 1.0]), stamp_ns=jazzy.now_ns + 2 * SECOND))
    np.testing.assert_allclose(jazzy.after(1.0), [2.0, 0.0], atol=0.01)


def test_past_stamp_joins_the_trajectory_where_it_is_now(driver):
    driver.receive(trajectory(
        point(0, [0.0, 0.0]), point(2, [2.0, 4.0]), stamp_ns=driver.now_ns - SECOND))
    np.testing.assert_allclose(driver.update(), [1.0, 2.0], atol=0.021)


def test_holds_after_the_last_point(driver):
    driver.receive(trajectory(GOOD))
    np.testing.assert_array_equal(driver.after(5.0), [2.0, 2.0])
    assert driver.controller.state is not None
    np.testing.assert_array_equal(driver.controller.state.reference.velocities, [0.0, 0.0])
    np.testing.assert_array_equal(driver.controller.state.error, [0.0, 0.0])


def test_joints_may_come_in_any_order(driver):
    driver.receive(trajectory(point(1, [5.0, 7.0], [0.0, 0.0]), joints=('b', 'a')))
    np.testing.assert_allclose(driver.after(1.1), [7.0, 5.0])


def test_a_partial_goal_leaves_the_other_joints_at_their_command():
    partial = trajectory(point(1, [5.0], [0.0]), joints=('a',))
    driver = Driver(allow_partial_joints_goal=True)
    driver.receive(partial)
    np.testing.assert_allclose(driver.after(1.1), [5.0, -1.0])
    with pytest.raises(TrajectoryRejected, match='names no joints'):
        driver.receive(trajectory(GOOD, joints=()))


def test_on_rolling_joints_that_a_partial_goal_omits_finish_their_motion():
    driver = Driver('rolling', allow_partial_joints_goal=True)
    driver.receive(trajectory(point(0, HERE), point(2, [3.0, 3.0])))
    driver.after(0.5)
    driver.receive(trajectory(point(0, [1.5]), point(0.5, [0.0]), joints=('a',)))
    np.testing.assert_allclose(driver.after(0.25), [0.75, 0.5], atol=0.1)
    np.testing.assert_allclose(driver.after(2.0), [0.0, 3.0])


def test_newer_message_replaces_the_older_from_its_first_point_on(jazzy):
    jazzy.receive(trajectory(point(1, [2.0, 0.0], [1.0, 1.0]), point(2, [2.5, 0.5], [0.0, 0.0])))
    before = jazzy.after(0.5)
    jazzy.receive(trajectory(point(1, [0.0, 0.0], [0.0, 0.0])))
    np.testing.assert_allclose(jazzy.update(), before, atol=0.03)
    np.testing.assert_allclose(jazzy.after(1.0), [0.0, 0.0])


@pytest.mark.parametrize('replacement, waits', [
    (Replacement.IMMEDIATE, False), (Replacement.DEFERRED, True), (Replacement.SPLICED, True)])
def test_a_stamp_in_the_future_lets_the_old_trajectory_run_where_it_is_not_replaced_at_once(
        replacement, waits):
    driver = Driver(replacement=replacement)
    driver.receive(trajectory(point(0, HERE), point(1, [2.0, 0.0]), point(2, [1.0, -1.0])))
    driver.update()
    driver.receive(trajectory(
        point(0, [1.0, -1.0]), point(1, [5.0, 5.0]), stamp_ns=driver.now_ns + 2 * SECOND))
    there = driver.after(1.0)[0]
    assert there == pytest.approx(2.0, abs=0.03) if waits else there < 1.1
    np.testing.assert_allclose(driver.after(2.1), [5.0, 5.0])


def test_linear_without_velocities(jazzy):
    jazzy.receive(trajectory(point(0, HERE), point(1, [2.0, 0.0]), point(2, [2.0, 4.0])))
    np.testing.assert_allclose(jazzy.after(0.25), [1.25, -0.75])
    np.testing.assert_allclose(jazzy.after(1.0), [2.0, 1.0])


@pytest.mark.parametrize('with_accelerations', [False, True])
def test_spline_meets_the_derivatives_at_both_ends(with_accelerations):
    accelerations = ([[0.7, -0.4], [-0.2, 0.1]] if with_accelerations else [(), ()])
    start = point(1, [2.0, 0.0], [0.5, -0.5], accelerations[0])
    end = point(3, [1.0, 3.0], [0.0, 0.0], accelerations[1])
    driver = Driver(rate=1000.0)
    driver.receive(trajectory(start, end))
    for knot, seconds in ((start, 1.001), (end, 2.0)):
        driver.after(seconds)
        state = driver.controller.state
        np.testing.assert_allclose(state.reference.positions, knot.positions, atol=2e-3)
        np.testing.assert_allclose(state.reference.velocities, knot.velocities, atol=6e-3)
        if with_accelerations:
            np.testing.assert_allclose(
                state.reference.accelerations, knot.accelerations, atol=0.02)


def test_cubic_from_rest_to_rest_is_halfway_at_half_time(jazzy):
    jazzy.receive(trajectory(point(0, HERE, [0.0, 0.0]), point(2, [3.0, 1.0], [0.0, 0.0])))
    jazzy.after(1.01)
    half = jazzy.controller.state.reference
    np.testing.assert_allclose(half.positions, [2.0, 0.0])
    np.testing.assert_allclose(half.velocities, [1.5, 1.5])  # 1.5 × the mean velocity
    np.testing.assert_allclose(half.accelerations, 0.0, atol=1e-12)


@pytest.mark.parametrize('accelerations', [(), [0.3, 0.2]])
def test_velocity_is_the_derivative_of_position(accelerations):
    driver = Driver(rate=1000.0)
    driver.receive(trajectory(
        point(0.5, [2.0, 0.0], [1.0, -1.0], accelerations),
        point(1.5, [0.0, 1.0], [0.0, 0.0], accelerations)))
    driver.update()
    for _ in range(1480):
        here = driver.controller.state.reference
        driver.update()
        there = driver.controller.state.reference
        np.testing.assert_allclose(
            (there.positions - here.positions) * 1000,
            (here.velocities + there.velocities) / 2, atol=2e-3)


def test_an_inactive_controller_ignores_messages_and_holds_its_last_command(driver):
    driver.receive(trajectory(GOOD))
    before = driver.after(0.5)
    driver.controller.deactivate()
    driver.receive(trajectory(point(1, [9.0, 9.0])))
    np.testing.assert_array_equal(driver.controller.command, before)
    assert driver.controller.accepted == 1
    driver.controller.activate(np.array([1.2, 0.3]), np.zeros(2))
    np.testing.assert_array_equal(driver.after(0.1), [1.2, 0.3])


@pytest.mark.parametrize('seconds, with_stamp, measured, within', [
    (0.12, True, 0.062, 0.15), (0.5, True, 0.256, 0.05),
    (0.12, False, 0.037, 0.5), (0.5, False, 0.089, 0.25)])
def test_activation_while_a_mux_goes_on_jumps_onto_its_plan_in_one_cycle(
        seconds, with_stamp, measured, within):
    """The measured jumps of Jazzy's controller; without the knot they depend on the phase."""
    knots = 3 if with_stamp else 1
    rig = Rig()
    rig.run(0.5, knots=knots, with_stamp=with_stamp)
    rig.loop.stop(rig.joint.positions)
    rig.run(seconds, messages=False)
    rig.loop.begin(rig.now_ns, rig.joint.positions, rig.joint.velocities)
    commands = rig.run(0.1, knots=knots, with_stamp=with_stamp).commands[:, 0]
    assert np.abs(np.diff(commands)).max() == pytest.approx(measured, rel=within)


def test_a_violated_tolerance_aborts_and_holds_the_measured_position():
    driver = Driver('ur_scaled', rate=500.0)
    driver.receive(trajectory(point(0, HERE), point(2, [3.0, 1.0])))
    commands = [driver.update(HERE) for _ in range(130)]
    assert driver.controller.violations == 1
    assert 'trajectory tolerance of joint a: error 0.20' in driver.controller.last_violation
    # The command of that cycle is the last one, and the hold begins with the next.
    np.testing.assert_array_equal(commands[-1], HERE)
    assert max(command[0] for command in commands) == pytest.approx(1.2, abs=0.003)


@pytest.mark.parametrize('knots, with_stamp, jumps, largest', [
    (1, False, 100, 0.279), (3, True, 1, 0.201)])
def test_a_blocked_arm_lets_the_scaled_controller_jump(knots, with_stamp, jumps, largest):
    """
    Measured: today 105 jumps, the largest 279 mrad; with three knots one jump of 201 mrad.

    They end where the plan is 0.35 rad away, as the mux then holds.
    """
    rig = Rig('ur_scaled', tau=0.03)
    rig.run(0.5, knots=knots, with_stamp=with_stamp)
    rig.joint.blocked = True
    steps = np.abs(np.diff(rig.run(0.7, knots=knots, with_stamp=with_stamp).commands[:, 0]))
    assert rig.controller.violations > 20
    assert jumps / 2 <= (steps > 0.1).sum() <= jumps * 2
    assert steps.max() == pytest.approx(largest, rel=0.25)


@pytest.mark.parametrize('goal_time, holds', [(0.0, False), (0.5, True)])
def test_a_goal_that_is_not_reached_in_goal_time_is_given_up(goal_time, holds):
    driver = Driver(goal_tolerance=0.1, goal_time=goal_time)
    driver.receive(trajectory(GOOD))
    for _ in range(160):
        driver.update(HERE)
    np.testing.assert_array_equal(driver.controller.command, HERE if holds else [2.0, 2.0])
    assert ('s after the end' in driver.controller.last_violation) == holds


@pytest.mark.parametrize('commands_velocity', [False, True])
def test_the_stopped_velocity_counts_only_where_velocities_are_commanded(commands_velocity):
    driver = Driver(goal_time=0.1, commands_velocity=commands_velocity)
    driver.receive(trajectory(point(0.1, HERE, [0.0, 0.0])))
    for _ in range(50):
        driver.controller.update(driver.now_ns, HERE, np.array([0.02, 0.0]))
        driver.now_ns += driver.period_ns
    assert driver.controller.violations == commands_velocity


@pytest.mark.parametrize('controller', ['jazzy', 'kilted', 'rolling', 'ur_scaled', 'humble'])
def test_speed_scaling_slows_a_single_message_and_has_none_on_humble(controller):
    driver = Driver(controller)
    driver.receive(trajectory(point(0, HERE), point(2, [3.0, 1.0])))
    driver.update()
    driver.controller.speed_scaling = 0.5
    assert driver.after(1.0)[0] == pytest.approx(2.0 if controller == 'humble' else 1.5, abs=0.02)


@pytest.mark.parametrize('scaling', [1.0, 0.5, 0.0])
def test_the_slider_has_no_effect_at_100_messages_a_second(scaling):
    """CONTROLLERS.md: 0.496 rad/s at 100, 50 and 0 %."""
    rig = Rig('ur_scaled')
    rig.controller.speed_scaling = scaling
    trace = rig.run(2.0)
    assert trace.after(0.4).speeds().mean() == pytest.approx(0.496, rel=0.05)


def test_delayed_messages_are_rejected_beyond_the_length_of_their_tail():
    for delay, lowest, highest in ((0.01, 0.0, 0.0), (0.1, 1.0, 1.0), (0.05, 0.1, 0.9)):
        rig = Rig(delay=delay, jitter=0.02)
        rig.run(1.0)
        refused = rig.controller.rejected / (rig.controller.rejected + rig.controller.accepted)
        assert lowest <= refused <= highest
        assert all('in the past' in reason for reason in rig.rejections)


def test_the_helper_sends_the_plan():
    sent = message(BEGIN + SECOND, SECOND // 100, 3)
    assert [each.time_from_start_ns for each in sent.points] == [
        0, 10_000_000, 20_000_000, 30_000_000, 80_000_000]
    assert sent.points[0].positions == [plan_at(BEGIN + SECOND)] == [0.5]


def test_an_unknown_controller_and_a_rate_of_zero_are_named():
    with pytest.raises(ValueError, match="'foxy' is unknown; expected one of humble, jazzy"):
        controller_settings('foxy')
    with pytest.raises(ValueError, match='controller_rate: 0 Hz'):
        controller_settings('jazzy', rate=0.0)
