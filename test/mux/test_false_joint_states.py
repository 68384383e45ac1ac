"""One false joint state never moves an arm: what the mux sends around it stays in the limits."""


from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from support.motion_limits import assert_points_inside_limits
from support.two_joints import JOINTS, LIMITS, PERIOD, ROBOT, START

from lingbot_va_ros.motion.trajectory import TrajectoryMessage, TrajectoryPoint
from lingbot_va_ros.mux.modes import MuxMode
from lingbot_va_ros.mux.mux import Mux
from lingbot_va_ros.mux.settings import MuxSettings


class Bench:
    """A mux whose arm follows at once, and a policy that swings around the start."""

    def __init__(self, **changed):
        self.mux = Mux(ROBOT, MuxSettings(**changed), PERIOD)
        self.now = 1_000_000_000_000
        self.begin = None  # of the policy's swing, ns
        self.measured, self.speed = START.copy(), np.zeros(3)
        self.executed = []

    @property
    def now_s(self):
        return self.now * 1e-9

    @property
    def mode(self):
        return self.mux.machine.mode

    def goal(self, time_ns):
        t = 0.0 if self.begin is None else max(0.0, (time_ns - self.begin) * 1e-9)
        return START + np.array([0.4, 0.3, 0.01]) * (1 - np.cos(3 * t))

    def plan(self):
        times = [PERIOD * 2 * (i + 1) for i in range(10)]
        return TrajectoryMessage(self.now, JOINTS, tuple(
            TrajectoryPoint(t, tuple(self.goal(self.now + t)), ()) for t in times))

    def measure(self, position=None, stamp=None, velocity=None):
        self.mux.take_joint_state(
            JOINTS, self.measured if position is None else position,
            self.speed if velocity is None else velocity,
            self.now if stamp is None else stamp, self.now, self.now_s)

    def run(self, ticks, measure=True):
        for number in range(ticks):
            if measure or number:
                self.measure()
            if (self.now // PERIOD) % 2 == 0:
                self.mux.take_policy_plan(self.plan(), self.now, self.now_s)
            tick = self.mux.tick(self.now, self.now_s)
            self.executed += tick.executed
            if tick.executed:
                self.measured, self.speed = tick.executed[-1][1:]
            self.now += PERIOD

    def assert_executed_inside_limits(self):
        assert_points_inside_limits(self.executed, START, LIMITS, PERIOD * 1e-9)


def resting_bench(**changed):
    bench = Bench(**changed)
    bench.run(5)
    assert bench.mux.set_mode(MuxMode.HOLD, bench.now, bench.now_s)[0]
    bench.run(20)
    return bench


def moving_bench(**changed):
    bench = Bench(**changed)
    bench.run(5)
    bench.begin = bench.now
    assert bench.mux.set_mode(MuxMode.POLICY, bench.now, bench.now_s)[0]
    bench.run(30)
    assert np.abs(bench.speed).max() > 0.3
    return bench


@pytest.mark.parametrize('ahead_ns', [1_000_000_000, 40_000_000, 0, -40_000_000])
@pytest.mark.parametrize('offset', [1.5, 0.45, 0.12, 0.06])
def test_go_home_after_one_false_message_begins_where_the_arm_is(ahead_ns, offset):
    bench = resting_bench()
    bench.measure(bench.measured + [offset, 0, 0], bench.now + ahead_ns)
    success, _ = bench.mux.go_home(bench.now_s)
    bench.run(300, measure=False)
    assert success and bench.mux.machine.reason == 'at home'
    bench.assert_executed_inside_limits()


@pytest.mark.parametrize('ahead_ns', [1_000_000_000, 40_000_000, 0])
@pytest.mark.parametrize('offset', [0.45, -0.45, 0.12])
def test_one_false_message_in_policy_changes_nothing(ahead_ns, offset):
    bench, undisturbed = moving_bench(), moving_bench()
    bench.now += 1_000_000
    bench.measure(bench.measured + [offset, 0, 0], bench.now + ahead_ns)
    bench.now -= 1_000_000
    bench.run(60)
    undisturbed.run(60)
    assert bench.mode == MuxMode.POLICY
    np.testing.assert_allclose(
        [q for _, q, _ in bench.executed], [q for _, q, _ in undisturbed.executed], atol=1e-12)


def test_a_small_following_limit_is_no_reason_to_believe_one_message():
    bench = moving_bench(max_following_error=0.1)
    bench.measure(bench.measured + [0.13, 0, 0])
    bench.run(40)
    assert bench.mode == MuxMode.POLICY


def test_messages_that_agree_are_believed_and_a_following_error_is_seen():
    bench = moving_bench()
    away = bench.measured + [0.45, 0, 0]
    for _ in range(8):
        bench.measured = away
        bench.run(1)
    assert bench.mode == MuxMode.HOLD and 'following error' in bench.mux.machine.reason
    bench.assert_executed_inside_limits()


def test_three_copies_of_one_message_are_one_message():
    bench = moving_bench()
    for _ in range(3):
        bench.measure(bench.measured + [0.45, 0, 0], bench.now + 10)
    bench.run(40)
    assert bench.mode == MuxMode.POLICY
    assert bench.mux.report(bench.now_s).joint_states.refused['outlier'] == 1


def test_a_publisher_of_zeros_between_the_good_messages_moves_nothing_and_is_named():
    bench = moving_bench()
    for _ in range(60):
        bench.run(1)
        bench.now -= 9_000_000
        bench.measure(np.zeros(3), bench.now)
        bench.now += 9_000_000
    assert bench.mode == MuxMode.POLICY
    bench.assert_executed_inside_limits()
    assert any(line.startswith("'j1' is at ") and line.endswith(' and at 0')
               for line in bench.mux.report(bench.now_s).joint_states.contradictions)


def test_a_publisher_of_zeros_whose_clock_is_ahead_leads_the_arm_nowhere():
    bench = moving_bench()
    for _ in range(200):
        bench.measure(np.zeros(3), bench.now + 20_000_000)
        bench.run(1)
        if bench.mode == MuxMode.HOLD:
            break
    told = bench.measured.copy()
    bench.run(100)
    np.testing.assert_allclose(bench.measured, told, atol=0.15)  # the way of a stop
    bench.assert_executed_inside_limits()


@pytest.mark.parametrize('stamps, reason', [
    (lambda now: now - 30_000_000_000, '(stamped 30.0'),
    (lambda now: 2_000_000_000_000 - now, "'j1' has a stamp that goes back by "),
    (lambda now: now + 800_000_000, "'j1' is stamped 0.800 s ahead: the clocks are not sync"),
    (lambda now: 5, "'j1' has a stamp that stands still"),
])
def test_wrong_stamps_mean_hold_and_no_policy(stamps, reason):
    bench = moving_bench()
    bench.run(1, measure=False)
    for _ in range(19):
        bench.measure(stamp=stamps(bench.now))
        bench.run(1, measure=False)
    assert bench.mode == MuxMode.HOLD
    assert reason in bench.mux.machine.reason
    bench.assert_executed_inside_limits()
    first = Bench()
    for _ in range(60):
        first.measure(stamp=stamps(first.now))
        first.run(1, measure=False)
    success, message = first.mux.set_mode(MuxMode.POLICY, first.now, first.now_s)
    assert not success and 'fresh joint_states of j1, j2, grip (' in message


def test_stamps_30_s_old_are_named_and_give_no_policy():
    bench = Bench()
    for _ in range(60):
        bench.measure(stamp=bench.now - 30_000_000_000)
        bench.run(1, measure=False)
    assert bench.mux.set_mode(MuxMode.POLICY, bench.now, bench.now_s) == (
        False, 'POLICY needs fresh joint_states of j1, j2, grip (stamped 30.01 s ago: late, or '
        'the clocks are not synchronized)')


def test_joint_states_that_fall_silent_are_called_old_and_not_late():
    bench = Bench()
    bench.run(20)
    lost = bench.mux.joints.lost(bench.now_s + 0.19, margin=0.02)
    assert 'are too old (0.' in lost and 'synchronized' not in lost


def test_stamp_0_means_that_the_message_has_none():
    bench = Bench()
    for _ in range(10):
        bench.measure(stamp=0)
        bench.run(1, measure=False)
    assert bench.mux.set_mode(MuxMode.POLICY, bench.now, bench.now_s)[0]


def test_a_publisher_whose_clock_was_set_back_a_little_is_heard_again():
    bench = moving_bench()
    for _ in range(30):
        bench.measure(stamp=bench.now - 100_000_000)
        bench.run(1, measure=False)
    assert bench.mode == MuxMode.POLICY


any_float = st.floats(-1e6, 1e6) | st.floats() | st.floats(-1.0, 1.0)
near = st.lists(st.floats(-0.6, 0.6), min_size=3, max_size=3).map(lambda row: START + row)
anywhere = st.lists(any_float, min_size=3, max_size=3)
stamps = (st.integers(-60_000_000, 60_000_000) | st.integers(-10 ** 12, 10 ** 12)
          | st.just(None))  # relative to now; None: the message has none


@pytest.mark.timeout(300)
@settings(max_examples=50, deadline=None)
@given(
    position=near | anywhere, velocity=anywhere | st.just([]), offset_ns=stamps,
    after=st.integers(0, 12), delay_ns=st.integers(0, PERIOD - 1), replaces=st.booleans(),
    request=st.sampled_from(['go_home', 'policy', 'hold', 'stop']),
    tolerance=st.sampled_from([0.0, 0.05]), moving=st.booleans())
def test_no_single_false_message_leads_a_command_out_of_the_limits(
        position, velocity, offset_ns, after, delay_ns, replaces, request, tolerance, moving):
    bench = (moving_bench if moving else resting_bench)(start_tolerance=tolerance)

    def ask():
        if request == 'go_home':
            bench.mux.go_home(bench.now_s)
        else:
            mode = {'policy': MuxMode.POLICY, 'hold': MuxMode.HOLD}.get(request, MuxMode.STOPPED)
            bench.mux.set_mode(mode, bench.now, bench.now_s)

    if after < 6:
        ask()
    bench.run(after)
    bench.now += delay_ns
    bench.measure(
        position, 0 if offset_ns is None else max(1, bench.now + offset_ns), velocity)
    bench.now -= delay_ns
    if after >= 6:
        ask()
    bench.run(20, measure=not replaces)
    ask()
    bench.run(40)
    bench.assert_executed_inside_limits()
