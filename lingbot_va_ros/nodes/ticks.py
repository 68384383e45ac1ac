"""Ticks of a thread on an exact grid of ROS time."""

from collections.abc import Iterator
from dataclasses import dataclass
import threading
import time

from rclpy.clock import JumpThreshold
from rclpy.duration import Duration

from lingbot_va_ros.motion.time import NANOSECONDS, to_seconds

# A larger deviation of ROS time from the steady clock between two ticks is a jump.
MAX_DRIFT_NS = 100_000_000
# Simulated time may advance in steps; a larger one is a jump.
MAX_SIMULATED_STEP_NS = NANOSECONDS
# Two clocks that were read further apart than this are read again, up to READINGS times.
MAX_READING_NS, READINGS = 1_000_000, 10
# Interval at which a thread that waits for simulated time checks `ending`, seconds.
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class TickTime:
    """
    One tick.

    :param ros_ns: its ROS time on the grid, ns.
    :param late_s: its delay, s.
    :param jumped: description of a clock jump before it, or empty; after a jump the tick begins a
        new grid.
    """

    ros_ns: int
    late_s: float
    jumped: str = ''


def ticks(clock, period_ns: int, ending: threading.Event) -> Iterator[TickTime]:
    """
    Yield the newest due tick until `ending` is set; missed ticks are skipped.

    With simulated time the ticks follow /clock, and pause while it pauses.
    """
    if clock.ros_time_is_active:
        yield from _simulated(clock, period_ns, ending)
    else:
        yield from _real(clock, period_ns, ending)


def _real(clock, period_ns, ending):
    last_ns, last_steady_ns = _both_clocks(clock)
    deadline_ns = last_ns + period_ns
    while not ending.is_set():
        wait_ns = deadline_ns - clock.now().nanoseconds
        if wait_ns > 0:
            time.sleep(to_seconds(min(wait_ns, 2 * period_ns)))
        now_ns, steady_ns = _both_clocks(clock)
        jump_ns = (now_ns - last_ns) - (steady_ns - last_steady_ns)
        last_ns, last_steady_ns = now_ns, steady_ns
        if abs(jump_ns) > MAX_DRIFT_NS:
            deadline_ns = now_ns + period_ns
            yield TickTime(now_ns, 0.0, f'the clock jumped by {to_seconds(jump_ns):.3f} s')
        elif now_ns >= deadline_ns:
            due_ns = deadline_ns + (now_ns - deadline_ns) // period_ns * period_ns
            deadline_ns = due_ns + period_ns
            yield TickTime(due_ns, to_seconds(now_ns - due_ns))


def _both_clocks(clock):
    """
    Return ROS and steady time of one moment, ns.

    A thread that is preempted between the two readings would detect a false jump.
    """
    for _ in range(READINGS):
        before_ns = time.monotonic_ns()
        now_ns = clock.now().nanoseconds
        after_ns = time.monotonic_ns()
        if after_ns - before_ns <= MAX_READING_NS:
            break
    return now_ns, after_ns


def _simulated(clock, period_ns, ending):
    advanced = threading.Event()
    handle = clock.create_jump_callback(
        JumpThreshold(
            min_forward=Duration(nanoseconds=1), min_backward=Duration(nanoseconds=-1),
            on_clock_change=True),
        post_callback=lambda _jump: advanced.set())
    last_ns = deadline_ns = 0
    try:
        while not ending.is_set():
            advanced.wait(POLL_SECONDS)
            advanced.clear()
            now_ns = clock.now().nanoseconds
            if now_ns == 0:
                continue
            step_ns, last_ns = now_ns - last_ns, now_ns
            if deadline_ns == 0:
                deadline_ns = now_ns + period_ns
            elif not 0 <= step_ns <= MAX_SIMULATED_STEP_NS:
                deadline_ns = now_ns + period_ns
                yield TickTime(now_ns, 0.0, f'the clock jumped by {to_seconds(step_ns):.3f} s')
            elif now_ns >= deadline_ns:
                due_ns = deadline_ns + (now_ns - deadline_ns) // period_ns * period_ns
                deadline_ns = due_ns + period_ns
                yield TickTime(due_ns, to_seconds(now_ns - due_ns))
    finally:
        handle.unregister()
