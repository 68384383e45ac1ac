"""Simulated time paced by real time."""

import threading
import time

import pytest

from lingbot_va_ros.sim.pacing import Pacing, SteadyOffset

MS = 1_000_000


@pytest.fixture
def clock(monkeypatch):
    """A steady clock that only waiting moves."""
    class Clock:
        ns = 5_000 * MS

        def wait(self, seconds):
            self.ns += round(seconds * 1e9)

    made = Clock()
    monkeypatch.setattr(time, 'monotonic_ns', lambda: made.ns)
    return made


def test_waits_until_the_moment_is_due(clock):
    pace = Pacing(factor=2.0)
    assert pace.wait_for(10 * MS, clock) == 0
    start = clock.ns
    assert pace.wait_for(20 * MS, clock) == 0
    assert clock.ns - start == 5 * MS


def test_a_short_backlog_is_caught_up_without_waiting(clock):
    pace = Pacing()
    pace.wait_for(0, clock)
    start = clock.ns
    clock.ns += 400 * MS
    assert pace.wait_for(10 * MS, clock) == 0
    assert clock.ns == start + 400 * MS
    pace.wait_for(410 * MS, clock)
    assert clock.ns == start + 410 * MS


def test_a_long_backlog_is_dropped_and_said(clock):
    pace = Pacing()
    pace.wait_for(0, clock)
    clock.ns += 1000 * MS
    assert pace.wait_for(10 * MS, clock) == 990 * MS
    assert pace.due(10 * MS) == clock.ns


@pytest.mark.parametrize('factor', [0.5, 1.0, 3.0])
def test_due_and_simulated_are_inverse(clock, factor):
    pace = Pacing(factor)
    pace.wait_for(40 * MS, clock)
    assert pace.due(40 * MS) == clock.ns
    for moment in (0, 40 * MS, 777 * MS):
        assert pace.simulated(pace.due(moment)) == pytest.approx(moment, abs=2)


def test_waiting_can_be_interrupted():
    interrupted = threading.Event()
    pace = Pacing()
    pace.wait_for(0, interrupted)
    interrupted.set()
    start = time.monotonic()
    pace.wait_for(60_000 * MS, interrupted)
    assert time.monotonic() - start < 5.0


def test_offset_ignores_jitter_follows_drift_and_takes_a_set_clock(clock):
    ahead = 1_000_000 * MS
    offset = SteadyOffset(lambda: clock.ns + ahead)
    assert offset.ns == ahead
    ahead += 1 * MS
    offset.follow()
    assert 0 < offset.ns - (ahead - MS) < MS // 50
    for _ in range(2000):
        offset.follow()
    assert abs(ahead - offset.ns) < MS // 10
    ahead += 3_600_000 * MS
    offset.follow()
    assert offset.ns == ahead


def test_offset_ignores_a_reading_that_was_held_up(clock):
    def held_up():
        clock.ns += 20 * MS
        return clock.ns

    offset = SteadyOffset(lambda: clock.ns)
    offset._read_ns = held_up
    before = offset.ns
    offset.follow()
    assert offset.ns == before
