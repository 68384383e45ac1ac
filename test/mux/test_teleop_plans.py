"""Plans on teleop/joint_trajectory as MoveIt Servo, rqt and other tools send them."""

from dataclasses import replace

import numpy as np
import pytest
from support import tool_messages, two_joints
from support.motion_limits import assert_points_inside_limits
from support.two_joints import JOINTS, PERIOD, START

from lingbot_va_ros.motion.trajectory import TrajectoryMessage, TrajectoryPoint
from lingbot_va_ros.mux.modes import MuxMode
from lingbot_va_ros.mux.mux import Mux
from lingbot_va_ros.mux.settings import MuxSettings
from lingbot_va_ros.nodes.command_mux.inputs import plain_trajectory

LIMITS = replace(
    two_joints.LIMITS, jerk=np.array([200.0, 200.0, 20.0]),
    stop_jerk=np.array([1000.0, 1000.0, 100.0]))
ROBOT = replace(two_joints.ROBOT, limits=LIMITS)
ARM = JOINTS[:2]


class Stage:
    """A mux, a robot that follows at once, and a tool that sends every so many ticks."""

    def __init__(self, tool=None, every=3, **changes):
        self.mux = Mux(ROBOT, replace(MuxSettings(), **changes), PERIOD)
        self.now = 1_000_000_000_000
        self.measured, self.speed = START.copy(), np.zeros(3)
        self.tool, self.every = tool, every
        self.executed, self.refused = [], []

    @property
    def now_s(self):
        return self.now * 1e-9

    def send(self, message):
        plain = message if isinstance(message, TrajectoryMessage) else plain_trajectory(message)
        refused = self.mux.take_teleop_plan(plain, self.now, self.now_s)
        if refused:
            self.refused.append(refused)
        return refused

    def run(self, ticks):
        for _ in range(ticks):
            self.mux.take_joint_state(
                JOINTS, self.measured, self.speed, self.now, self.now, self.now_s)
            if self.tool and self.now // PERIOD % self.every == 0:
                self.send(self.tool(self.now))
            tick = self.mux.tick(self.now, self.now_s)
            self.executed += tick.executed
            if tick.executed:
                self.measured, self.speed = tick.executed[-1][1:]
            self.now += PERIOD

    def teleop(self):
        tool, self.tool = self.tool, None
        self.run(3)  # the joint states are known
        self.tool = tool
        self.run(6)
        assert self.mux.set_mode(MuxMode.TELEOP, self.now, self.now_s) == (True, 'TELEOP')

    def assert_fine(self):
        assert not self.refused
        assert self.mux.machine.mode == MuxMode.TELEOP, self.mux.machine.reason
        assert_points_inside_limits(self.executed, START, LIMITS, PERIOD * 1e-9)


def swing(begin, rate=2.0):
    def goal(t_ns):
        return START[:2] + np.array([0.5, 0.3]) * (
            1 - np.cos(rate * max(0.0, (t_ns - begin) * 1e-9)))
    return goal


def servo(goal, period=0.03):
    def tool(now):
        ahead = now + round(period * 1e9)
        return tool_messages.servo_humble(
            ARM, goal(ahead), (goal(ahead) - goal(now)) / period, period)
    return tool


def test_servo_of_humble_is_followed_and_the_gripper_keeps_its_command():
    stage = Stage(servo(lambda t: START[:2]))
    stage.teleop()
    goal = swing(stage.now + 10 * PERIOD)
    stage.tool = servo(goal)
    stage.run(300)
    stage.assert_fine()
    assert max(np.abs(q[:2] - goal(due)).max() for due, q, _ in stage.executed[40:]) < 0.06
    assert {q[2] for _, q, _ in stage.executed} == {START[2]}


