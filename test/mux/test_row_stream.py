"""Controllers without trajectories: the rows that the mux sends them tick by tick."""

from dataclasses import replace

import numpy as np
import pytest
from support.motion_limits import assert_points_inside_limits
from support.two_joints import LIMITS, PERIOD, ROBOT, START

from lingbot_va_ros.motion.trajectory import TrajectoryMessage, TrajectoryPoint
from lingbot_va_ros.mux.modes import MuxMode
from lingbot_va_ros.mux.mux import Mux
from lingbot_va_ros.mux.row_stream import LONGEST_GAP, REST_ROWS
from lingbot_va_ros.mux.settings import MuxSettings
from lingbot_va_ros.specs.controllers import Controller

SECONDS = PERIOD * 1e-9
ARM, HAND = ('j1', 'j2'), ('grip',)
POSITIONS = (Controller('c', ROBOT.joints, 'forward_position'),)
VELOCITIES = (Controller('c', ROBOT.joints, 'forward_velocity', gain=2.0),)
MIXED = (Controller('a', ARM, 'trajectory'), Controller('g', HAND, 'forward_position'))


class Bench:
    """A mux, a policy, and a driver that does what the rows say."""

    def __init__(self, controllers, drift=0.0, **settings):
        self.has_rates = controllers is VELOCITIES
        self.mux = Mux(
            replace(ROBOT, controllers=controllers), replace(MuxSettings(), **settings), PERIOD)
        self.now = 1_000_000_000_000
        self.measured, self.rates = START.copy(), np.zeros(3)
        self.drift = drift
        self.goal = lambda t_ns: START
        self.policy_alive = self.joints_alive = True
        self.rows, self.executed, self.commands = [], [], []

    @property
    def now_s(self):
        return self.now * 1e-9

    def plan(self):
        times = [PERIOD * 2 * (index + 1) for index in range(10)]
        rows = [self.goal(self.now + after) for after in times]
        speeds = [(self.goal(self.now + after + 1000) - self.goal(self.now + after - 1000)) / 2e-6
                  for after in times]
        speeds[-1] = np.zeros(3)
        return TrajectoryMessage(self.now, ROBOT.joints, tuple(
            TrajectoryPoint(after, tuple(q), tuple(v))
            for after, q, v in zip(times, rows, speeds, strict=True)))

    def run(self, ticks):
        for _ in range(ticks):
            self.send_inputs()
            tick = self.mux.tick(self.now, self.now_s)
            self.take(tick)
            self.pass_time(1)

    def send_inputs(self):
        if self.joints_alive:
            self.mux.take_joint_state(
                ROBOT.joints, self.measured, self.rates, self.now, self.now, self.now_s)
        if self.policy_alive:
            self.mux.take_policy_plan(self.plan(), self.now, self.now_s)

    def take(self, tick):
        self.executed += tick.executed
        if tick.command is not None:
            self.commands.append(tick.command)
        if tick.row is not None:
            self.rows.append(tick.row)
            if self.has_rates:
                self.rates = tick.row.rates + np.where(tick.row.rates == 0.0, 0.0, self.drift)
            else:
                self.measured = tick.row.positions

    def pass_time(self, ticks):
        self.measured = self.measured + self.rates * SECONDS * ticks * self.has_rates
        self.now += ticks * PERIOD

    def choose(self, mode):
        success, message = self.mux.set_mode(mode, self.now, self.now_s)
        assert success, message

    def start(self):
        """Begin a motion of all joints under POLICY."""
        self.run(5)
        begin = self.now
        self.goal = lambda t_ns: START + np.array([0.5, 0.3, 0.01]) * (
            1 - np.cos(2 * max(0.0, (t_ns - begin) * 1e-9)))
        self.choose(MuxMode.POLICY)
        self.run(60)
        assert np.abs(self.rows[-1].velocities[0]) > 0.5
        return self


def states(rows):
    return [(row.time_ns, row.positions, row.velocities) for row in rows]


def assert_rows_end_at_rest(rows):
    assert np.all(rows[-1].velocities == 0.0) and np.all(rows[-1].rates == 0.0)
    np.testing.assert_allclose(rows[-1].positions, rows[-REST_ROWS].positions, atol=1e-6)


@pytest.mark.parametrize('controllers', [POSITIONS, VELOCITIES, MIXED])
def test_nothing_is_sent_before_a_mode_is_chosen(controllers):
    bench = Bench(controllers)
    bench.run(20)
    assert not bench.rows


def test_trajectory_controllers_alone_get_no_rows():
    bench = Bench(ROBOT.controllers)
    bench.run(5)
    bench.choose(MuxMode.HOLD)
    bench.run(5)
    assert bench.commands and not bench.rows


