"""The command stream: each command continues the one before it, whenever a controller takes it."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from lingbot_va_ros.mux.command_stream import ANNOUNCED_PERIODS, CommandStream
from lingbot_va_ros.mux.goal import even_goal
from lingbot_va_ros.specs.embodiment import JointLimits

PERIOD = 10_000_000
LIMITS = JointLimits(
    lower=np.array([-2.0, -1.0]), upper=np.array([2.0, 1.0]), velocity=np.array([2.0, 2.0]),
    acceleration=np.array([10.0, 10.0]), jerk=np.full(2, 100.0))
START = np.array([0.1, -0.2])
BEGIN = 10 ** 12
goals = st.lists(st.lists(st.floats(-1.5, 1.5), min_size=2, max_size=2), min_size=1, max_size=5)


def stream_at(start=START, velocity=(0.0, 0.0), delay=0.0):
    stream = CommandStream(LIMITS, PERIOD, delay=delay)
    stream.begin(BEGIN, start, np.array(velocity))
    return stream


def towards(goal):
    return lambda _: (even_goal(np.asarray(goal, float)), 1.0)


def commands_to(stream, some_goals, ticks=9):
    """Return (tick, command) of a stream that follows goals for some ticks each."""
    sent = []
    for number in range(ticks * len(some_goals)):
        now = BEGIN + number * PERIOD
        sent.append((now, stream.follow(now, towards(some_goals[number // ticks]))))
    return sent


def assert_same_motion(one, other, begin_ns, end_ns):
    for time_ns in np.linspace(begin_ns, end_ns, 23).astype(int):
        for ours, theirs in zip(one.sample(int(time_ns)), other.sample(int(time_ns))):
            np.testing.assert_allclose(ours, theirs, atol=1e-7)


@settings(max_examples=30, deadline=None)
@given(goals, st.sampled_from([0.0, 0.01, 0.015, 0.03]))
def test_a_command_repeats_what_the_one_before_it_announced(some_goals, delay):
    sent = commands_to(stream_at(delay=delay), some_goals)
    announced_ns = (max(1, round(delay / 0.01 + 0.49)) + ANNOUNCED_PERIODS) * PERIOD
    for (before, earlier), (now, later) in zip(sent, sent[1:]):
        assert later.times_ns[0] == now and before + PERIOD == now
        assert_same_motion(earlier, later, now, before + announced_ns)


@settings(max_examples=30, deadline=None)
@given(goals, st.sampled_from([0.0, 0.01, 0.015, 0.03]), st.booleans())
def test_a_stop_joins_the_motion_that_the_controller_is_on(some_goals, delay, gentle):
    stream = stream_at(delay=delay)
    now, last = commands_to(stream, some_goals)[-1]
    now += PERIOD
    stop = stream.stop(now, gentle)
    assert stop.times_ns[0] == now and not np.any(stop.velocities[-1])
    assert_same_motion(last, stop, now, now + max(PERIOD, round(delay * 1e9)))


@settings(max_examples=30, deadline=None)
@given(goals)
def test_a_whole_command_is_inside_the_limits_and_ends_at_rest(some_goals):
    for now, command in commands_to(stream_at(), some_goals):
        times = np.arange(now, command.end_ns, PERIOD // 5)
        states = [command.sample(int(time_ns)) for time_ns in times]
        q, v = np.array([q for q, _ in states]), np.array([v for _, v in states])
        assert np.all((q >= LIMITS.lower - 1e-9) & (q <= LIMITS.upper + 1e-9))
        assert np.all(np.abs(v) <= LIMITS.velocity + 1e-9)
        gain = np.abs(np.diff(v, axis=0)).max(initial=0.0)
        assert gain <= 10.0 * PERIOD / 5 * 1e-9 + 1e-6
        assert not np.any(command.velocities[-1])
        # The cubic between two knots has its greatest accelerations at its ends.
        seconds = np.diff(command.times_ns)[:, None] * 1e-9
        v = command.velocities
        ways = 6 * np.diff(command.positions, axis=0) / seconds ** 2
        for ends in (ways - (4 * v[:-1] + 2 * v[1:]) / seconds,
                     (2 * v[:-1] + 4 * v[1:]) / seconds - ways):
            assert np.all(np.abs(ends) <= LIMITS.acceleration + 0.05)


@pytest.mark.parametrize('ticks', range(1, 40, 3))
def test_a_gentle_stop_of_an_accelerating_joint_keeps_its_velocity_limit(ticks):
    stream = stream_at()
    now, _ = commands_to(stream, [[1.9, 0.9]], ticks)[-1]
    stop = stream.stop(now + PERIOD, gentle=True)
    times = np.arange(now + PERIOD, stop.end_ns, PERIOD // 4)
    speeds = np.array([stop.sample(int(time_ns))[1] for time_ns in times])
    assert np.abs(speeds).max() <= 2.0 + 1e-9


def test_missed_ticks_continue_from_where_the_braking_tail_has_led():
    stream = stream_at()
    now, last = commands_to(stream, [[1.5, 0.9]], ticks=20)[-1]
    woken = now + 8 * PERIOD
    command = stream.follow(woken, towards([1.5, 0.9]))
    assert_same_motion(last, command, woken, woken + PERIOD)
    now, last = woken, command
    rested = last.end_ns + 37 * PERIOD
    command = stream.follow(rested, towards([1.5, 0.9]))
    np.testing.assert_allclose(command.positions[0], last.positions[-1])
    assert not np.any(command.velocities[0])


def test_a_stream_that_begins_in_motion_brakes_at_once():
    stream = stream_at(velocity=(1.0, 0.0))
    stop = stream.stop(BEGIN)
    assert stop.velocities[0] == pytest.approx([1.0, 0.0])
    # At 100 rad/s³, to 10 rad/s² in 0.1 s: v/A + A/J to rest, and half of that at v.
    assert stop.sample(BEGIN + PERIOD)[1][0] == pytest.approx(1.0 - 100.0 * 0.01 ** 2 / 2)
    assert stop.end_ns - BEGIN == pytest.approx(0.2e9, abs=10)
    assert stop.positions[-1][0] == pytest.approx(START[0] + 0.1, abs=1e-6)


def test_each_point_is_reported_once_when_no_command_changes_it_any_more():
    stream, reported, wanted = stream_at(), [], []
    for number in range(30):
        now = BEGIN + number * PERIOD
        reported += stream.executed(now)
        if number < 20:
            command = stream.follow(now, towards([0.5, 0.0]))
        elif number == 20:
            command = stream.stop(now)
        wanted.append((now + PERIOD, command.sample(now + PERIOD)[0]))
        reported += stream.executed(now + PERIOD)
    assert [time for time, _, _ in reported] == [
        time for time, _ in wanted][:len(reported)]
    for (_, q, _), (_, expected) in zip(reported, wanted):
        np.testing.assert_allclose(q, expected, atol=1e-9)
