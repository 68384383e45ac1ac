"""The speed scale: the least of all that ask for one, and the whole path at that speed."""

from dataclasses import replace
import math

import numpy as np
import pytest

from lingbot_va_ros.motion.plan import Plan
from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.motion.timeline import Timeline
from lingbot_va_ros.motion.trajectory import TrajectoryMessage, TrajectoryPoint
from lingbot_va_ros.mux.modes import MuxMode
from lingbot_va_ros.mux.mux import Mux
from lingbot_va_ros.mux.settings import MuxSettings
from lingbot_va_ros.mux.speed_scale import (
    DRIVER,
    LEAST_SCALE,
    PROXIMITY,
    PROXIMITY_RATE,
    SpeedScale,
)
from lingbot_va_ros.robot.tool_path import tool_paths
from lingbot_va_ros.specs.embodiment import load_embodiment

ROBOT = load_embodiment('sim_left')
LIMITS = ROBOT.limits
GRIPPERS = {arm.gripper.joint for arm in ROBOT.arms if arm.gripper}
ARM = np.array([joint not in GRIPPERS for joint in ROBOT.joints])
PERIOD = 10_000_000
SECONDS = PERIOD / NANOSECONDS
NONE = np.zeros(len(ROBOT.joints))
MOST_OFF_ARC = 0.3e-3  # m; 17 mm where each joint is slowed down by itself


