"""When a prediction ahead must begin: by the slow ones, without those that were slow once."""

import pytest

from lingbot_va_ros.policy.runtime.latency import ENOUGH, Latency, MARGIN, OUTLIER_COUNTS


def measured(*durations, recorded=()):
    latency = Latency()
    for index, seconds in enumerate(durations):
        latency.add(seconds, ahead=True, recorded=index in recorded)
    return latency


def needed(latency):
    return pytest.approx(latency.time_needed - MARGIN)


def test_until_enough_are_measured_a_prediction_begins_at_once():
    assert measured(*[0.2] * (ENOUGH - 1)).time_needed is None
    assert needed(measured(*[0.2] * ENOUGH)) == 0.2


def test_an_outlier_counts_for_a_few_predictions():
    latency = measured(*[0.2] * 20, 1.5)
    for _ in range(OUTLIER_COUNTS):
        assert needed(latency) == 1.5
        latency.add(0.2, ahead=True)
    for _ in range(200):
        assert needed(latency) == 0.2
        latency.add(0.2, ahead=True)


def test_predictions_that_are_slow_again_and_again_always_count():
    latency = measured(*[0.2] * 20)
    for index in range(100):
        latency.add(1.5 if index % OUTLIER_COUNTS == 0 else 0.2, ahead=True)
        assert needed(latency) == 1.5


def test_a_model_that_becomes_slower_is_believed_at_once_and_faster_after_a_while():
    latency = measured(*[0.2] * 100)
    for _ in range(100):
        latency.add(0.9, ahead=True)
        assert needed(latency) == 0.9
    for _ in range(100):
        latency.add(0.2, ahead=True)
    assert needed(latency) == 0.2


def test_within_the_usual_spread_the_slowest_counts():
    assert needed(measured(*[0.2, 0.3, 0.25, 0.35] * 3, *[0.2] * 10)) == 0.35


def test_a_recording_stands_for_the_next_prediction_alone():
    latency = measured(*[0.2] * 10)
    latency.add(0.7, ahead=True, recorded=True)
    assert needed(latency) == 0.7  # the next may record too
    latency.add(0.2, ahead=True)
    assert needed(latency) == 0.2


def test_where_all_record_their_time_counts():
    latency = measured(*[0.7] * ENOUGH, recorded=range(ENOUGH))
    assert needed(latency) == 0.7
    for _ in range(ENOUGH):
        latency.add(0.2, ahead=True)
    assert needed(latency) == 0.2


def test_the_figures_of_the_status_hold_every_prediction():
    latency = measured(0.2, 0.7, recorded=[1])
    assert latency.newest == 0.7 and latency.p95 == pytest.approx(0.675)


def test_encoding_a_frame_adds_its_time():
    latency = measured(*[0.2] * ENOUGH)
    latency.add_encoding(0.05)
    assert needed(latency) == pytest.approx(0.25)