def test_messages_that_come_unevenly_make_no_tremor():
    rng = np.random.default_rng(3)
    stage = Stage(servo(lambda t: START[:2]), every=1)
    stage.teleop()
    begin = stage.now
    stage.tool = None

    def goal(t_ns):  # faster and faster up to 0.5 rad/s, then even
        t = max(0.0, (t_ns - begin) * 1e-9)
        return START[:2] + np.array([1.0, 0.0]) * (0.25 * t * t if t < 1.0 else 0.5 * t - 0.25)

    while stage.now < begin + 250 * PERIOD:
        stage.send(servo(goal)(stage.now))
        stage.run(int(rng.integers(2, 5)))
    stage.assert_fine()
    speeds = np.array([v[0] for due, _, v in stage.executed if due > begin + 150 * PERIOD])
    assert speeds.min() > 0.3 and speeds.max() < 0.75


def test_servo_of_jazzy_is_followed():
    def tool(goal):
        return lambda now: tool_messages.servo_window(ARM, goal, now)
    stage = Stage(tool(lambda t: START[:2]), every=1)
    stage.teleop()
    goal = swing(stage.now + 30 * PERIOD)
    stage.tool = tool(goal)
    stage.run(300)
    stage.assert_fine()
    assert max(np.abs(q[:2] - goal(due)).max() for due, q, _ in stage.executed[40:]) < 0.06


def test_a_window_that_only_grows_is_newer_and_a_repeated_one_is_not():
    stage = Stage()
    stage.run(3)
    message = plain_trajectory(tool_messages.servo_window(ARM, lambda t: START[:2], stage.now))
    shorter = replace(message, points=message.points[:12])
    assert stage.send(shorter) is None
    assert 'not newer' in stage.send(shorter)
    assert stage.send(message) is None
    assert 'not newer' in stage.send(replace(message, stamp_ns=message.stamp_ns - 1))


def test_rqt_is_followed_at_its_own_pace():
    target = START.copy()
    stage = Stage(lambda now: tool_messages.rqt(JOINTS, target, 1.0), every=10)
    stage.run(4)
    stage.teleop()
    target[:2] += [0.4, -0.3]
    stage.run(400)
    stage.assert_fine()
    np.testing.assert_allclose(stage.executed[-1][1], target, atol=1e-3)
    # No faster than a cubic of 1 s from message to message is.
    assert np.abs([v[0] for _, _, v in stage.executed]).max() < 0.7


def test_the_gripper_alone_does_not_hold_up_the_arm():
    stage = Stage(servo(lambda t: START[:2]))
    stage.teleop()
    goal = swing(stage.now)
    stage.tool = servo(goal)
    stage.run(60)
    for _ in range(20):
        stage.send(tool_messages.rqt(['grip'], [0.035], 0.5))
        stage.run(3)
    stage.assert_fine()
    assert max(np.abs(q[:2] - goal(due)).max() for due, q, _ in stage.executed[40:]) < 0.06
    assert stage.executed[-1][1][2] == pytest.approx(0.035, abs=2e-3)
    stage.run(60)
    assert stage.executed[-1][1][2] == pytest.approx(0.035, abs=2e-4), 'it keeps that command'


def test_a_gripper_that_the_tool_moved_long_ago_is_left_alone_later():
    stage = Stage(lambda now: tool_messages.rqt(JOINTS, [*START[:2], 0.04], 0.5))
    stage.run(3)
    stage.tool = lambda now: tool_messages.rqt(ARM, START[:2], 0.5)
    stage.run(40)
    stage.teleop()
    stage.run(40)
    assert {q[2] for _, q, _ in stage.executed} == {START[2]}


def test_a_first_point_at_once_is_the_present_state():
    def tool(now):
        there = tool_messages.rqt(JOINTS, START + [0.2, 0.0, 0.0], 1.0)
        return tool_messages.with_first_point(there, stage.measured)
    stage = Stage(source_timeout=2.0)
    stage.run(3)
    stage.send(tool(stage.now))
    begin = stage.now
    assert stage.mux.set_mode(MuxMode.TELEOP, stage.now, stage.now_s)[0]
    stage.run(110)
    stage.assert_fine()
    assert stage.executed[-1][1][0] == pytest.approx(START[0] + 0.2, abs=1e-3)
    halfway = next(q for due, q, _ in stage.executed if due >= begin + 48 * PERIOD)
    assert halfway[0] == pytest.approx(START[0] + 0.1, abs=0.02), 'at its own pace'
    far = tool_messages.with_first_point(
        tool_messages.rqt(JOINTS, START, 1.0), START + [1.5, 0.0, 0.0])
    assert 'would jump' in stage.send(far)