class Bench:
    """A mux with a robot that follows at once, and a source that wants the joints at `goal(t)`."""

    def __init__(self, **settings):
        self.mux = Mux(ROBOT, replace(MuxSettings(), **settings), PERIOD)
        self.now = 1_000_000_000_000
        self.measured = ROBOT.home.copy()
        self.goal = lambda t_ns: ROBOT.home
        self.leader = None
        self.executed = []

    @property
    def mode(self):
        return self.mux.machine.mode

    def plan(self):
        times = [2 * PERIOD * (i + 1) for i in range(40)]
        rows = [self.goal(self.now + t) for t in times]
        speeds = [
            (self.goal(self.now + t + 1000) - self.goal(self.now + t - 1000)) / 2e-6
            for t in times]
        speeds[-1] = NONE
        return TrajectoryMessage(self.now, ROBOT.joints, tuple(
            TrajectoryPoint(t, tuple(q), tuple(v)) for t, q, v in zip(times, rows, speeds)))

    def run(self, seconds):
        points = []
        for _ in range(round(seconds / SECONDS)):
            now_s = self.now / NANOSECONDS
            self.mux.take_joint_state(
                ROBOT.joints, self.measured, NONE, self.now, self.now, now_s)
            if self.leader is not None:
                assert self.mux.take_leader_state(
                    ROBOT.joints, self.leader(self.now), self.now, self.now, now_s) is None
            elif (self.now // PERIOD) % 2 == 0:
                self.mux.take_policy_plan(self.plan(), self.now, now_s)
            points += self.mux.tick(self.now, now_s).executed
            if points:
                self.measured = points[-1][1]
            self.now += PERIOD
        self.executed += points
        return points

    def choose(self, mode):
        return self.mux.set_mode(mode, self.now, self.now / NANOSECONDS)


def speeds_of(points):
    """Return the speeds [n, J] of executed points, by the difference of positions."""
    return np.diff([q for _, q, _ in points], axis=0) / SECONDS


def assert_inside_limits(points, scale=1.0):
    """Check velocities against a share of their limits, and accelerations."""
    speeds = speeds_of(points)
    assert (np.abs(speeds) <= scale * LIMITS.velocity * (1 + 1e-6) + 1e-9).all()
    accelerations = np.diff(speeds, axis=0) / SECONDS
    assert (np.abs(accelerations) <= LIMITS.acceleration * (1 + 1e-6) + 1e-6).all()


WAY = 0.3 * np.where(ARM, np.where(np.arange(len(ARM)) % 2, 1.0, -0.6), 0.0)


def circle(begin_ns, rate):
    """Return a goal that circles through the joints, at so many rad of the circle a second."""
    def goal(t_ns):
        angle = max(0.0, (t_ns - begin_ns) / NANOSECONDS * rate)
        other = 0.3 * np.where(ARM, np.where(np.arange(len(ARM)) % 2, 0.4, 1.0), 0.0)
        return ROBOT.home + WAY * (1 - math.cos(angle)) + other * (1 - math.cos(1.7 * angle)) / 3
    return goal


def distance_from_path(points, path):
    """Return the greatest distance of executed points from a densely sampled path, rad or m."""
    return max(np.abs(path - q).max(axis=1).min() for _, q, _ in points)


@pytest.mark.parametrize('scale', [0.0, -0.1, 1.001, 2.0, math.nan, math.inf])
def test_a_scale_that_is_none_is_refused_in_one_line_and_changes_nothing(scale):
    speed = SpeedScale(0.5)
    success, message = speed.set_operator(scale)
    assert not success and 'expected a number above 0 and at most 1' in message
    assert '\n' not in message and speed.scale == 0.5


def test_the_least_scale_is_in_force():
    speed = SpeedScale(0.5, full_scale=100.0)
    assert speed.take_driver(25.0) == '' and (speed.scale, speed.source) == (0.25, DRIVER)
    assert speed.set_operator(0.4) == (
        True, 'the speed scale is 0.25, which the driver asks for')
    assert speed.take_driver(100.0) == '' and speed.scale == 0.4
    speed.ask('proximity', 0.1)
    assert (speed.scale, speed.source) == (0.1, 'proximity')
    assert speed.take_driver(100.05) == '' and speed.scale == 0.1


@pytest.mark.parametrize('value', [math.nan, math.inf, -1.0, 120.0])
def test_a_speed_scaling_out_of_range_is_refused(value):
    speed = SpeedScale(1.0, full_scale=100.0)
    speed.take_driver(50.0)
    assert 'expected 0 … 100' in speed.take_driver(value) and speed.scale == 0.5


def test_a_lower_scale_is_enforced_along_a_ramp_and_a_higher_one_at_once():
    speed = SpeedScale(1.0)
    speed.set_operator(0.25)
    enforced = [speed.enforce(0.01) for _ in range(100)]
    assert enforced[0] == 1.0 and enforced[-1] == 0.25
    assert min(np.diff(enforced)) > -0.016
    speed.set_operator(1.0)
    assert speed.enforce(0.01) == 1.0
    speed.set_operator(1e-9)
    assert speed.scale == LEAST_SCALE


@pytest.mark.parametrize('scale', [0.25, 0.1])
def test_a_plan_that_is_too_fast_stays_on_its_path(scale):
    bench = Bench(speed_scale=scale, max_jump=100.0)
    bench.run(0.1)
    begin_ns = bench.now + NANOSECONDS
    bench.goal = circle(begin_ns, 2.5)
    bench.run(0.1)
    assert bench.choose(MuxMode.POLICY)[0]
    points = bench.run(4.0)
    assert bench.mode == MuxMode.POLICY
    assert_inside_limits(points, scale)
    path = np.array([bench.goal(begin_ns + t) for t in range(0, 4 * NANOSECONDS, 500_000)])
    assert distance_from_path(points, path) < 2e-3
    speeds = np.abs(speeds_of(points)[-100:]) / LIMITS.velocity
    assert speeds.max() > 0.9 * scale  # no slower than it must be


def test_a_change_of_the_scale_is_no_jump_and_the_path_stays():
    bench = Bench(max_jump=100.0)
    bench.run(0.1)
    begin_ns = bench.now + NANOSECONDS
    bench.goal = circle(begin_ns, 2.5)
    bench.run(0.1)
    assert bench.choose(MuxMode.POLICY)[0]
    bench.run(1.6)
    for scale in (0.2, 1.0, 0.05, 0.6):
        assert bench.mux.speed.set_operator(scale)[0]
        bench.run(1.2)
        assert_inside_limits(bench.executed[-20:], scale)
    assert bench.mode == MuxMode.POLICY
    assert_inside_limits(bench.executed)
    path = np.array([bench.goal(begin_ns + t) for t in range(0, 8 * NANOSECONDS, 500_000)])
    assert distance_from_path(bench.executed, path) < 1e-3


ARC_SECONDS = 0.7  # at full speed
ARC_KNOTS = 60


def arc():
    """Return the joints of an arc of 0.24 m that the tool draws, and the tool's path."""
    tool, = tool_paths(ROBOT)
    columns = list(tool.columns)
    begin = tool.kinematics.forward(ROBOT.home[columns])
    poses = []
    for share in (1 - np.cos(np.linspace(0, np.pi, ARC_KNOTS))) / 2:  # from rest to rest
        pose, angle = begin.copy(), 3.0 * share
        pose[:3, 3] += 0.0757 * np.array(
            [1 - math.cos(angle), math.sin(angle), -0.5 * math.sin(angle)])
        poses.append(pose)
    rows = np.tile(ROBOT.home, (ARC_KNOTS, 1))
    rows[:, columns] = tool.kinematics.follow(poses, ROBOT.home[columns])
    times = np.linspace(0, ARC_SECONDS * NANOSECONDS, ARC_KNOTS).astype(np.int64)
    speeds = np.gradient(rows, times / NANOSECONDS, axis=0)
    speeds[[0, -1]] = 0.0
    return Plan(times, rows, speeds), tool


@pytest.mark.parametrize('share, slowed_by, follows', [
    (0.25, 'scale', True), (0.1, 'scale', True), (0.25, 'scale', False), (0.1, 'limits', False)])
def test_the_tool_stays_on_an_arc_at_a_part_of_the_speed(
        monkeypatch, share, slowed_by, follows):
    """The source follows the speed scale, as the policy does, or the mux alone slows down."""
    motion, tool = arc()
    assert (np.abs(motion.velocities)[:, ARM] / LIMITS.velocity[ARM]).max() > share
    settings = {'speed_scale': share}
    if slowed_by == 'limits':
        settings, slow = {}, replace(LIMITS, velocity=np.where(
            ARM, share * LIMITS.velocity, LIMITS.velocity))
        monkeypatch.setitem(globals(), 'ROBOT', replace(ROBOT, limits=slow))
    bench = Bench(max_jump=100.0, **settings)
    bench.run(0.1)
    begin_ns, timeline = bench.now + NANOSECONDS, Timeline()
    if follows:
        timeline.set_speed(share, bench.now)
    begin_plan_ns = timeline.to_plan(begin_ns)
    bench.goal = lambda t_ns: motion.sample(
        min(max(0, timeline.to_plan(t_ns) - begin_plan_ns), motion.end_ns))[0]
    bench.run(0.1)
    assert bench.choose(MuxMode.POLICY)[0]
    bench.run(2.0 + 1.3 * ARC_SECONDS / share)
    assert bench.mode == MuxMode.POLICY
    path = tool.points(np.array([
        motion.sample(t)[0] for t in range(0, motion.end_ns + 1, 500_000)]))
    reached = tool.points(np.array([q for _, q, _ in bench.executed[::3]]))
    off = [np.linalg.norm(path - point, axis=1).min() for point in reached]
    assert max(off) < (1e-5 if follows else MOST_OFF_ARC), f'{1000 * max(off):.2f} mm off the arc'
    assert np.linalg.norm(reached[-1] - path[-1]) < 1e-4  # and to its end


def test_a_plan_that_is_slow_enough_is_followed_in_time():
    bench = Bench(speed_scale=0.5)
    bench.run(0.1)
    bench.goal = circle(bench.now + NANOSECONDS, 0.5)
    bench.run(0.1)
    assert bench.choose(MuxMode.POLICY)[0]
    points = bench.run(4.0)
    assert max(np.abs(q - bench.goal(t)).max() for t, q, _ in points) < 1e-3


def test_a_playback_that_fell_behind_catches_up_within_the_limits():
    bench = Bench()
    bench.run(0.1)
    begin_ns = bench.now + NANOSECONDS

    def goal(t_ns):  # for a moment faster than the limits
        t = min(max(0.0, (t_ns - begin_ns) / NANOSECONDS), 6.0)
        share = t + 0.5 * math.exp(-((t - 1.0) / 0.1) ** 2)
        return ROBOT.home + WAY * share * 0.5
    bench.goal = goal
    bench.run(0.1)
    assert bench.choose(MuxMode.POLICY)[0]
    bench.run(5.0)
    assert_inside_limits(bench.executed)
    assert max(np.abs(q - goal(t)).max() for t, q, _ in bench.executed[-20:]) < 2e-3


@pytest.mark.parametrize('scale', [0.2])
def test_a_leader_that_is_too_fast_is_followed_in_its_direction(scale):
    bench = Bench(speed_scale=scale, teleop_approach_speed=1.0)
    bench.leader = lambda t_ns: ROBOT.home
    bench.run(0.2)
    assert bench.choose(MuxMode.TELEOP)[0]
    bench.run(0.5)
    way = np.where(ARM, np.linspace(1.0, 0.2, len(ARM)), 0.0)
    since = bench.now

    def leader(t_ns):  # at most 1.6 rad/s
        angle = min(math.pi, (t_ns - since) / NANOSECONDS * 3.2)
        return ROBOT.home + way * (1 - math.cos(angle)) / 2
    bench.leader = leader
    points = bench.run(1.5 / scale)
    assert bench.mode == MuxMode.TELEOP
    assert_inside_limits(points, scale)
    share = np.array([(q - ROBOT.home)[ARM] @ way[ARM] / (way @ way) for _, q, _ in points])
    off = [np.abs(q - ROBOT.home - way * u).max() for (_, q, _), u in zip(points, share)]
    assert max(off) < 0.01
    assert share[-1] == pytest.approx(1.0, abs=0.01) and share.max() < 1.01


@pytest.mark.parametrize('scale', [1.0, 0.3])
def test_home_is_reached_on_a_straight_line(scale):
    bench = Bench(speed_scale=scale, home_speed=0.5)
    start = ROBOT.home + np.where(ARM, np.linspace(-0.4, 0.5, len(ARM)), 0.0)
    bench.measured = start.copy()
    bench.run(0.1)
    assert bench.choose(MuxMode.HOLD)[0]
    bench.run(0.2)
    assert bench.mux.go_home(bench.now / NANOSECONDS)[0]
    points = bench.run(1.0)
    bench.mux.speed.set_operator(scale / 2)
    points += bench.run(12.0)
    assert bench.mux.machine.reason == 'at home'
    assert_inside_limits(points, scale * 0.5)
    way = ROBOT.home - start
    share = [(q - start) @ way / (way @ way) for _, q, _ in points]
    assert max(np.abs(q - start - way * u).max() for (_, q, _), u in zip(points, share)) < 1e-3


def test_a_driver_that_keeps_the_arm_still_means_hold_until_a_mode_is_chosen():
    bench = Bench()
    bench.run(0.1)
    bench.goal = circle(bench.now, 0.5)
    bench.run(0.1)
    assert bench.choose(MuxMode.POLICY)[0]
    bench.run(0.5)
    assert bench.mux.speed.take_driver(0.0) == ''
    bench.run(0.1)
    assert bench.mode == MuxMode.HOLD
    assert 'speed scaling above 0' in bench.mux.machine.reason
    assert 'speed scaling above 0' in bench.choose(MuxMode.POLICY)[1]
    assert not bench.mux.go_home(bench.now / NANOSECONDS)[0]
    bench.mux.speed.take_driver(100.0)
    bench.run(0.1)
    assert bench.mode == MuxMode.HOLD


def test_a_driver_that_is_followed_must_be_heard_and_go_on():
    speed = SpeedScale(1.0, full_scale=100.0, follows_driver=True)
    assert 'none came' in speed.faults[0]
    assert not speed.take_driver(50.0)
    assert speed.faults == () and speed.scale == 0.5
    for _ in range(99):
        speed.enforce(0.01)
    assert speed.faults == ()
    for _ in range(3):
        speed.enforce(0.01)
    assert 'silent for 1 s' in speed.faults[0]
    assert speed.take_driver(float('nan'))  # refused: it does not count as heard
    assert speed.faults == ("the driver's speed scaling (it is nan, expected 0 … 100)",)
    assert not speed.take_driver(50.0) and speed.faults == ()
    assert not speed.take_driver(0.0)
    assert 'above 0' in speed.faults[0]


def test_a_driver_whose_type_is_wrong_is_told_so_until_it_is_heard():
    speed = SpeedScale(1.0, full_scale=100.0, follows_driver=True)
    speed.refuse_driver('it has another type')
    assert speed.faults == ("the driver's speed scaling (it has another type)",)
    assert not speed.take_driver(50.0) and speed.faults == ()


def test_without_a_driver_its_silence_is_no_fault():
    speed = SpeedScale(0.5)
    for _ in range(500):
        speed.enforce(0.01)
    assert speed.faults == ()


def test_what_is_near_slows_down_at_once_and_the_operator_after_the_delay():
    speed = SpeedScale()
    speed.ask(PROXIMITY, 0.2)
    assert speed.source == PROXIMITY and speed.scale == 0.2
    assert speed.enforce(0.01) == pytest.approx(1.0 - PROXIMITY_RATE * 0.01)
    for _ in range(20):
        enforced = speed.enforce(0.01)
    assert enforced == pytest.approx(0.2)
    speed.ask(PROXIMITY, 1.0)
    assert speed.enforce(0.01) == 1.0
    speed.set_operator(0.1)
    speed.ask(PROXIMITY, 0.5)
    for _ in range(6):
        enforced = speed.enforce(0.01)
    assert enforced == pytest.approx(0.5), 'the operator waits for the policy'
    for _ in range(60):
        enforced = speed.enforce(0.01)
    assert enforced == pytest.approx(0.1)
