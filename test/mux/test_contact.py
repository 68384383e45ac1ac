"""Contact limits: efforts and wrenches beyond which the mux holds."""

from dataclasses import replace

import numpy as np
import pytest
from support.two_joints import PERIOD, ROBOT, START

from lingbot_va_ros.motion.trajectory import TrajectoryMessage, TrajectoryPoint
from lingbot_va_ros.mux.contact import ContactWatch
from lingbot_va_ros.mux.modes import MuxMode
from lingbot_va_ros.mux.mux import Mux
from lingbot_va_ros.mux.settings import MuxSettings
from lingbot_va_ros.specs.contact import ContactLimits, WrenchLimits

LIMITS = ContactLimits(
    efforts={'j2': 10.0}, wrenches=(WrenchLimits('/ft', {'force z': 20.0, 'torque x': 2.0}),))
LIMITED = replace(ROBOT, contact=LIMITS)


class Bench:
    """A moving arm that follows at once, with efforts and a wrench."""

    def __init__(self, robot=LIMITED):
        self.mux = Mux(robot, MuxSettings(), PERIOD)
        self.now = 1_000_000_000_000
        self.measured = START.copy()
        self.efforts = [0.0, 3.0, 0.0]
        self.wrench = [0.0] * 6
        self.executed = []

    def run(self, ticks):
        for _ in range(ticks):
            now_s = self.now * 1e-9
            self.mux.take_joint_state(
                ROBOT.joints, self.measured, (), self.now, self.now, now_s)
            if self.efforts is not None:
                self.mux.contact.take_efforts(ROBOT.joints, self.efforts, now_s)
            if self.wrench is not None:
                self.mux.contact.take_wrench('/ft', self.wrench, now_s)
            rows = tuple(
                TrajectoryPoint(index * 20_000_000, tuple(self.goal(index * 0.02)),
                                (0.0 if index == 10 else 0.3, 0.0, 0.0))
                for index in range(1, 11))
            self.mux.take_policy_plan(
                TrajectoryMessage(self.now, ROBOT.joints, rows), self.now, now_s)
            tick = self.mux.tick(self.now, now_s)
            self.executed += tick.executed
            if tick.executed:
                self.measured = tick.executed[-1][1]
            self.now += PERIOD

    def goal(self, after):
        return START + np.array([0.3 * ((self.now * 1e-9) - 1000.0 + after), 0.0, 0.0])

    def choose(self):
        return self.mux.set_mode(MuxMode.POLICY, self.now, self.now * 1e-9)

    @property
    def state(self):
        return self.mux.machine.mode, self.mux.machine.reason

    def moving(self):
        self.run(10)
        success, message = self.choose()
        assert success, message
        self.run(10)
        assert self.state[0] == MuxMode.POLICY, self.state
        return self


def test_nothing_is_limited_by_default():
    bench = Bench(ROBOT).moving()
    bench.efforts = [1e9] * 3
    bench.run(5)
    assert bench.state[0] == MuxMode.POLICY


@pytest.mark.parametrize(('efforts', 'wrench', 'reason'), [
    ([0.0, -12.5, 0.0], [0.0] * 6, "contact: the effort of 'j2' is -12.5, more than 10"),
    ([99.0, 0.0, 99.0], [0.0, 99.0, 21.0, 0.0, 0.0, 0.0],
     'contact: force z on /ft is 21, more than 20'),
    ([0.0, 11.0, 0.0], [0.0, 0.0, 21.0, 3.0, 9.0, 9.0],
     'contact: torque x on /ft is 3, more than 2'),
    ([0.0, float('nan'), 0.0], [0.0] * 6, "lost the effort of 'j2' (it is nan)"),
    ([], [0.0] * 6, "lost the effort of 'j2' (none came)"),
    ([0.0, 0.0], [0.0] * 6, "lost the effort of 'j2' (none came)"),
    ([0.0] * 3, [0.0, 0.0, float('inf'), 0.0, 0.0, 0.0], 'lost force z on /ft (it is inf)'),
])
def test_what_is_beyond_a_limit_or_no_number_means_hold(efforts, wrench, reason):
    bench = Bench().moving()
    bench.efforts, bench.wrench = efforts, wrench
    bench.run(2)
    assert bench.state == (MuxMode.HOLD, reason)
    bench.run(60)
    assert np.all(bench.executed[-1][2] == 0.0)


@pytest.mark.parametrize(('silent', 'reason'), [
    ('efforts', "lost the effort of 'j2' (silent for 0.2 s)"),
    ('wrench', 'lost force z on /ft (silent for 0.2 s); torque x on /ft (silent for 0.2 s)')])
def test_silence_means_hold_in_time_and_refuses_a_mode(silent, reason):
    bench = Bench().moving()
    setattr(bench, silent, None)
    bench.run(20)
    assert bench.state == (MuxMode.HOLD, reason)
    bench.run(5)
    success, message = bench.choose()
    assert not success and reason.removeprefix('lost ') in message


def test_a_motion_may_lead_out_of_a_contact_but_not_further_into_it():
    bench = Bench().moving()
    bench.efforts = [0.0, 12.0, 0.0]
    bench.run(40)
    assert bench.state[0] == MuxMode.HOLD
    assert bench.choose()[0]
    bench.run(10)
    assert bench.state[0] == MuxMode.POLICY, bench.state
    bench.efforts = [0.0, 13.5, 0.0]
    bench.run(2)
    assert bench.state == (
        MuxMode.HOLD, "contact: the effort of 'j2' is 13.5, more than 10")
    bench.run(40)
    assert bench.choose()[0]
    bench.efforts = [0.0, 9.0, 0.0]
    bench.run(5)
    bench.efforts = [0.0, 11.0, 0.0]
    bench.run(2)
    assert bench.state[0] == MuxMode.HOLD


def test_a_clock_jump_forgets_what_was_known():
    watch = ContactWatch(LIMITED, 0.2)
    watch.take_efforts(ROBOT.joints, [0.0] * 3, 5.0)
    watch.take_wrench('/ft', [0.0] * 6, 5.0)
    assert watch.unknown(5.1) == []
    watch.forget()
    assert len(watch.unknown(5.1)) == 3
