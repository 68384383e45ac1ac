"""The command mux without ROS: what it sends, and what makes it hold or stop."""

from dataclasses import replace
import re

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from support.motion_limits import assert_points_inside_limits
from support.two_joints import JOINTS, LIMITS, PERIOD, ROBOT, START

from lingbot_va_ros.motion.trajectory import TrajectoryMessage, TrajectoryPoint
from lingbot_va_ros.mux.chase import Chase
from lingbot_va_ros.mux.modes import MuxMode
from lingbot_va_ros.mux.mux import Mux
from lingbot_va_ros.mux.settings import MuxSettings
from lingbot_va_ros.robot.kinematics import ArmKinematics
from lingbot_va_ros.specs.embodiment import load_embodiment, Workspace


class Bench:
    """A mux with a robot that follows at once and a policy that wants to be at `goal(t)`."""

    def __init__(self, robot=ROBOT, **settings):
        self.robot = robot
        self.mux = Mux(robot, replace(MuxSettings(), **settings), PERIOD)
        self.now = 1_000_000_000_000
        self.measured, self.speed = START.copy(), np.zeros(3)
        self.goal = lambda t_ns: START
        self.joints_alive = self.policy_alive = True
        self.follows = True
        self.commands, self.executed = [], []

    @property
    def now_s(self):
        return self.now * 1e-9

    @property
    def mode(self):
        return self.mux.machine.mode

    def message(self, stamp=None, **changes):
        stamp = self.now if stamp is None else stamp
        times = [PERIOD * 2 * (i + 1) for i in range(10)]
        rows = [np.asarray(self.goal(stamp + t), float) for t in times]
        speeds = [
            (np.asarray(self.goal(stamp + t + 1000)) - np.asarray(self.goal(stamp + t - 1000)))
            / 2e-6 for t in times]
        speeds[-1] = np.zeros(len(self.robot.joints))
        points = tuple(
            TrajectoryPoint(t, tuple(q), tuple(v)) for t, q, v in zip(times, rows, speeds))
        return replace(TrajectoryMessage(stamp, self.robot.joints, points), **changes)

    def send_plan(self, **changes):
        return self.mux.take_policy_plan(self.message(**changes), self.now, self.now_s)

    def run(self, ticks, every_tick=lambda: None):
        for _ in range(ticks):
            if self.joints_alive:
                self.mux.take_joint_state(
                    self.robot.joints, self.measured, self.speed, self.now, self.now, self.now_s)
            if self.policy_alive and (self.now // PERIOD) % 2 == 0:
                self.send_plan()
            every_tick()
            tick = self.mux.tick(self.now, self.now_s)
            if tick.command is not None:
                self.commands.append((self.now, tick.command))
            self.executed += tick.executed
            if tick.executed and self.follows:
                self.measured, self.speed = tick.executed[-1][1:]
            self.now += PERIOD

    def moved_by_others(self):
        self.measured = self.measured + self.speed * PERIOD * 1e-9

    def choose(self, mode):
        return self.mux.set_mode(mode, self.now, self.now_s)


def sweep(begin_ns):
    def goal(t_ns):
        t = max(0.0, (t_ns - begin_ns) * 1e-9)
        return START + np.array([0.5, 0.3, 0.01]) * (1 - np.cos(2 * min(t, 1.5)))
    return goal


def assert_executed_inside_limits(executed, start):
    assert_points_inside_limits(executed, start, LIMITS, PERIOD * 1e-9)


def test_nothing_is_sent_before_a_mode_is_chosen():
    bench = Bench()
    bench.run(30)
    assert bench.mode == MuxMode.HOLD and not bench.commands and not bench.executed


def test_hold_is_sent_once_as_a_stop_at_the_measured_position():
    bench = Bench()
    bench.run(5)
    assert bench.choose(MuxMode.HOLD)[0]
    bench.run(20)
    assert len(bench.commands) == 1
    command = bench.commands[0][1]
    np.testing.assert_allclose(command.positions[-1], START)
    assert np.all(command.velocities[-1] == 0)
    assert len(bench.executed) == 1


def test_policy_follows_its_plan_and_reports_every_command():
    bench = Bench()
    bench.run(5)
    bench.goal = sweep(bench.now + 50 * PERIOD)
    assert bench.choose(MuxMode.POLICY) == (True, 'POLICY')
    bench.run(150)
    assert bench.mode == MuxMode.POLICY
    assert len(bench.commands) == len(bench.executed) == 150
    for (sent_ns, command), (due_ns, q, _) in zip(bench.commands, bench.executed):
        assert due_ns == sent_ns + PERIOD
        np.testing.assert_array_equal(command.sample(due_ns)[0], q)
        assert np.all(command.velocities[-1] == 0)
    assert_executed_inside_limits(bench.executed, START)
    worst = max(np.abs(q - bench.goal(t)).max() for t, q, _ in bench.executed)
    assert worst < 5e-4


def test_a_step_of_the_plan_is_approached_without_overshoot():
    bench = Bench()
    bench.run(5)
    assert bench.choose(MuxMode.POLICY)[0]
    bench.run(10)
    bench.goal = lambda t: START + [0.3, -0.3, 0.01]
    bench.run(150)
    assert bench.mode == MuxMode.POLICY
    assert_executed_inside_limits(bench.executed, START)
    way = np.array([(q - START) / [0.3, -0.3, 0.01] for _, q, _ in bench.executed])
    assert way.max() < 1.001
    np.testing.assert_allclose(way[-1], 1.0, atol=1e-6)
    # As fast as the limits allow: 2·sqrt(0.3 / 10) s, and 0.1 s for the jerk, and some ticks.
    assert np.argmax(way[:, 0] > 0.999) < 10 + 50


def test_where_no_way_is_found_the_arm_holds_and_says_so(monkeypatch):
    bench = moving_bench()

    def no_way(*_):
        raise ArithmeticError('ruckig finds no way')
    monkeypatch.setattr(Chase, 'segment', no_way)
    bench.run(60)
    assert bench.mode == MuxMode.HOLD
    assert bench.mux.machine.reason == 'ruckig finds no way'
    assert not np.any(bench.executed[-1][2])
    assert_executed_inside_limits(bench.executed, START)


def test_policy_needs_joint_states_and_a_source_and_names_both():
    bench = Bench()
    success, message = bench.choose(MuxMode.POLICY)
    assert not success
    assert 'joint_states (none received)' in message and 'policy/joint_trajectory' in message
    assert bench.mode == MuxMode.HOLD


def test_a_joint_that_is_too_old_is_named():
    bench = Bench()
    bench.run(5)
    bench.joints_alive = False
    bench.run(30)
    for _ in range(3):
        bench.mux.take_joint_state(JOINTS[:2], START[:2], (), bench.now, bench.now, bench.now_s)
        bench.now += PERIOD
    success, message = bench.choose(MuxMode.POLICY)
    assert not success and 'fresh joint_states of grip (' in message


def moving_bench(**settings):
    bench = Bench(**settings)
    bench.run(5)
    bench.goal = sweep(bench.now)
    assert bench.choose(MuxMode.POLICY)[0]
    bench.run(40)
    assert bench.mode == MuxMode.POLICY and np.abs(bench.executed[-1][2]).max() > 0.3
    return bench


def test_a_silent_source_means_hold_within_the_timeout_for_good():
    bench = moving_bench()
    bench.policy_alive = False
    heard = bench.mux.sources.policy.received
    while bench.mode == MuxMode.POLICY:
        bench.run(1)
    assert bench.now_s - heard <= bench.mux.settings.source_timeout
    assert 'silent' in bench.mux.machine.reason
    count = len(bench.commands)
    bench.policy_alive = True
    bench.run(60)
    assert bench.mode == MuxMode.HOLD and len(bench.commands) == count
    assert_executed_inside_limits(bench.executed, START)
    assert np.all(bench.executed[-1][2] == 0)


def test_a_stamp_that_stands_still_means_hold():
    bench = moving_bench(max_rejections=1000)
    bench.policy_alive = False
    frozen = bench.now - PERIOD
    bench.run(40, lambda: bench.send_plan(stamp=frozen))
    assert bench.mode == MuxMode.HOLD
    assert bench.mux.sources.policy.counts.rejected['not_newer'] > 5


def test_rejections_in_a_row_mean_hold_and_are_counted():
    bench = moving_bench(max_rejections=3)
    bench.policy_alive = False
    bench.run(3, lambda: bench.send_plan(joints=('j1', 'j2', 'other')))
    assert bench.mode == MuxMode.HOLD
    assert bench.mux.sources.policy.counts.rejected['joints'] == 3
    assert 'unknown joints other; missing joints grip' in bench.mux.machine.reason


def test_old_joint_states_mean_hold():
    bench = moving_bench()
    bench.joints_alive = False
    bench.run(25)
    assert bench.mode == MuxMode.HOLD
    assert 'joint_states of j1, j2, grip' in bench.mux.machine.reason


def test_a_following_error_means_hold_and_names_the_joint():
    bench = moving_bench(max_following_error=0.2)
    bench.follows = False
    bench.run(60)
    assert bench.mode == MuxMode.HOLD
    assert "following error of 'j1'" in bench.mux.machine.reason


def test_a_joint_may_have_a_following_error_of_its_own():
    limits = replace(LIMITS, following_error=np.array([np.nan, 0.05, np.nan]))
    bench = moving_bench(robot=replace(ROBOT, limits=limits), max_following_error=9.0)
    bench.follows = False
    bench.run(60)
    assert bench.mode == MuxMode.HOLD
    assert "following error of 'j2'" in bench.mux.machine.reason
    assert 'more than 0.05' in bench.mux.machine.reason


@pytest.mark.parametrize('age', [0, 5, 14])
def test_a_following_error_is_judged_by_the_time_of_the_measurement(age):
    bench = Bench(max_following_error=0.02)
    past = []

    def measure_late(names, positions, velocities, stamp_ns, *now):
        past.append((positions, velocities, stamp_ns))
        Mux.take_joint_state(bench.mux, names, *past[max(0, len(past) - 1 - age)], *now)
    bench.mux.take_joint_state = measure_late
    bench.run(20)
    bench.goal = sweep(bench.now)
    assert bench.choose(MuxMode.POLICY)[0]
    bench.run(60)
    assert bench.mode == MuxMode.POLICY, bench.mux.machine.reason
    assert np.abs(bench.executed[-1][2]).max() > 0.5
    bench.follows = False
    bench.run(age + 30)
    assert bench.mode == MuxMode.HOLD and 'following error' in bench.mux.machine.reason


def test_an_arm_that_cannot_follow_is_no_longer_pressed_and_its_command_does_not_jump():
    bench = moving_bench(max_following_error=0.2)
    bench.follows = False
    bench.run(60)
    stuck = bench.measured
    assert bench.mode == MuxMode.HOLD and 'following error' in bench.mux.machine.reason
    bench.run(100)
    np.testing.assert_allclose(bench.executed[-1][1][:2], stuck[:2], atol=1e-6)
    assert not np.any(bench.executed[-1][2])
    assert_executed_inside_limits(bench.executed, START)


def test_a_measurement_far_away_from_the_command_moves_nothing():
    bench = moving_bench(max_following_error=0.2)
    bench.follows = False
    bench.measured = bench.executed[-1][1] + [1.0, 0, 0]
    bench.run(60)
    assert bench.mode == MuxMode.HOLD and 'following error' in bench.mux.machine.reason
    last = bench.commands[-1][1]
    assert np.abs(last.positions[-1] - last.positions[0])[0] < 0.1, 'a stop'
    assert_executed_inside_limits(bench.executed, START)


def test_one_wrong_position_moves_nothing():
    bench = moving_bench(max_following_error=0.2)
    measure = bench.mux.take_joint_state
    for number in range(6):
        bench.mux.take_joint_state = lambda names, q, *rest, n=number: measure(
            names, (q[0] + (-1) ** n * 0.7, *q[1:]), *rest)
        bench.run(1)
        bench.mux.take_joint_state = measure
        bench.run(5)
    assert bench.mode == MuxMode.POLICY
    assert_executed_inside_limits(bench.executed, START)


def test_a_position_that_stays_is_taken():
    bench = Bench()
    bench.run(5)
    bench.measured = START + [1.0, 0, 0]
    bench.run(2)
    assert bench.mux.joints.positions[0] == pytest.approx(START[0])
    bench.run(1)
    assert bench.mux.joints.positions[0] == pytest.approx(START[0] + 1.0)


def test_a_gripper_that_holds_something_is_no_following_error():
    bench = Bench(max_following_error=0.005)
    bench.run(5)
    assert bench.choose(MuxMode.POLICY)[0]
    bench.follows = False
    bench.goal = lambda t: START + [0, 0, 0.015]
    bench.run(50)
    assert bench.mode == MuxMode.POLICY


def test_missed_ticks_continue_on_the_braking_tail():
    bench = moving_bench()
    q_then, v_then = bench.executed[-1][1:]
    bench.now += 3 * PERIOD
    bench.run(20)
    assert bench.mux.skipped_ticks == 3
    dues = [due for due, _, _ in bench.executed]
    assert np.all(np.diff(dues) == PERIOD), 'executed has a gap'
    assert_executed_inside_limits(bench.executed, START)


@pytest.mark.parametrize('jump', [-5_000_000_000, 3_000_000_000])
def test_a_clock_jump_means_a_stop_and_hold(jump):
    bench = moving_bench()
    q_due, v_due = bench.executed[-1][1:]
    bench.now += jump
    tick = bench.mux.tick(bench.now, bench.now_s, jumped='clock jumped')
    assert bench.mode == MuxMode.HOLD and bench.mux.machine.reason == 'clock jumped'
    assert tick.command.times_ns[0] == bench.now
    np.testing.assert_allclose(tick.command.positions[0], q_due)
    np.testing.assert_allclose(tick.command.velocities[0], v_due)
    assert np.all(tick.command.velocities[-1] == 0)
    # The policy may go on after that, with the new clock.
    bench.executed.clear()
    bench.goal = lambda t: tick.command.positions[-1]
    bench.now += PERIOD
    bench.run(60)
    assert bench.choose(MuxMode.POLICY) == (True, 'POLICY')


def test_the_next_motion_starts_at_the_last_command_if_the_arm_is_near_it():
    bench = moving_bench(start_tolerance=0.05)
    bench.choose(MuxMode.HOLD)
    bench.run(50)
    rest = bench.executed[-1][1]
    bench.measured = rest + [0.03, 0.0, 0.0]
    bench.goal = lambda t: rest
    bench.run(3)
    assert bench.choose(MuxMode.POLICY)[0]
    bench.run(1)
    np.testing.assert_allclose(bench.commands[-1][1].positions[0], rest)


def test_the_next_motion_starts_where_the_arm_was_moved_by_others():
    bench = moving_bench(start_tolerance=0.05)
    bench.choose(MuxMode.HOLD)
    bench.run(50)
    bench.measured = bench.executed[-1][1] + [0.3, 0.0, 0.0]
    moved = bench.measured
    bench.goal = lambda t: moved
    bench.run(3)
    assert bench.choose(MuxMode.POLICY)[0]
    bench.run(1)
    np.testing.assert_allclose(bench.commands[-1][1].positions[0], moved)


def test_a_plan_that_begins_elsewhere_is_no_source():
    bench = Bench()
    bench.goal = lambda t: START + [1.0, 0.0, 0.0]
    bench.run(5)
    success, message = bench.choose(MuxMode.POLICY)
    assert not success and "'j1' would jump from 0.1 to 1.1" in message


def test_emergency_stop_brakes_latches_and_clears_only_to_hold():
    bench = moving_bench()
    bench.mux.take_emergency_stop(True, bench.now_s)
    bench.run(50)
    assert bench.mode == MuxMode.STOPPED
    assert_executed_inside_limits(bench.executed, START)
    assert np.all(bench.executed[-1][2] == 0)
    assert not bench.choose(MuxMode.POLICY)[0]
    assert bench.mux.clear_stop(bench.now_s) == (False, 'the emergency stop is still pressed')
    bench.mux.take_emergency_stop(False, bench.now_s)
    assert bench.mode == MuxMode.STOPPED
    assert bench.mux.clear_stop(bench.now_s)[0]
    assert bench.mode == MuxMode.HOLD
    count = len(bench.executed)
    bench.run(30)
    positions = np.array([q for _, q, _ in bench.executed[count - 1:]])
    np.testing.assert_allclose(positions, positions[:1].repeat(len(positions), 0))


def test_a_supervised_emergency_stop_starts_stopped_and_latches_on_silence():
    bench = Bench(emergency_stop_timeout=0.3)
    bench.run(5)
    assert bench.mode == MuxMode.STOPPED and not bench.commands
    assert bench.mux.clear_stop(bench.now_s) == (False, 'the emergency stop input is silent')
    bench.mux.take_emergency_stop(False, bench.now_s)
    assert bench.mux.clear_stop(bench.now_s)[0]
    assert bench.choose(MuxMode.POLICY)[0]
    bench.run(40)
    assert bench.mode == MuxMode.STOPPED
    assert 'not heard for 0.3 s' in bench.mux.machine.reason


def test_go_home_moves_gently_to_home_in_hold():
    bench = Bench(home_speed=0.25)
    bench.run(5)
    assert not bench.mux.go_home(bench.now_s)[0], 'nothing may move before a mode is chosen'
    bench.choose(MuxMode.HOLD)
    bench.run(5)
    assert bench.mux.go_home(bench.now_s)[0]
    bench.run(400)
    np.testing.assert_allclose(bench.executed[-1][1], ROBOT.home, atol=1e-8)
    fastest = np.max([np.abs(v) for _, _, v in bench.executed], axis=0)
    assert np.all(fastest <= 0.25 * LIMITS.velocity + 1e-9)
    count = len(bench.commands)
    bench.run(20)
    assert len(bench.commands) == count and bench.mode == MuxMode.HOLD


def test_go_home_right_behind_hold_is_not_lost():
    bench = Bench()
    bench.run(5)
    assert bench.choose(MuxMode.HOLD)[0]
    assert bench.mux.go_home(bench.now_s)[0], 'before any tick has sent the stop of HOLD'
    bench.run(400)
    np.testing.assert_allclose(bench.executed[-1][1], ROBOT.home, atol=1e-8)
    assert bench.mux.machine.reason == 'at home'


def test_a_source_chosen_right_behind_hold_is_approached_as_gently():
    bench = Bench(teleop_approach_speed=0.25)
    bench.policy_alive = False

    def teleoperate():
        bench.mux.take_teleop_plan(bench.message(), bench.now, bench.now_s)
    bench.goal = lambda t: START + [0.3, 0.0, 0.0]
    bench.run(5, teleoperate)
    assert bench.choose(MuxMode.HOLD)[0]
    assert bench.choose(MuxMode.TELEOP)[0], 'before any tick has sent the stop of HOLD'
    bench.run(150, teleoperate)
    np.testing.assert_allclose(bench.executed[-1][1], START + [0.3, 0.0, 0.0], atol=1e-6)
    fastest = np.max([np.abs(v) for _, _, v in bench.executed], axis=0)
    assert np.all(fastest <= 0.25 * LIMITS.velocity + 1e-9)


def test_a_fault_right_behind_a_request_still_stops_it():
    bench = Bench()
    bench.run(5)
    bench.choose(MuxMode.HOLD)
    bench.mux.go_home(bench.now_s)
    bench.mux.take_fault('something failed')
    bench.run(50)
    assert bench.mux.machine.reason == 'something failed'
    np.testing.assert_allclose(bench.executed[-1][1], START)


def test_set_mode_breaks_go_home_off():
    bench = Bench(home_speed=0.25)
    bench.run(5)
    bench.choose(MuxMode.HOLD)
    bench.run(5)
    bench.mux.go_home(bench.now_s)
    bench.run(20)
    bench.choose(MuxMode.HOLD)
    bench.run(100)
    assert np.abs(bench.executed[-1][1] - ROBOT.home).max() > 0.1
    assert np.all(bench.executed[-1][2] == 0)
    assert_executed_inside_limits(bench.executed, START)


def test_the_last_stop_is_sent_only_while_moving():
    bench = moving_bench()
    stop = bench.mux.last_stop(bench.now)
    assert np.all(stop.command.velocities[-1] == 0)
    idle = Bench()
    idle.run(5)
    idle.choose(MuxMode.HOLD)
    idle.run(5)
    assert idle.mux.last_stop(idle.now).command is None


@pytest.mark.parametrize('mode, expected', [(1, 'TELEOP needs'), (9, 'mode 9')])
def test_modes_that_do_not_exist_are_rejected_by_name(mode, expected):
    success, message = Bench().choose(mode)
    assert not success and expected in message


def point(t, q, v=None, a=()):
    return TrajectoryPoint(t, tuple(q), tuple(np.zeros(len(q)) if v is None else v), tuple(a))


@pytest.mark.parametrize('kind, changes, expected', [
    ('empty', {'points': ()}, 'no points'),
    ('joints', {'joints': ('j1', 'j1', 'j2')}, 'missing joints grip; a joint is named twice'),
    ('lengths', {'points': (point(PERIOD, START[:2]),)}, '2 positions, expected 3'),
    ('lengths', {'points': (point(PERIOD, START, (0.0,)),)}, '1 velocities, expected 3'),
    ('not_finite', {'points': (point(PERIOD, (0.1, np.nan, 0.02)),)}, "positions of 'j2'"),
    ('not_finite', {'points': (point(PERIOD, START, a=(0, 0, np.inf)),)}, 'accelerations'),
    ('times', {'points': (point(0, START),)}, 'above 0'),
    ('times', {'points': (point(PERIOD, START), point(PERIOD, START))}, 'increasing'),
    ('final_velocity', {'points': (point(PERIOD, START, (0, 0.1, 0)),)}, "velocity of 'j2'"),
    ('limits', {'points': (point(PERIOD, (0.1, -1.5, 0.02)),)}, "'j2' at -1.5 is outside -1 … 1"),
])
def test_a_message_is_rejected_whole_with_one_reason(kind, changes, expected):
    bench = Bench()
    bench.policy_alive = False
    bench.run(1)
    assert expected in bench.send_plan(**changes)
    counts = bench.mux.sources.policy.counts
    assert dict(counts.rejected) == {kind: 1} and counts.accepted == 0


def test_a_jump_of_the_running_plan_is_rejected_with_joint_and_figures():
    bench = moving_bench()
    far = tuple(point(PERIOD * (i + 1), (1.9, 0.0, 0.02)) for i in range(3))
    assert "'j1' would jump from " in bench.send_plan(points=far)
    assert dict(bench.mux.sources.policy.counts.rejected) == {'jump': 1}
    assert bench.mode == MuxMode.POLICY


def test_a_start_measured_just_outside_a_limit_is_commanded_at_the_limit():
    bench = Bench()
    bench.measured = np.array([2.01, -0.2, -0.0005])
    bench.run(3)
    bench.choose(MuxMode.HOLD)
    bench.run(5)
    np.testing.assert_array_equal(bench.commands[0][1].positions[-1], [2.0, -0.2, 0.0])


def test_an_arm_that_others_move_is_stopped_from_its_measured_motion():
    bench = Bench()
    bench.speed = np.array([1.0, 0.0, 0.0])
    bench.run(3, bench.moved_by_others)
    bench.choose(MuxMode.HOLD)
    bench.follows = False
    begin = bench.measured.copy()
    bench.run(30)
    q, v = bench.executed[0][1:]
    # At 100 rad/s³ it brakes with 1 rad/s² after a tick.
    assert v[0] == pytest.approx(0.995) and q[0] == pytest.approx(begin[0] + 0.01, abs=1e-4)
    assert not np.any(bench.executed[-1][2])


@pytest.mark.parametrize('speed', [2.0, -7.0, 1e300])
def test_a_velocity_that_the_positions_do_not_show_moves_nothing(speed):
    bench = Bench()
    bench.run(2)
    bench.choose(MuxMode.HOLD)
    bench.run(20)
    bench.follows = False
    bench.speed = np.array([speed, 0.0, 0.0])
    bench.choose(MuxMode.HOLD)
    bench.run(30)
    way = np.abs(bench.commands[-1][1].positions - START).max()
    assert way <= 0.5 * LIMITS.acceleration[0] * (PERIOD * 1e-9) ** 2 + 1e-6


def test_a_second_hold_after_a_rest_is_one_more_command_of_now():
    bench = Bench()
    bench.run(3)
    bench.choose(MuxMode.HOLD)
    bench.run(50)
    now = bench.now
    bench.choose(MuxMode.HOLD)
    bench.run(50)
    assert len(bench.commands) == len(bench.executed) == 2
    assert bench.executed[-1][0] == now + PERIOD


def test_a_second_hold_stops_an_arm_that_others_set_in_motion():
    bench = Bench()
    bench.run(2)
    bench.choose(MuxMode.HOLD)
    bench.run(20)
    bench.follows = False
    bench.speed = np.array([0.5, 0.0, 0.0])
    bench.run(3, bench.moved_by_others)
    bench.choose(MuxMode.HOLD)
    bench.run(30)
    assert bench.commands[-1][1].velocities[0][0] == pytest.approx(0.5)
    assert not np.any(bench.executed[-1][2])


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_limits_hold_whatever_comes_in(data):
    bench = Bench(max_following_error=9.0, max_rejections=5)
    bench.run(3)
    bench.choose(MuxMode.HOLD)
    bench.run(2)
    numbers = st.one_of(
        st.floats(-2.0, 2.0), st.floats(-0.3, 0.3), st.floats(width=32), st.integers(-9, 9))
    for _ in range(data.draw(st.integers(1, 8))):
        action = data.draw(st.sampled_from(['policy', 'plan', 'silence', 'late', 'stop', 'hold']))
        if action == 'policy':
            bench.policy_alive = True
            where = bench.executed[-1][1]
            bench.goal = lambda t, where=where: where
            bench.run(data.draw(st.integers(1, 4)))
            bench.choose(MuxMode.POLICY)
        elif action == 'plan':
            bench.policy_alive = False
            rows = data.draw(st.lists(
                st.lists(numbers, min_size=6, max_size=6), min_size=1, max_size=4))
            points = tuple(
                point(PERIOD * (2 * i + 1), np.clip(row[:3], LIMITS.lower, LIMITS.upper)
                      if data.draw(st.booleans()) else row[:3],
                      row[3:] if i + 1 < len(rows) else (0, 0, 0))
                for i, row in enumerate(rows))
            bench.run(data.draw(st.integers(1, 15)), lambda: bench.send_plan(points=points))
        elif action == 'silence':
            bench.policy_alive = False
            bench.run(data.draw(st.integers(1, 40)))
        elif action == 'late':
            bench.now += PERIOD * data.draw(st.integers(1, 8))
        elif action == 'stop':
            bench.mux.take_emergency_stop(True, bench.now_s)
            bench.mux.take_emergency_stop(False, bench.now_s)
            bench.run(data.draw(st.integers(1, 5)))
            bench.mux.clear_stop(bench.now_s)
        else:
            bench.choose(MuxMode.HOLD)
        bench.run(data.draw(st.integers(0, 10)))
    bench.choose(MuxMode.HOLD)
    bench.run(60)
    assert_executed_inside_limits(bench.executed, START)
    for _, command in bench.commands:
        assert np.all(command.positions <= LIMITS.upper + 1e-9)
        assert np.all(command.positions >= LIMITS.lower - 1e-9)
        assert not np.any(command.velocities[-1])


@pytest.mark.parametrize('kind, offset', [
    ('future', 60_000_000), ('stale', -250_000_000)])
def test_stamps_far_from_now_are_rejected(kind, offset):
    bench = Bench()
    bench.send_plan(stamp=bench.now + offset)
    assert dict(bench.mux.sources.policy.counts.rejected) == {kind: 1}


def test_a_plan_whose_last_point_is_past_is_rejected():
    bench = Bench()
    assert 'past' in bench.send_plan(
        stamp=bench.now - 100_000_000, points=(point(PERIOD, START),))


def test_joint_order_of_a_message_is_free():
    bench = Bench()
    bench.policy_alive = False
    bench.run(2)
    mixed = tuple(point(PERIOD * (i + 2), START[[2, 0, 1]]) for i in range(3))
    assert bench.send_plan(joints=('grip', 'j1', 'j2'), points=mixed) is None


def test_a_plan_without_velocities_is_taken():
    bench = Bench()
    points = tuple(point(PERIOD * (i + 2), START, ()) for i in range(3))
    assert bench.send_plan(points=points) is None


def boxed_bench(home_offset=None):
    """
    Return a bench whose robot may go 0.05 m around its start, and moving joint 2 leads out.

    The embodiment's home is the start plus `home_offset`.
    """
    robot = load_embodiment('sim_left')
    arm = ArmKinematics(robot, robot.arms[0])
    home = arm.place(robot.home[:6])
    robot = replace(robot, base_frame=robot.arms[0].base_frame,
                    workspace=Workspace(home - 0.05, home + 0.05))
    bench = Bench(robot=robot if home_offset is None else replace(
        robot, home=robot.home + home_offset))
    bench.measured, bench.speed = robot.home.copy(), np.zeros(7)
    bench.goal = lambda t: robot.home
    return bench, robot, lambda q: float(np.max(np.abs(arm.place(q[:6]) - home))) - 0.05


def test_a_plan_that_leaves_the_workspace_is_rejected_with_arm_axis_value_and_bound():
    bench, robot, _ = boxed_bench()
    bench.run(3)
    out = robot.home + [0.0, 0.4, 0, 0, 0, 0, 0]
    bench.goal = lambda t: out
    reason = bench.send_plan()
    assert re.fullmatch(
        r"it would lead the left tool at [xyz] = -?\d\.\d{3} m, (below|above) the workspace's "
        r'-?\d\.\d{3} m', reason)
    assert bench.mux.sources.policy.counts.rejected == {'workspace': 1}


def test_a_plan_on_which_the_gate_would_leave_the_workspace_is_kept_inside():
    """The plan's points are inside; an arm that lags behind them would cut a corner outside."""
    bench, robot, outside = boxed_bench()
    bench.run(3)
    assert bench.choose(MuxMode.POLICY)[0]
    bench.policy_alive = False
    for side in (1, -1) * 6:
        far = robot.home + [side * 0.12, side * 0.1, 0, 0, 0, 0, 0]
        points = tuple(point(PERIOD * (2 * i + 2), far) for i in range(2))
        bench.run(8, lambda: bench.send_plan(points=points))
    assert all(outside(q) <= 1e-6 for _, q, _ in bench.executed)


def test_an_arm_outside_the_workspace_comes_back_by_a_plan_and_goes_no_further_out():
    bench, robot, outside = boxed_bench()
    start = robot.home + [0.0, 0.4, 0, 0, 0, 0, 0]
    bench.measured = start.copy()
    bench.goal = lambda t: start
    bench.run(3)
    assert outside(start) > 0.01
    assert bench.send_plan(points=tuple(
        point(PERIOD * (i + 1), start + [0, 0.1, 0, 0, 0, 0, 0]) for i in range(3))) is not None
    bench.run(1)
    begin = bench.now
    bench.goal = lambda t: start + (robot.home - start) * min(1, max(0, (t - begin) / 2e9))
    assert bench.choose(MuxMode.POLICY)[0]
    bench.run(260)
    assert bench.mode == MuxMode.POLICY
    out = [outside(q) for _, q, _ in bench.executed]
    assert np.all(np.diff(np.maximum(out, 0)) <= 1e-6) and out[-1] < 0


def test_go_home_is_broken_off_where_the_workspace_is_in_its_way():
    offset = np.array([0.0, 0.4, 0, 0, 0, 0, 0])
    bench, robot, outside = boxed_bench(offset)
    bench.run(3)
    bench.choose(MuxMode.HOLD)
    bench.run(3)
    success, message = bench.mux.go_home(bench.now_s)
    assert not success and 'home itself has the left tool at' in message
    # Home inside, the way there not: past the corner of the box.
    bench, robot, outside = boxed_bench(offset)
    bench.mux._home_breach = None
    bench.run(3)
    bench.choose(MuxMode.HOLD)
    bench.run(3)
    assert bench.mux.go_home(bench.now_s)[0]
    bench.run(400)
    assert 'go_home broken off: on its way is the left tool' in bench.mux.machine.reason
    assert max(outside(q) for _, q, _ in bench.executed) <= 1e-6
    assert not np.any(bench.executed[-1][2])


def gripping_bench():
    """Return a bench that was told to close its gripper and holds something at 0.02."""
    bench = Bench()
    bench.run(5)
    bench.goal = lambda t: START
    assert bench.choose(MuxMode.POLICY)[0]
    bench.goal = lambda t: START * [1, 1, 0]
    bench.follows = False
    bench.run(60)
    bench.choose(MuxMode.HOLD)
    bench.run(100)
    np.testing.assert_allclose(bench.executed[-1][1], START * [1, 1, 0], atol=1e-9)
    return bench


def test_a_gripper_that_holds_something_keeps_its_command_when_motion_begins_again():
    bench = gripping_bench()
    assert bench.choose(MuxMode.POLICY)[0]
    bench.run(1)
    assert bench.commands[-1][1].positions[0][2] == pytest.approx(0.0, abs=1e-9)


def test_a_gripper_that_was_moved_meanwhile_begins_where_it_is():
    bench = gripping_bench()
    bench.measured = START * [1, 1, 1.9]
    bench.goal = lambda t: bench.measured
    bench.run(3)
    assert bench.choose(MuxMode.POLICY)[0]
    bench.run(1)
    assert bench.commands[-1][1].positions[0][2] == pytest.approx(0.038)


def test_a_controller_that_does_not_answer_is_named_and_its_loss_means_hold():
    bench = moving_bench()
    bench.mux.take_controller_faults('grippers', ('action server /grip (none is there)',))
    bench.run(1)
    assert bench.mode == MuxMode.HOLD
    assert bench.mux.machine.reason == 'lost action server /grip (none is there)'
    bench.run(60)
    bench.goal = lambda t, q=bench.executed[-1][1]: q
    bench.run(5)
    success, message = bench.choose(MuxMode.POLICY)
    assert not success and 'POLICY needs action server /grip' in message
    bench.mux.take_controller_faults('grippers', ())
    assert bench.choose(MuxMode.POLICY)[0]


@pytest.mark.parametrize('was_lost', [False, True])
def test_a_controller_that_was_lost_in_hold_is_begun_with_where_the_arm_is(was_lost):
    """A new controller begins at the measured position, not at a command of the one before."""
    bench = moving_bench()
    assert bench.choose(MuxMode.HOLD)[0]
    bench.run(60)
    last = bench.executed[-1][1].copy()
    bench.measured = last + [0.03, 0.0, 0.0]  # inside the tolerance of 0.05
    if was_lost:
        bench.mux.take_controller_faults('controllers', ('an active controller (arm)',))
    bench.run(5)
    bench.mux.take_controller_faults('controllers', ())
    bench.goal = lambda t: bench.measured
    bench.run(5)
    assert bench.choose(MuxMode.POLICY)[0]
    bench.run(1)
    begin = bench.commands[-1][1].positions[0]
    np.testing.assert_allclose(begin, bench.measured if was_lost else last, atol=1e-4)


def test_a_stop_moves_nothing_and_a_motion_does():
    bench = Bench()
    bench.run(5)
    bench.choose(MuxMode.HOLD)
    assert not bench.mux.tick(bench.now, bench.now_s).moves
    bench.now += PERIOD
    bench.run(3)
    assert bench.choose(MuxMode.POLICY)[0]
    assert bench.mux.tick(bench.now, bench.now_s).moves


@pytest.mark.parametrize('value', [1e9, -57.3, np.nan, np.inf])
def test_positions_that_make_no_sense_are_no_measurement(value):
    bench = moving_bench()
    measure = bench.mux.take_joint_state
    bench.mux.take_joint_state = lambda names, q, *rest: measure(names, (q[0], value, q[2]), *rest)
    bench.run(40)
    assert bench.mode == MuxMode.HOLD
    assert "joint_states make no sense: 'j2' is at" in bench.mux.machine.reason
    success, message = bench.choose(MuxMode.POLICY)
    assert not success and 'sound joint_states' in message
    bench.mux.take_joint_state = measure
    bench.goal = lambda t, q=bench.executed[-1][1]: q
    bench.run(40)
    assert bench.choose(MuxMode.POLICY)[0]
    assert_executed_inside_limits(bench.executed, START)


def test_an_arm_that_stands_means_hold_and_the_next_motion_begins_where_it_is():
    bench = Bench()
    bench.run(5)
    bench.goal = sweep(bench.now + 10 * PERIOD)
    assert bench.choose(MuxMode.POLICY)[0]
    bench.run(40)
    bench.follows, bench.speed = False, np.zeros(3)
    stood, since = bench.measured.copy(), bench.now
    while bench.mode == MuxMode.POLICY:
        bench.run(1)
        assert bench.now - since < 500_000_000
    assert 'stands still' in bench.mux.machine.reason
    bench.run(60)
    bench.measured = stood + [0.02, 0.0, 0.0]  # nearer than start_tolerance to its last command
    bench.run(5)
    bench.goal = lambda _: bench.measured
    bench.run(5)
    assert bench.choose(MuxMode.POLICY)[0], bench.mux.machine.reason
    bench.run(1)
    np.testing.assert_allclose(
        bench.commands[-1][1].positions[0][:2], bench.measured[:2], atol=1e-9)


def test_joint_states_that_come_late_are_no_arm_that_stands():
    bench = Bench(joint_state_timeout=0.8)
    bench.run(5)
    bench.goal = sweep(bench.now + 10 * PERIOD)
    assert bench.choose(MuxMode.POLICY)[0]
    bench.run(40)
    bench.joints_alive = False
    bench.run(50)  # the arm would have moved on for 0.5 s
    bench.joints_alive = True
    bench.run(40)
    assert bench.mode == MuxMode.POLICY, bench.mux.machine.reason


def test_the_policy_is_refused_while_something_else_moves_the_arm():
    bench = Bench()
    bench.run(5)
    bench.speed = np.array([0.3, 0.0, 0.0])
    bench.goal = lambda _: bench.measured
    bench.run(20, bench.moved_by_others)
    success, message = bench.choose(MuxMode.POLICY)
    assert not success and "an arm at rest ('j1' moves at 0.3" in message
    bench.speed = np.zeros(3)
    bench.run(5)
    assert bench.choose(MuxMode.POLICY)[0]


@pytest.mark.parametrize('seconds, mode', [(0.3, MuxMode.POLICY), (0.7, MuxMode.HOLD)])
def test_a_mux_that_stood_still_begins_again_gently_or_holds(seconds, mode):
    bench = Bench(source_timeout=2.0, joint_state_timeout=2.0)
    bench.run(5)
    bench.goal = sweep(bench.now)
    assert bench.choose(MuxMode.POLICY)[0]
    bench.run(30)
    before = bench.commands[-1][1]
    bench.measured, bench.speed = before.positions[-1], np.zeros(3)
    bench.now += round(seconds * 1e9) // PERIOD * PERIOD
    count = len(bench.executed)
    bench.run(60)
    assert bench.mode == mode
    if mode == MuxMode.HOLD:
        assert 'the mux itself stood still for 0.7' in bench.mux.machine.reason
    last = bench.executed[count]
    for now in bench.executed[count + 1:]:
        if now[0] == last[0] + PERIOD:
            assert np.all(np.abs(now[2] - last[2]) <= LIMITS.acceleration * 0.01 + 1e-7)
            assert np.all(np.abs(now[1] - last[1]) <= LIMITS.velocity * 0.01 + 1e-9)
        last = now


@pytest.mark.parametrize('column', range(3))
@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_no_number_that_is_not_finite_leaves_the_mux_whatever_its_files_say(column, value):
    velocity = LIMITS.velocity.copy()
    velocity[column] = value
    bench = Bench(replace(ROBOT, limits=replace(LIMITS, velocity=velocity)))
    bench.run(5)
    bench.goal = sweep(bench.now)
    granted, _ = bench.choose(MuxMode.POLICY)
    bench.run(50)
    assert bench.commands or not granted or 'finite' in bench.mux.machine.reason
    for _, command in bench.commands:
        assert np.isfinite(command.positions).all() and np.isfinite(command.velocities).all()