def test_a_first_point_at_once_that_is_elsewhere_is_refused_in_any_mode():
    stage = Stage()
    stage.run(3)
    elsewhere = START + [1.5, 0.0, 0.0]
    far = tool_messages.rqt(JOINTS, elsewhere, 2.0)
    assert stage.send(far) is None, 'before its mode is chosen a plan may begin anywhere'
    assert "'j1' would jump" in stage.send(tool_messages.with_first_point(far, elsewhere))


def test_a_point_that_is_due_at_once_or_a_nanosecond_later_is_a_halt():
    stage = Stage(servo(lambda t: START[:2]))
    stage.teleop()
    stage.tool = servo(swing(stage.now))
    stage.run(60)
    here = stage.executed[-1][1][:2]
    stage.tool = lambda now: tool_messages.servo_halt(ARM, here)
    stage.run(60)
    stage.tool = lambda now: tool_messages.rqt(ARM, here, 0.0)
    stage.run(30)
    stage.assert_fine()
    np.testing.assert_allclose(stage.executed[-1][1][:2], here, atol=1e-3)


@pytest.mark.parametrize('joints, row, words', [
    (('j1', 'elbow'), (0.1, 0.0), 'unknown joints elbow'),
    (('j1', 'j1'), (0.1, 0.1), 'named twice'),
    ((), (), 'missing joints'),
    (('j1',), (np.nan,), 'not a finite number'),
    (('j1',), (0.1, 0.2), 'point 0 has 2 positions, expected 1'),
    (('j1',), (7.0,), 'is outside')])
def test_what_is_wrong_is_refused_as_ever(joints, row, words):
    stage = Stage()
    stage.run(3)
    message = TrajectoryMessage(0, joints, (TrajectoryPoint(PERIOD, row),))
    assert words in stage.send(message)


def test_a_part_of_the_joints_needs_to_know_where_the_others_are():
    stage = Stage()
    message = TrajectoryMessage(0, ('j1',), (TrajectoryPoint(PERIOD, (0.1,)),))
    assert 'missing joints j2, grip: no joint state' in stage.send(message)


def test_the_policy_keeps_its_strict_rules():
    stage = Stage()
    stage.run(3)
    points = (TrajectoryPoint(PERIOD, tuple(START)),)

    def refused(stamp, joints, points):
        return stage.mux.take_policy_plan(
            TrajectoryMessage(stamp, joints, points), stage.now, stage.now_s)
    assert 'no stamp' in refused(0, JOINTS, points)
    assert 'missing joints grip' in refused(
        stage.now, ARM, (TrajectoryPoint(PERIOD, tuple(START[:2])),))
    assert 'above 0' in refused(
        stage.now, JOINTS, (TrajectoryPoint(0, tuple(START)), *points))
    assert 'last velocity' in refused(
        stage.now, JOINTS, (TrajectoryPoint(PERIOD, tuple(START), (0.1, 0.0, 0.0)),))
    assert refused(stage.now, JOINTS, points) is None


def test_silence_of_the_tool_means_hold():
    stage = Stage(servo(lambda t: START[:2]))
    stage.teleop()
    stage.tool = servo(swing(stage.now))
    stage.run(60)
    stage.tool = None
    stage.run(40)
    assert stage.mux.machine.mode == MuxMode.HOLD
    assert 'teleop/joint_trajectory silent' in stage.mux.machine.reason
    assert_points_inside_limits(stage.executed, START, LIMITS, PERIOD * 1e-9)
