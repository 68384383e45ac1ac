"""Several publishers of one joint, and clocks that differ, as messages show them."""

import pytest

from lingbot_va_ros.robot.clock_offset import ClockOffsets
from lingbot_va_ros.robot.joint_publishers import JointPublishers

NS = 1_000_000_000


def test_publishers_of_different_joints_are_no_conflict():
    publishers = JointPublishers(['arm', 'hand'])
    for number in range(100):
        publishers.update(['arm'], 1000 + number, number / 100)
        publishers.update(['hand', 'tail'], number, number / 100)
    assert publishers.doubled(1.0) == []


def test_two_publishers_of_a_joint_are_seen_and_forgotten():
    publishers = JointPublishers(['arm', 'hand'])
    for number in range(10):
        publishers.update(['arm', 'hand'], 1000 + number, number / 100)
        publishers.update(['arm'], 5 + number, number / 100)
    assert publishers.doubled(0.1) == ['arm'] and publishers.doubled(3.0) == []


def test_a_publisher_that_was_started_anew_is_one():
    publishers = JointPublishers(['arm'])
    for number in (7, 8, 9, 1, 2, 3):
        publishers.update(['arm'], number, 0.0)
    assert publishers.doubled(0.0) == []


@pytest.mark.parametrize('offset, words', [
    (0.0, ''), (0.009, ''), (0.02, 'states is stamped 20.5 ms behind'),
    (-0.02, 'states is stamped 19.5 ms ahead of')])
def test_the_offset_is_the_least_delay_of_some_seconds(offset, words):
    offsets = ClockOffsets()
    for number in range(2000):
        now = number / 100
        delay = 0.0005 + 0.003 * (number % 7)
        offsets.add('plans', round(now * NS) + NS, round(now * NS) + NS, now)
        offsets.add('states', round((now - offset - delay) * NS) + NS, round(now * NS) + NS, now)
    topic, seconds = offsets.largest(now)
    assert topic == 'states' and seconds == pytest.approx(offset + 0.0005, abs=1e-6)
    assert words in offsets.warning(now) and bool(words) == bool(offsets.warning(now))
    assert offsets.largest(now + 11.0) is None


def test_stamps_of_zero_are_none():
    offsets = ClockOffsets()
    offsets.add('states', 0, NS, 1.0)
    assert offsets.largest(1.0) is None