@pytest.mark.parametrize('controllers', [POSITIONS, VELOCITIES, MIXED])
def test_every_row_is_the_executed_point_that_is_due(controllers):
    bench = Bench(controllers).start()
    executed = {due: (q, v) for due, q, v in bench.executed}
    rows = [row for row in bench.rows if row.time_ns in executed]
    assert len(rows) >= len(bench.rows) - 1  # the first one is where the motion begins
    for row in rows:
        np.testing.assert_allclose(row.positions, executed[row.time_ns][0], atol=1e-12)
        np.testing.assert_allclose(row.velocities, executed[row.time_ns][1], atol=1e-12)
    assert np.all(np.diff([row.time_ns for row in bench.rows]) == PERIOD)


def stop_by_hold(bench):
    bench.choose(MuxMode.HOLD)


def stop_by_emergency(bench):
    bench.mux.take_emergency_stop(True, bench.now_s)


def stop_by_silent_policy(bench):
    bench.policy_alive = False


def stop_by_silent_joints(bench):
    bench.joints_alive = False


@pytest.mark.parametrize('controllers', [POSITIONS, VELOCITIES])
@pytest.mark.parametrize(
    'stop', [stop_by_hold, stop_by_emergency, stop_by_silent_policy, stop_by_silent_joints])
def test_a_stop_is_sent_row_by_row_until_the_arm_rests(controllers, stop):
    bench = Bench(controllers).start()
    bench.rows.clear()
    stop(bench)
    bench.run(100)
    assert bench.mux.machine.mode in (MuxMode.HOLD, MuxMode.STOPPED)
    rows = bench.rows
    assert 10 < len(rows) < 80, 'the rows do not end'
    speeds = np.array([row.velocities for row in rows])
    assert np.all(np.abs(np.diff(speeds, axis=0)) <= LIMITS.acceleration * SECONDS + 1e-6)
    assert_rows_end_at_rest(rows)
    if controllers is VELOCITIES:
        rates = np.array([row.rates for row in rows])
        assert np.all(np.abs(np.diff(rates, axis=0)) <= LIMITS.acceleration * SECONDS + 1e-6)


@pytest.mark.parametrize('controllers', [POSITIONS, VELOCITIES, MIXED])
def test_the_mux_streams_its_last_stop_when_it_ends(controllers):
    bench = Bench(controllers).start()
    bench.rows.clear()
    bench.take(bench.mux.last_stop(bench.now))
    while (tick := bench.mux.last_row(bench.now, bench.now_s)).row is not None:
        bench.take(tick)
        bench.now += PERIOD
        assert len(bench.rows) < 100
    assert_rows_end_at_rest(bench.rows)
    assert np.abs(bench.rows[0].velocities[0]) > 0.5


def test_rows_keep_the_limits():
    bench = Bench(POSITIONS).start()
    bench.goal = lambda t_ns: np.array([1.9, -0.9, 0.04])
    bench.run(150)
    bench.choose(MuxMode.HOLD)
    bench.run(50)
    assert_points_inside_limits(states(bench.rows[1:]), START, LIMITS, SECONDS)


def test_skipped_ticks_move_no_row_further_than_the_limits_allow():
    bench = Bench(POSITIONS).start()
    before = bench.rows[-1]
    bench.pass_time(3)
    bench.run(1)
    way = np.abs(bench.rows[-1].positions - before.positions)
    assert np.all(way <= 4 * SECONDS * LIMITS.velocity + 1e-9)
    executed = {due: q for due, q, _ in bench.executed}
    np.testing.assert_allclose(
        bench.rows[-1].positions, executed[bench.rows[-1].time_ns], atol=1e-12)
    assert bench.mux.machine.mode == MuxMode.POLICY


def test_a_late_tick_before_a_skipped_one_leaves_no_jump():
    bench = Bench(POSITIONS)
    bench.run(5)
    begin = bench.now
    bench.goal = lambda t_ns: START + np.array([1.9e-9, 0.0, 0.0]) * max(0, t_ns - begin)
    bench.choose(MuxMode.POLICY)
    bench.run(60)
    assert bench.rows[-1].velocities[0] > 0.9 * LIMITS.velocity[0]
    # The last row came 9 ms late; 11 ms after it comes that of the second tick from then.
    bench.send_inputs()
    bench.take(bench.mux.tick(bench.now, bench.now_s + 0.009))
    before = bench.rows[-1].positions
    bench.pass_time(2)
    bench.take(bench.mux.tick(bench.now, bench.now_s))
    way = np.abs(bench.rows[-1].positions - before)
    assert np.all(way <= LIMITS.velocity * 0.011 + 1e-9) and way[0] > 0.02


