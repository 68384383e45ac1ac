"""Steps of the clock: found at the next look, whichever way, and never where there was none."""

import pytest

from lingbot_va_ros.policy.runtime.clock_steps import ClockSteps

NS = 1_000_000_000
MS = 1_000_000


class TwoClocks:
    """A steady clock that passes with every reading, and a ROS clock that can be set."""

    def __init__(self):
        self.steady = 5 * NS
        self.offset = 1_000_000 * NS
        self.each_reading = 1000  # ns
        self.simulated = False
        self.found = []
        self.steps = ClockSteps(
            lambda: self.read() + self.offset, self.found.append, lambda: self.simulated,
            self.read)

    def read(self):
        self.steady += self.each_reading
        return self.steady

    def look_after(self, seconds, step=0.0):
        self.steady += round(seconds * NS)
        self.offset += round(step * NS)
        return self.steps.look()


@pytest.fixture
def clocks():
    clocks = TwoClocks()
    assert not clocks.steps.look()
    return clocks


@pytest.mark.parametrize('step', [-600.0, -8.0, -1.5, -0.2, 0.2, 5.0, 3600.0])
def test_a_step_is_found_once_with_its_length(clocks, step):
    assert not clocks.look_after(0.02)
    assert clocks.look_after(0.02, step)
    assert not clocks.look_after(0.02)
    assert [round(found / NS, 3) for found in clocks.found] == [step]


def test_steps_back_and_forth_are_each_found(clocks):
    for step in (-8.0, -8.0, 5.0, -1.5, 12.5):
        assert clocks.look_after(0.001, step)
    assert [round(found / NS, 3) for found in clocks.found] == [-8.0, -8.0, 5.0, -1.5, 12.5]


def test_a_clock_that_is_slewed_has_not_stepped(clocks):
    for _ in range(100):
        assert not clocks.look_after(10.0, 10.0 * 500e-6)
    assert not clocks.found


def test_a_pause_between_two_looks_is_no_step(clocks):
    assert not clocks.look_after(3600.0)


def test_a_thread_that_is_always_preempted_while_it_reads_judges_nothing(clocks):
    clocks.each_reading = 5 * MS
    assert not clocks.look_after(0.02, -8.0)
    clocks.each_reading = 1000
    assert clocks.look_after(0.02)


def test_simulated_time_keeps_its_own_pace(clocks):
    clocks.simulated = True
    assert not clocks.look_after(1.0, -600.0)
    clocks.simulated = False
    assert not clocks.look_after(1.0)


def test_messages_of_the_time_before_are_expected_for_a_second(clocks):
    assert not clocks.steps.is_settling()
    clocks.look_after(0.02, -8.0)
    assert clocks.steps.is_settling()
    clocks.look_after(0.9)
    assert clocks.steps.is_settling()
    clocks.look_after(0.2)
    assert not clocks.steps.is_settling()
