"""The clock of a real robot: ROS time, steady time, and a wait that another thread ends."""

import threading
import time

from lingbot_va_ros.policy.runtime.clock import SystemClock


def test_it_gives_the_ros_time_that_it_was_made_with():
    assert SystemClock(lambda: 42).now_ns() == 42


def test_steady_time_passes_while_it_waits():
    clock = SystemClock()
    since = clock.steady()
    clock.wait(0.02)
    assert 0.02 <= clock.steady() - since < 10.0


def test_another_thread_ends_a_wait():
    clock = SystemClock()
    threading.Timer(0.05, clock.wake).start()
    since = time.monotonic()
    clock.wait(30.0)
    assert time.monotonic() - since < 10.0


def test_a_wake_before_a_wait_ends_that_one_and_no_further_one():
    clock = SystemClock()
    clock.wake()
    clock.wake()
    since = time.monotonic()
    clock.wait(30.0)
    assert time.monotonic() - since < 10.0
    since = time.monotonic()
    clock.wait(0.05)
    assert time.monotonic() - since >= 0.05