@pytest.mark.parametrize('controllers', [POSITIONS, MIXED])
def test_after_a_long_pause_the_motion_begins_where_the_driver_came_to_rest(controllers):
    bench = Bench(controllers).start()
    before = bench.rows[-1]
    executed_before = bench.executed[-1]
    bench.pass_time(LONGEST_GAP + 5)
    bench.run(40)
    held = [name in ('grip',) if controllers is MIXED else True for name in ROBOT.joints]
    after = next(row for row in bench.rows if row.time_ns > before.time_ns)
    np.testing.assert_allclose(
        after.positions[held], executed_before[1][held], atol=1e-9)
    assert np.all(after.velocities[held] == 0.0)
    for due, q, _ in bench.executed:  # what nobody was sent is not executed
        if executed_before[0] < due <= after.time_ns:
            np.testing.assert_allclose(q[held], executed_before[1][held], atol=1e-9)
    if controllers is MIXED:
        assert np.abs(after.positions[0] - before.positions[0]) > 0.02
    rows = [row for row in bench.rows if row.time_ns >= after.time_ns]
    speeds = np.array([row.velocities for row in rows])
    assert np.all(np.abs(np.diff(speeds, axis=0)) <= LIMITS.acceleration * SECONDS + 1e-6)
    assert bench.mux.machine.mode == MuxMode.POLICY


def test_a_velocity_driver_that_drifts_stays_near_its_command():
    bench = Bench(VELOCITIES, drift=np.array([0.05, -0.05, 0.0]), max_tracking_delay=10.0)
    bench.start()
    bench.run(200)
    assert bench.mux.machine.mode == MuxMode.POLICY, bench.mux.machine.reason
    assert np.all(np.abs(bench.measured - bench.rows[-1].positions) < 0.05)
    assert all(np.all(np.abs(row.rates) <= LIMITS.velocity + 1e-9) for row in bench.rows)


def test_a_velocity_driver_gets_zeros_while_its_arm_rests_off_its_command():
    bench = Bench(VELOCITIES)
    bench.run(5)
    bench.choose(MuxMode.POLICY)
    bench.run(20)
    bench.measured = START + 0.02
    bench.run(20)
    assert bench.rows and all(np.all(row.rates == 0.0) for row in bench.rows)


def test_a_blocked_velocity_driver_is_neither_pressed_on_nor_driven_back():
    bench = Bench(VELOCITIES, max_following_error=0.2).start()
    blocked_at = bench.measured.copy()
    for _ in range(100):
        bench.run(1)
        bench.measured = blocked_at.copy()
        if bench.mux.machine.mode == MuxMode.HOLD:
            break
    assert 'following error' in bench.mux.machine.reason or 'stands still' in (
        bench.mux.machine.reason)
    bench.rows.clear()
    bench.run(100)
    speeds = np.array([row.rates[0] for row in bench.rows])
    assert speeds.min() > -0.05 and speeds[-1] == 0.0
    # It slows down from the first row on, as fast as the limits allow.
    assert np.all(np.diff(speeds[3:]) <= 1e-9)


@pytest.mark.parametrize('controllers', [POSITIONS, VELOCITIES, MIXED])
def test_rows_keep_the_limits_by_their_times_whatever_comes(controllers):
    random = np.random.default_rng(7)
    bench = Bench(controllers, max_rejections=1000)
    bench.run(5)
    for _ in range(12):
        base, begin = (bench.rows[-1].positions if bench.rows else START).copy(), bench.now
        amplitude = random.uniform(-1.0, 1.0, 3) * np.array([1.5, 0.8, 0.02])
        bench.goal = lambda t_ns, base=base, begin=begin, amplitude=amplitude: np.clip(
            base + amplitude * np.sin(3.0 * max(0.0, (t_ns - begin) * 1e-9)),
            LIMITS.lower, LIMITS.upper)
        act = random.integers(0, 5)
        if act < 2:
            bench.mux.set_mode(MuxMode.POLICY, bench.now, bench.now_s)
        elif act == 2:
            bench.mux.set_mode(MuxMode.HOLD, bench.now, bench.now_s)
        elif act == 3:
            bench.pass_time(int(random.integers(1, 60)))
        else:  # a late tick, and skipped ones after it
            bench.send_inputs()
            bench.take(bench.mux.tick(bench.now, bench.now_s + 0.008))
            bench.pass_time(int(random.integers(1, 5)))
        bench.run(int(random.integers(5, 25)))
    assert len(bench.rows) > 40
    for before, after in zip(bench.rows, bench.rows[1:]):
        seconds = (after.time_ns - before.time_ns) * 1e-9
        assert np.all(np.abs(after.rates) <= LIMITS.velocity + 1e-9)
        if controllers is not VELOCITIES:
            way = np.abs(after.positions - before.positions)
            assert np.all(way <= LIMITS.velocity * seconds + 1e-6)
        if seconds < 1.5 * SECONDS:
            gain = np.abs(after.velocities - before.velocities)
            assert np.all(gain <= LIMITS.acceleration * seconds + 1e-5)
