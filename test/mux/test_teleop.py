"""Teleoperation in the mux: sources, takeover, dead-man button, and switches without a jump."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from support import two_joints
from support.motion_limits import assert_points_inside_limits
from support.two_joints import JOINTS, PERIOD, START

from lingbot_va_ros.motion.trajectory import TrajectoryMessage, TrajectoryPoint
from lingbot_va_ros.mux.joystick import JoyMessage
from lingbot_va_ros.mux.leader_arm import LeaderJoint
from lingbot_va_ros.mux.modes import MuxMode
from lingbot_va_ros.mux.mux import Mux
from lingbot_va_ros.mux.settings import MuxSettings

LIMITS = replace(
    two_joints.LIMITS, jerk=np.array([200.0, 200.0, 20.0]),
    stop_jerk=np.array([1000.0, 1000.0, 100.0]))
ROBOT = replace(two_joints.ROBOT, limits=LIMITS)
T = PERIOD * 1e-9


class Stage:
    """A mux, a robot that follows at once, a policy, a leader arm and a jogging program."""

    def __init__(self, leader_map=None, **changes):
        self.mux = Mux(ROBOT, replace(MuxSettings(), **changes), PERIOD, leader_map)
        self.now = 1_000_000_000_000
        self.measured, self.speed = START.copy(), np.zeros(3)
        self.policy = lambda t: START
        self.leader = None  # function of time, or None while it is silent
        self.leader_names = JOINTS
        self.leader_every = 2
        self.jog = None
        self.button = None
        self.lie = None  # what joint states say instead of the truth
        self.executed, self.commands = [], []

    @property
    def now_s(self):
        return self.now * 1e-9

    @property
    def mode(self):
        return self.mux.machine.mode

    def plan(self, goal, count):
        points = []
        for index in range(1, count + 1):
            after = 2 * PERIOD * index
            ahead = goal(self.now + after)
            speed = (np.asarray(goal(self.now + after + 1000))
                     - np.asarray(goal(self.now + after - 1000))) / 2e-6
            points.append(TrajectoryPoint(
                after, tuple(ahead), tuple(speed if index < count else 0 * speed)))
        return TrajectoryMessage(self.now, JOINTS, tuple(points))

    def send_leader(self, stamp=None):
        return self.mux.take_leader_state(
            self.leader_names, tuple(self.leader(self.now)),
            self.now if stamp is None else stamp, self.now, self.now_s)

    def run(self, ticks):
        for _ in range(ticks):
            number = self.now // PERIOD
            self.mux.take_joint_state(
                JOINTS, self.measured if self.lie is None else [self.lie] * 3, self.speed,
                self.now, self.now, self.now_s)
            if self.policy and number % 2 == 0:
                self.mux.take_policy_plan(self.plan(self.policy, 10), self.now, self.now_s)
            if self.leader and number % self.leader_every == 0:
                self.send_leader()
            if self.jog and number % 2 == 1:
                self.mux.take_teleop_plan(self.plan(self.jog, 3), self.now, self.now_s)
            if self.button is not None:
                self.mux.take_joy(
                    JoyMessage(self.now, (), [0, self.button]), self.now, self.now_s)
            tick = self.mux.tick(self.now, self.now_s)
            if tick.command is not None:
                self.commands.append(tick.command)
            self.executed += tick.executed
            if tick.executed:
                self.measured, self.speed = tick.executed[-1][1:]
            self.now += PERIOD

    def choose(self, mode):
        return self.mux.set_mode(mode, self.now, self.now_s)

    def assert_bumpless(self):
        """Assert that executed commands keep all limits, that of jerk included."""
        assert_points_inside_limits(self.executed, START, LIMITS, T)


def swing(begin, rate=2.0, width=(0.5, 0.3, 0.006)):
    def goal(t_ns):
        return START + np.array(width) * (1 - np.cos(rate * max(0.0, (t_ns - begin) * 1e-9)))
    return goal


def teleop_by_leader(**changes):
    stage = Stage(**changes)
    stage.leader = lambda t: START
    stage.run(5)
    assert stage.choose(MuxMode.TELEOP) == (True, 'TELEOP')
    return stage


def test_teleop_needs_a_source_and_names_both():
    stage = Stage()
    stage.run(5)
    success, message = stage.choose(MuxMode.TELEOP)
    assert not success and 'teleop/joint_trajectory: no acceptable message' in message
    stage.leader, stage.leader_names = (lambda t: START), ('a', 'b', 'c')
    stage.run(5)
    success, message = stage.choose(MuxMode.TELEOP)
    assert not success and stage.mode == MuxMode.HOLD


def test_two_teleoperation_sources_at_once_are_rejected():
    stage = Stage()
    stage.leader = stage.jog = lambda t: START
    stage.run(5)
    success, message = stage.choose(MuxMode.TELEOP)
    assert not success and 'both teleop/joint_trajectory and teleop/joint_states' in message


def test_a_leader_arm_is_followed():
    stage = teleop_by_leader()
    stage.run(30)
    stage.leader = swing(stage.now)
    stage.run(400)
    assert stage.mode == MuxMode.TELEOP
    stage.assert_bumpless()
    late = max(np.abs(q - stage.leader(due))[:2].max() for due, q, _ in stage.executed[60:])
    assert late < 0.06  # rad; at up to 1 rad/s


def test_a_leader_that_trembles_at_rest_moves_nothing():
    noise = np.random.default_rng(5)
    stage = teleop_by_leader()
    stage.leader = lambda t: START + np.round(noise.normal(0, 0.4, 3)) * [1e-3, 5e-4, 1e-5]
    stage.run(300)
    assert stage.mode == MuxMode.TELEOP
    assert max(np.abs(v).max() for _, _, v in stage.executed[-250:]) < 1e-3


def test_a_jogging_program_is_followed():
    stage = Stage()
    stage.jog = lambda t: START
    stage.run(6)
    assert stage.choose(MuxMode.TELEOP) == (True, 'TELEOP')
    stage.jog = swing(stage.now + 20 * PERIOD)
    stage.run(200)
    assert stage.mode == MuxMode.TELEOP
    stage.assert_bumpless()
    # The plans are short: they are followed as late as commands are announced, at 1 rad/s.
    assert max(np.abs(q - stage.jog(due)).max() for due, q, _ in stage.executed[40:]) < 0.06


def test_a_jogging_program_may_send_one_point_that_moves_on():
    stage = Stage()
    stage.run(3)
    one = TrajectoryMessage(
        stage.now, JOINTS, (TrajectoryPoint(2 * PERIOD, tuple(START), (0.1, 0.0, 0.0)),))
    assert stage.mux.take_teleop_plan(one, stage.now, stage.now_s) is None
    assert 'last velocity' in stage.mux.take_policy_plan(one, stage.now, stage.now_s)


def test_the_mismatch_to_the_leader_is_closed_at_a_bounded_speed_before_it_is_tracked():
    stage = Stage(teleop_approach_speed=0.1)
    away = START + [1.0, -0.5, 0.01]
    stage.leader = lambda t: away
    stage.run(5)
    assert stage.choose(MuxMode.TELEOP)[0]
    stage.run(800)
    fastest = np.max([np.abs(v) for _, _, v in stage.executed], axis=0)
    assert np.all(fastest <= 0.1 * LIMITS.velocity + 1e-9)
    np.testing.assert_allclose(stage.executed[-1][1], away, atol=1e-4)
    stage.assert_bumpless()
    stage.leader = lambda t, begin=stage.now: away - [min(1.0, (t - begin) * 1e-9), 0, 0]
    stage.run(100)
    assert stage.executed[-10][2][0] < -0.9, 'tracked at full speed'


def test_a_leader_that_is_too_far_away_is_refused_and_one_that_runs_ahead_means_hold():
    stage = Stage(teleop_max_distance=0.3, speed_scale=0.05)
    stage.leader = lambda t: START + [0.4, 0.0, 0.02]
    stage.run(5)
    success, message = stage.choose(MuxMode.TELEOP)
    assert not success
    assert "teleop/joint_states near the arm: 'j1' would lead 0.4 away" in message
    assert 'teleop_max_distance is 0.3' in message
    stage.leader = lambda t: START + [0.2, 0.0, 0.02]
    stage.run(5)
    assert stage.choose(MuxMode.TELEOP)[0]
    stage.run(20)
    stage.leader = swing(stage.now, 2.0, (-0.6, 0.0, 0.0))
    stage.run(100)
    assert stage.mode == MuxMode.HOLD and "'j1' would lead" in stage.mux.machine.reason
    stage.assert_bumpless()


def test_the_joint_map_scales_turns_and_shifts_and_leaves_a_joint_alone():
    stage = Stage({'j1': LeaderJoint('a', scale=0.5, sign=-1, offset=0.2),
                   'j2': LeaderJoint('b'), 'grip': LeaderJoint('')})
    stage.leader_names = ('other', 'b', 'a')
    stage.leader = lambda t: (9.0, -0.3, 0.4)
    stage.run(5)
    assert stage.choose(MuxMode.TELEOP)[0]
    stage.run(300)
    np.testing.assert_allclose(stage.executed[-1][1], [0.0, -0.3, 0.02], atol=1e-4)


def test_a_leader_beyond_the_limits_leads_to_the_limit():
    stage = teleop_by_leader()
    stage.leader = lambda t, begin=stage.now: START + [0, min(2.0, (t - begin) * 1e-9), 0]
    stage.run(400)
    assert stage.mode == MuxMode.TELEOP
    assert stage.executed[-1][1][1] == pytest.approx(1.0, abs=1e-4)
    assert max(q[1] for _, q, _ in stage.executed) <= 1.0 + 1e-9


@pytest.mark.parametrize('how', ['silent', 'frozen stamps', 'jumping', 'not a number'])
def test_a_lost_leader_means_hold_in_time(how):
    stage = teleop_by_leader()
    stage.leader = swing(stage.now)
    stage.run(60)
    heard = stage.now
    if how == 'silent':
        stage.leader = None
    elif how == 'frozen stamps':
        frozen, send = stage.now - 2 * PERIOD, stage.send_leader
        stage.send_leader = lambda: send(stamp=frozen)
    elif how == 'jumping':
        stage.leader = lambda t: START - [1.5, 0, 0]
    else:
        stage.leader = lambda t: (0.1, np.nan, 0.02)
    while stage.mode == MuxMode.TELEOP:
        stage.run(1)
    assert (stage.now - heard) * 1e-9 <= stage.mux.settings.source_timeout
    stage.leader = lambda t: START
    stage.run(60)
    assert stage.mode == MuxMode.HOLD, 'kept until set_mode'
    stage.assert_bumpless()


def test_taking_over_and_giving_back_while_moving_makes_no_jump():
    stage = Stage(teleop_approach_speed=0.5)
    stage.leader = lambda t: START
    stage.run(5)
    stage.policy = swing(stage.now + 5 * PERIOD)
    assert stage.choose(MuxMode.POLICY)[0]
    for mode in (MuxMode.TELEOP, MuxMode.POLICY) * 3:
        stage.run(25)
        assert np.abs(stage.executed[-1][2]).max() > 0.1
        # The policy plans from where the arm is, the leader rests somewhere near.
        q, v = stage.executed[-1][1:]
        base = stage.now + 5 * PERIOD

        def policy(t, q=q, base=base):
            return swing(base, 2.5, (-0.3, 0.2, 0.005))(t) - START + q
        # The one that does not move the arm gets ready, and gets it.
        if mode == MuxMode.POLICY:
            stage.policy = policy
        else:
            stage.leader = lambda t, q=q: np.clip(q + [0.2, 0.1, 0], LIMITS.lower, LIMITS.upper)
        stage.run(2)
        assert stage.choose(mode) == (True, mode.name)
    stage.run(60)
    stage.assert_bumpless()


def test_hold_asked_for_while_moving_is_a_stop_inside_the_jerk_limits():
    stage = teleop_by_leader()
    stage.leader = swing(stage.now)
    stage.run(80)
    assert np.abs(stage.executed[-1][2]).max() > 0.5
    stage.choose(MuxMode.HOLD)
    stage.run(60)
    stage.assert_bumpless()
    assert not np.any(stage.executed[-1][2])
    assert not np.any(stage.commands[-1].velocities[-1])


def test_an_emergency_stop_is_harder_than_that():
    ways = {}
    for how in ('hold', 'emergency'):
        stage = teleop_by_leader()
        stage.leader = swing(stage.now)
        stage.run(80)
        begin = stage.executed[-1][1]
        if how == 'hold':
            stage.choose(MuxMode.HOLD)
        else:
            stage.mux.take_emergency_stop(True, stage.now_s)
        stage.run(60)
        ways[how] = np.abs(stage.executed[-1][1] - begin)[0]
    assert ways['emergency'] < ways['hold']


def test_the_dead_man_button_is_needed_and_its_release_means_hold():
    stage = Stage(deadman_button=1)
    stage.leader = lambda t: START
    stage.run(5)
    success, message = stage.choose(MuxMode.TELEOP)
    assert not success and 'joy is silent' in message
    stage.button = 0
    stage.run(1)
    assert 'to be pressed' in stage.choose(MuxMode.TELEOP)[1]
    stage.button = 1
    stage.run(1)
    assert stage.choose(MuxMode.TELEOP)[0]
    stage.run(20)
    stage.button = 0
    stage.run(1)
    assert stage.mode == MuxMode.HOLD and 'released' in stage.mux.machine.reason
    stage.button = 1
    stage.run(30)
    assert stage.mode == MuxMode.HOLD, 'kept until set_mode'
    assert stage.choose(MuxMode.TELEOP)[0]
    stage.run(5)
    stage.button = None
    stage.run(25)
    assert stage.mode == MuxMode.HOLD and 'joy silent' in stage.mux.machine.reason


def test_a_button_that_joy_does_not_have_is_named():
    stage = Stage(deadman_button=5)
    stage.leader, stage.button = (lambda t: START), 1
    stage.run(5)
    assert 'joy has 2 buttons, none with the index 5' in stage.choose(MuxMode.TELEOP)[1]


def policy_with_leader(**changes):
    stage = Stage(**{'takeover_motion': 0.1, 'takeover_rest': 0.5, **changes})
    stage.leader = lambda t: START
    stage.run(5)
    assert stage.choose(MuxMode.POLICY)[0]
    return stage


def moved(stage, way, seconds=0.5):
    """Return a leader that moves from where it is by `way` rad of joint 1 and rests there."""
    begin, here = stage.now, np.array(stage.leader(stage.now))
    return lambda t: here + [way * min(1.0, (t - begin) * 1e-9 / seconds), 0, 0]


def test_a_leader_that_moves_takes_over_from_the_policy():
    stage = policy_with_leader()
    stage.run(100)
    stage.leader = moved(stage, 0.3)
    stage.run(60)
    assert stage.mode == MuxMode.TELEOP
    assert stage.mux.machine.reason == 'the teleoperation source was moved'
    stage.run(200)
    np.testing.assert_allclose(stage.executed[-1][1], START + [0.3, 0, 0], atol=3e-3)
    stage.assert_bumpless()


def test_small_motions_take_nothing_and_by_default_none_does():
    stage = policy_with_leader()
    stage.run(100)
    stage.leader = lambda t: START + [0.04 * np.sin(t * 5e-9), 0, 0]
    stage.run(300)
    assert stage.mode == MuxMode.POLICY
    stage = policy_with_leader(takeover_motion=0.0)
    stage.run(100)
    stage.leader = moved(stage, 0.5)
    stage.run(100)
    assert stage.mode == MuxMode.POLICY


def test_who_gives_the_arm_back_while_moving_does_not_take_it_again_by_that():
    stage = policy_with_leader()
    stage.run(100)
    stage.leader = moved(stage, 0.3)
    stage.run(60)
    assert stage.mode == MuxMode.TELEOP
    stage.policy = lambda t, q=START + [0.3, 0, 0]: q
    stage.run(200)
    stage.leader = moved(stage, 0.6, 1.5)
    stage.run(60)
    stage.policy = lambda t, q=stage.executed[-1][1]: q
    stage.run(2)
    assert stage.choose(MuxMode.POLICY)[0]
    stage.run(120)
    assert stage.mode == MuxMode.POLICY, 'still moving, not taken again'
    stage.run(60)
    stage.leader = moved(stage, -0.3)
    stage.run(60)
    assert stage.mode == MuxMode.TELEOP, 'rested and moved: taken'


def test_nothing_takes_over_from_hold_or_without_the_dead_man_button():
    stage = policy_with_leader(deadman_button=1)
    stage.button = 0
    stage.run(100)
    stage.leader = moved(stage, 0.3)
    stage.run(100)
    assert stage.mode == MuxMode.POLICY
    stage = policy_with_leader()
    stage.choose(MuxMode.HOLD)
    stage.run(100)
    stage.leader = moved(stage, 0.3)
    stage.run(100)
    assert stage.mode == MuxMode.HOLD


def test_only_set_mode_selects_the_policy():
    stage = policy_with_leader()
    stage.run(100)
    stage.leader = moved(stage, 0.3)
    stage.run(60)
    assert stage.mode == MuxMode.TELEOP
    stage.run(1000)
    assert stage.mode == MuxMode.TELEOP
    stage.leader = None
    stage.run(30)
    assert stage.mode == MuxMode.HOLD


def test_a_gripper_may_be_closed_from_one_action_to_the_next():
    stage = Stage()
    stage.run(5)
    assert stage.choose(MuxMode.POLICY)[0]
    stage.policy = lambda t: START * [1, 1, 0]
    stage.run(5)
    stage.policy = lambda t: START * [1, 1, 2]
    stage.run(100)
    assert stage.mode == MuxMode.POLICY and not stage.mux.sources.policy.counts.rejected
    np.testing.assert_allclose(stage.executed[-1][1], START * [1, 1, 2], atol=1e-6)
    stage.assert_bumpless()


@pytest.mark.parametrize('silent', range(1, 18, 2))
def test_an_old_measurement_of_the_own_motion_is_no_motion_to_start_from(silent):
    """The last joint states are from a motion that a stop has ended since."""
    stage = teleop_by_leader()
    stage.leader = swing(stage.now, 5.0, [0.3, 0.0, 0.375])
    stage.run(38)
    stage.lie = np.nan
    stage.run(silent)
    stage.choose(MuxMode.HOLD)
    stage.mux.go_home(stage.now_s)
    stage.run(1)
    stage.lie = None
    stage.run(40)
    stage.assert_bumpless()


finite = st.floats(-2.5, 2.5)
anything = st.one_of(finite, st.floats(allow_nan=True, allow_infinity=True))


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_limits_and_truth_of_the_mode_hold_whatever_the_sources_do(data):
    """Any leader, any switches, any stops: limits hold, and only set_mode selects POLICY."""
    stage = Stage(deadman_button=1, takeover_motion=0.2, max_following_error=9.0)
    stage.leader, stage.button = (lambda t: START), 1
    stage.run(3)
    for _ in range(data.draw(st.integers(1, 10))):
        action = data.draw(st.sampled_from([
            'teleop', 'policy', 'hold', 'stop', 'leader', 'wild', 'silence', 'button', 'late',
            'lie']))
        before = stage.mode
        if action in ('teleop', 'policy', 'hold'):
            here = stage.executed[-1][1] if stage.executed else START
            stage.policy = lambda t, here=here: here
            stage.run(2)
            before = stage.mode
            stage.choose(MuxMode[action.upper()])
        elif action == 'stop':
            stage.mux.take_emergency_stop(True, stage.now_s)
            assert stage.mode == MuxMode.STOPPED
            stage.run(data.draw(st.integers(1, 5)))
            assert stage.mode == MuxMode.STOPPED
            stage.mux.take_emergency_stop(False, stage.now_s)
            assert stage.mux.clear_stop(stage.now_s)[0] and stage.mode == MuxMode.HOLD
        elif action == 'leader':
            rate = data.draw(st.floats(0.1, 6.0))
            stage.leader = swing(stage.now, rate, [data.draw(finite) for _ in range(3)])
        elif action == 'wild':
            rows = data.draw(st.lists(
                st.lists(anything, min_size=3, max_size=3), min_size=1, max_size=5))
            stage.leader = lambda t, rows=rows: rows[t // PERIOD % len(rows)]
        elif action == 'silence':
            stage.leader = None if data.draw(st.booleans()) else (lambda t: START)
        elif action == 'button':
            stage.button = data.draw(st.sampled_from([0, 1, None]))
        elif action == 'lie':
            stage.lie = data.draw(st.sampled_from([np.nan, np.inf, 1e9, -1e300, 57.3]))
            stage.run(data.draw(st.integers(1, 30)))
            stage.choose(data.draw(st.sampled_from([MuxMode.HOLD, MuxMode.TELEOP])))
            stage.mux.go_home(stage.now_s)
            stage.run(data.draw(st.integers(1, 5)))
            stage.lie = None
        else:
            stage.now += PERIOD * data.draw(st.integers(1, 8))
            if stage.commands:  # the arm goes on along the braking tail
                stage.measured, stage.speed = stage.commands[-1].sample(stage.now)
        stage.run(data.draw(st.integers(0, 40)))
        if before != MuxMode.POLICY and action != 'policy':
            assert stage.mode != MuxMode.POLICY
    stage.choose(MuxMode.HOLD)
    stage.run(80)
    stage.assert_bumpless()
    for command in stage.commands:
        assert np.all(command.positions <= LIMITS.upper + 1e-9)
        assert np.all(command.positions >= LIMITS.lower - 1e-9)
        assert not np.any(command.velocities[-1])
