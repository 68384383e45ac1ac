"""The measurements of one joint: a stamp, an outlier and an even motion."""

import math

import pytest

from lingbot_va_ros.robot.joint_track import JointTrack

MS = 1_000_000
NOW = 10 ** 12


def fed(*positions, step_ns=10 * MS, stamped=True):
    """Return a track that got these positions, one every `step_ns`, and the time of the next."""
    track, now = JointTrack(-3.0, 3.0, 2.0, 10.0, timeout=0.2), NOW
    for position in positions:
        track.update(position, 0.0, now if stamped else 0, now, now * 1e-9)
        now += step_ns
    return track, now


def test_a_joint_is_known_from_its_third_message_on():
    assert not fed(0.1, 0.1)[0].is_agreed
    track, _ = fed(0.1, 0.1, 0.1)
    assert track.is_agreed and track.position == 0.1


@pytest.mark.parametrize('stamped', [True, False])
@pytest.mark.parametrize('false', [0.13, -0.1, 1.0, -2.9, 5.0, math.nan])
def test_one_false_position_leaves_a_resting_joint_where_it_is(false, stamped):
    for place in range(1, 6):
        positions = [0.1] * 7
        positions[place] = false
        for count in range(3, 8):
            track, _ = fed(*positions[:count], stamped=stamped)
            assert not track.is_agreed or track.position == 0.1


def test_an_even_motion_is_followed_without_delay():
    assert fed(0.1, 0.11, 0.12)[0].position == 0.12
    assert fed(0.1, 0.11, 0.14)[0].position == 0.11


@pytest.mark.parametrize('positions, measured', [
    ([0.1, 0.11, 0.12], 2), ([0.1, 0.11, 0.14], 1), ([0.1, 0.1, 0.1], 2), ([0.14, 0.1, 0.13], 2)])
def test_the_time_of_the_position_is_that_of_its_measurement(positions, measured):
    for stamped in (True, False):
        track, _ = fed(*positions, stamped=stamped)
        assert track.position == positions[measured]
        assert track.position_ns == NOW + measured * 10 * MS


def test_one_false_velocity_changes_nothing():
    track, now = fed(0.1, 0.1, 0.1)
    track.update(0.1, 500.0, now, now, now * 1e-9)
    assert track.velocity == 0.0


def test_a_stamp_gap_does_not_widen_the_way():
    track, now = fed(0.1, 0.1, 0.1)
    assert track.update(0.3, 0.0, now + 40 * MS, now, now * 1e-9) == 'outlier'


def test_an_arrival_gap_does_not_widen_the_way_of_a_short_stamp_gap():
    track, now = fed(0.1, 0.1, 0.1)
    later = now + 150 * MS
    assert track.update(0.3, 0.0, now, later, later * 1e-9) == 'outlier'


def test_three_that_agree_are_believed():
    track, now = fed(0.1, 0.1, 0.1)
    kinds = []
    for number in range(3):
        now += 10 * MS
        kinds.append(track.update(1.0 + 0.01 * number, 0.0, now, now, now * 1e-9))
    assert kinds == ['outlier', 'outlier', ''] and track.position == 1.02


@pytest.mark.parametrize('offset_ms, kind', [
    (51, 'future'), (49, ''), (-10, 'stamp_still'), (-11, 'stamp_back'), (-60_000, 'stamp_back')])
def test_stamps(offset_ms, kind):
    track, now = fed(0.1, 0.1, 0.1)
    assert track.update(0.1, 0.0, now + offset_ms * MS, now, now * 1e-9) == kind


def test_the_age_is_the_larger_of_arrival_and_stamp():
    track, now = fed(0.1, 0.1, 0.1)
    track.update(0.1, 0.0, now - 5 * MS, now, now * 1e-9)
    assert now * 1e-9 - track.measured_s == pytest.approx(0.005)
    later = now + 10 * MS
    track.update(0.1, 0.0, later + 20 * MS, later, later * 1e-9)
    assert later * 1e-9 - track.measured_s == pytest.approx(0.0)


def test_after_a_silence_nothing_from_before_counts():
    track, now = fed(0.1, 0.1, 0.1)
    later = now + 300 * MS
    assert track.update(1.5, 0.0, later, later, later * 1e-9) == '' and not track.is_agreed
