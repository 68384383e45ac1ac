"""Plan time against ROS time: conversions, ramps of the rate, and the limits of chunks."""

import numpy as np
import pytest

from lingbot_va_ros.motion.plan import Plan
from lingbot_va_ros.motion.splice import plan_from_actions
from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.motion.timeline import PaceLimit, Timeline

NOW = 1_700_000_000 * NANOSECONDS


def seconds(value):
    return round(value * NANOSECONDS)


def a_plan():
    actions = np.stack([np.sin(np.arange(40) / 5), np.cos(np.arange(40) / 7)], 1)
    return plan_from_actions(np.array([0.0, 1.0]), actions, 0.1, NOW, np.array([10.0, 10.0]))[0]


def test_plan_time_is_ros_time_to_the_nanosecond_until_a_scale_is_set():
    timeline = Timeline()
    assert timeline.to_plan(NOW + 7) == NOW + 7 == timeline.to_ros(NOW + 7)
    plan = a_plan()
    same = timeline.in_ros(plan)
    np.testing.assert_array_equal(same.times_ns, plan.times_ns)
    np.testing.assert_array_equal(same.velocities, plan.velocities)


@pytest.mark.parametrize('scale', [0.5, 0.25, 0.01])
def test_times_come_back(scale):
    timeline = Timeline()
    timeline.set_speed(scale, NOW)
    for after in (0, 0.01, 0.3, 2.0, 1000.0):
        ros = NOW + seconds(after)
        assert abs(timeline.to_ros(timeline.to_plan(ros)) - ros) <= 1 / scale
    later = NOW + seconds(10)
    passed = timeline.to_plan(later + seconds(8)) - timeline.to_plan(later)
    assert passed == pytest.approx(8 * scale * NANOSECONDS)


def test_the_past_never_changes():
    timeline = Timeline(lead=0.05)
    timeline.set_speed(0.3, NOW)
    times = [NOW + seconds(0.01 * i) for i in range(105)]
    before = [timeline.to_plan(time) for time in times]
    timeline.set_speed(0.9, NOW + seconds(1.0))
    timeline.set_limits(
        [PaceLimit(timeline.to_plan(NOW), timeline.to_plan(NOW) + seconds(9), 0.2)],
        NOW + seconds(1.0))
    assert [timeline.to_plan(time) for time in times] == before
    assert timeline.to_plan(NOW + seconds(1.5)) > before[-1]


def test_the_rate_changes_along_a_ramp():
    timeline = Timeline(largest_change=2.0)
    timeline.set_speed(0.1, NOW)
    times = [timeline.to_plan(NOW + seconds(0.01 * i)) for i in range(100)]
    rates = timeline.rates(np.array(times))
    assert rates[0] > 0.9 and rates[-1] == pytest.approx(0.1)
    assert np.abs(np.diff(rates)).max() <= 0.041


def test_a_chunk_is_slowed_down_from_its_first_action_to_its_last():
    timeline = Timeline()
    begin, end = NOW + seconds(2), NOW + seconds(3)
    timeline.set_limits([PaceLimit(begin, end, 0.25), PaceLimit(end, end + seconds(1), 0.5)], NOW)
    assert timeline.rate(NOW) == 1.0
    inside = timeline.rates(np.arange(begin, end, seconds(0.01)))
    assert inside.max() <= 0.25 + 1e-6 and inside[5:-5].min() == pytest.approx(0.25)
    second = timeline.rates(np.arange(end + 1, end + seconds(1), seconds(0.01)))
    assert second.max() <= 0.5 + 1e-6
    assert timeline.rate(end + seconds(9)) == pytest.approx(1.0)
    timeline.set_speed(0.5, NOW)  # limits are shares of the scale
    assert timeline.rates(np.arange(begin, end, seconds(0.01))).max() <= 0.125 + 1e-6
    timeline.set_limits([], NOW)
    assert timeline.rate(begin + seconds(0.5)) == pytest.approx(0.5)


@pytest.mark.parametrize('scale', [0.25, 0.1])
def test_a_plan_in_ros_time_is_the_same_path_with_slower_joints(scale):
    timeline, plan = Timeline(), a_plan()
    timeline.set_speed(scale, NOW + seconds(1.5))  # in the middle
    slow = timeline.in_ros(plan)
    assert np.all(np.diff(slow.times_ns) > 0)
    ros = np.arange(NOW, slow.end_ns, seconds(0.005))
    rows = np.array([slow.sample(int(time))[0] for time in ros])
    wanted = np.array([plan.sample(timeline.to_plan(int(time)))[0] for time in ros])
    assert np.abs(rows - wanted).max() < 5e-4
    bends = np.diff(rows, 2, axis=0) / 0.005 ** 2
    free = np.array([plan.sample(int(time))[0] for time in range(
        NOW, plan.end_ns, seconds(0.005))])
    assert np.abs(bends).max() < 2 * np.abs(np.diff(free, 2, axis=0) / 0.005 ** 2).max()
    assert slow.end_ns - NOW > (plan.end_ns - NOW) * 0.6 / scale


def test_a_clock_that_jumped_begins_anew_at_the_same_scale():
    timeline = Timeline()
    timeline.set_speed(0.2, NOW)
    back = NOW - seconds(100)
    timeline.reset(back)
    assert timeline.to_plan(back) == back
    assert timeline.to_plan(back + seconds(10)) - back == pytest.approx(seconds(2), abs=2)


def test_noise_of_the_scale_changes_nothing_and_full_speed_is_exact():
    timeline = Timeline()
    for scale, speed in ((0.9995, 1.0), (0.5, 0.5), (0.5002, 0.5), (0.9995, 1.0)):
        timeline.set_speed(scale, NOW)
        assert timeline.speed == speed


def test_a_reset_may_begin_at_another_scale():
    timeline = Timeline()
    timeline.set_speed(0.2, NOW)
    timeline.reset(NOW + seconds(1), speed=1.0)
    assert timeline.to_plan(NOW + seconds(9)) == NOW + seconds(9)


def test_a_fixed_timeline_stays_ros_time():
    timeline = Timeline(is_fixed=True)
    timeline.set_speed(0.2, NOW)
    timeline.set_limits([PaceLimit(NOW, NOW + 10, 0.1)], NOW)
    assert timeline.to_plan(NOW + seconds(5)) == NOW + seconds(5)


def test_the_fastest_speed_of_a_plan_is_found_between_its_knots():
    plan = Plan(
        np.array([0, NANOSECONDS]), np.array([[0.0, 0.0], [1.0, -2.0]]), np.zeros((2, 2)))
    np.testing.assert_allclose(plan.fastest(0, NANOSECONDS), [1.5, 3.0])
