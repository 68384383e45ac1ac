"""Ticks on a grid of ROS time: none doubled, late ones skipped, jumps reported."""

import threading
import time
from types import SimpleNamespace

from lingbot_va_ros.nodes.ticks import ticks

PERIOD = 10_000_000


class SteerableClock:
    """A real clock that can be set anew."""

    ros_time_is_active = False

    def __init__(self):
        self.offset_ns = 10 ** 18
        self.displaced_s = []  # how long the thread is kept from going on after each reading

    def now(self):
        now_ns = time.monotonic_ns() + self.offset_ns
        if self.displaced_s:
            time.sleep(self.displaced_s.pop(0))
        return SimpleNamespace(nanoseconds=now_ns)


def test_ticks_are_whole_periods_apart_and_on_time():
    clock = SteerableClock()
    stream = ticks(clock, PERIOD, threading.Event())
    times = []
    for tick in stream:
        assert tick.ros_ns <= clock.now().nanoseconds and not tick.jumped
        times.append(tick.ros_ns)
        if len(times) == 20:
            break
    steps = [(after - before) / PERIOD for before, after in zip(times, times[1:])]
    assert all(step >= 1 and step == int(step) for step in steps)


def test_missed_ticks_are_left_out():
    stream = ticks(SteerableClock(), PERIOD, threading.Event())
    before = next(stream)
    time.sleep(0.055)
    after = next(stream)
    assert after.ros_ns - before.ros_ns >= 5 * PERIOD
    assert (after.ros_ns - before.ros_ns) % PERIOD == 0
    assert after.late_s < PERIOD * 1e-9


def test_a_clock_set_back_is_reported_once_and_begins_a_new_grid():
    clock = SteerableClock()
    stream = ticks(clock, PERIOD, threading.Event())
    next(stream)
    clock.offset_ns -= 3_000_000_000
    jump = next(stream)
    assert jump.jumped.startswith('the clock jumped by -3.0')
    after = next(stream)
    assert not after.jumped and (after.ros_ns - jump.ros_ns) % PERIOD == 0


def test_a_thread_displaced_between_two_readings_sees_no_jump():
    clock = SteerableClock()
    stream = ticks(clock, PERIOD, threading.Event())
    next(stream)
    clock.displaced_s = [0.0, 0.25]  # the first reading only tells how long to wait
    assert not any(next(stream).jumped for _ in range(3))


def test_the_end_is_heard():
    ending = threading.Event()
    stream = ticks(SteerableClock(), PERIOD, ending)
    next(stream)
    ending.set()
    assert list(stream) == []
