"""The workspace box: no command leads a tool out of it, and an arm outside has a way back."""

from dataclasses import replace
import time

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from lingbot_va_ros.mux.command_stream import CommandStream
from lingbot_va_ros.mux.goal import even_goal
from lingbot_va_ros.mux.workspace import WorkspaceWatch
from lingbot_va_ros.robot.kinematics import ArmKinematics
from lingbot_va_ros.specs.embodiment import load_embodiment, Workspace

PERIOD = 10_000_000
SIM = load_embodiment('sim_left')
BASE = SIM.arms[0].base_frame
ARM = ArmKinematics(SIM, SIM.arms[0])
HOME = ARM.forward(SIM.home[:6])[:3, 3]
# A box around the home pose, 0.1 m to each side.
BOXED = replace(SIM, base_frame=BASE, workspace=Workspace(HOME - 0.1, HOME + 0.1))
NOTHING = np.zeros((1, 2, 3))
joints = st.lists(st.floats(-1, 1), min_size=7, max_size=7).map(np.array)


def tool(q):
    return ARM.forward(q[:6])[:3, 3]


def outside(q):
    """Return how far the tool is outside the box on its worst axis, not asking the watch."""
    place = tool(q)
    return max(0.0, float(np.max(np.abs(place - HOME)) - 0.1))


def test_excess_is_that_of_forward_kinematics():
    watch = WorkspaceWatch(BOXED)
    q = SIM.home + [0.4, 0.2, -0.2, 0, 0.1, 0, 0]
    np.testing.assert_allclose(watch.places(q)[0], tool(q), atol=1e-12)
    assert np.max(watch.excess(q)) == pytest.approx(outside(q), abs=1e-12)
    assert watch.outside(SIM.home) is None


def test_a_breach_names_arm_axis_value_and_bound():
    watch = WorkspaceWatch(BOXED)
    q = SIM.home + [0.0, 0.6, 0, 0, 0, 0, 0]
    breach = watch.outside(q)
    axis = 'xyz'.index(breach.axis)
    assert breach.side == 'left' and breach.value == pytest.approx(tool(q)[axis])
    assert abs(breach.bound - HOME[axis]) == pytest.approx(0.1)
    assert f'the left tool at {breach.axis} = {breach.value:.3f} m' in str(breach)
    assert f'{breach.bound:.3f} m' in str(breach)


def test_a_path_that_leaves_between_two_points_inside_is_seen():
    watch = WorkspaceWatch(BOXED)
    turn = np.array([0.5, 0, 0, 0, 0, 0, 0])
    path = np.array([SIM.home - turn, SIM.home + turn])
    narrow = replace(BOXED, workspace=Workspace(
        np.array([-9.0, -9.0, -9.0]), np.array([HOME[0] - 1e-3, 9.0, 9.0])))
    assert watch.leaves(path, NOTHING)
    ends = WorkspaceWatch(narrow)
    assert not any(ends.outside(q) for q in path)
    assert ends.leaves(path, NOTHING)


def drive(stream, goals, start):
    """Return all positions that commands and their tails lead through, at quarters of a tick."""
    now, seen = 10 ** 12, []
    stream.begin(now, start, np.zeros(7))
    for goal, count in goals:
        for _ in range(count):
            q, v = stream.state(now)
            command = stream.follow(now, lambda _: (even_goal(goal), 1.0))
            gain = np.abs(command.sample(now + PERIOD)[1] - v)
            assert np.all(gain <= SIM.limits.acceleration * 0.01 + 1e-9)
            seen += [command.sample(now + part * PERIOD // 4)[0] for part in range(1, 5)]
            now += PERIOD
        ends = np.linspace(now, max(command.end_ns, now + 1), 9).astype(int)
        seen += [command.sample(int(t))[0] for t in ends]
    return seen


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(joints, st.integers(1, 40)), min_size=1, max_size=6))
def test_no_command_and_no_braking_tail_leaves_the_box(goals):
    middle, half = (SIM.limits.upper + SIM.limits.lower) / 2, (
        SIM.limits.upper - SIM.limits.lower) / 2
    stream = CommandStream(SIM.limits, PERIOD, WorkspaceWatch(BOXED))
    seen = drive(stream, [(middle + half * goal, count) for goal, count in goals], SIM.home)
    assert max(outside(q) for q in seen) < 1e-3


def test_at_the_wall_the_arm_rests_without_chatter_and_comes_back():
    stream = CommandStream(SIM.limits, PERIOD, WorkspaceWatch(BOXED))
    goal = SIM.home + [0.0, 1.0, 0, 0, 0, 0, 0]
    now, speeds = 10 ** 12, []
    stream.begin(now, SIM.home, np.zeros(7))
    for _ in range(300):
        command = stream.follow(now, lambda _: (even_goal(goal), 1.0))
        speeds.append(command.sample(now + PERIOD)[1][1])
        now += PERIOD
    rest = stream.state(now)[0]
    assert stream.blocked is not None
    # A motion lets go of a stop's braking less abruptly than the stop itself.
    assert min(speeds) > -0.005, 'it bounced off the wall'
    assert max(np.abs(speeds[-20:])) < 1e-3
    place = np.max(np.abs(tool(rest) - HOME))
    assert 0.095 < place <= 0.1 + 1e-6
    for _ in range(300):
        stream.follow(now, lambda _: (even_goal(SIM.home), 1.0))
        now += PERIOD
    np.testing.assert_allclose(stream.state(now)[0], SIM.home, atol=1e-6)


def test_from_outside_there_is_a_way_back_and_none_further_out():
    start = SIM.home + [0.0, 0.8, 0, 0, 0, 0, 0]
    out = outside(start)
    assert out > 0.05
    stream = CommandStream(SIM.limits, PERIOD, WorkspaceWatch(BOXED))
    further = drive(stream, [(start + [0.0, 0.3, 0, 0, 0, 0, 0], 100)], start)
    assert max(outside(q) for q in further) <= out + 1e-6
    stream = CommandStream(SIM.limits, PERIOD, WorkspaceWatch(BOXED))
    back = drive(stream, [(SIM.home, 300)], start)
    assert outside(back[-1]) == 0.0
    np.testing.assert_allclose(back[-1], SIM.home, atol=1e-6)


def test_two_arms_and_a_tick_are_watched_in_a_fraction_of_it():
    dual = load_embodiment('sim_dual')
    tools = [ArmKinematics(dual, replace(arm, base_frame='world')).place(dual.home[columns])
             for arm, columns in zip(dual.arms, (slice(0, 6), slice(6, 12)))]
    boxed = replace(dual, base_frame='world', workspace=Workspace(
        np.min(tools, axis=0) - 0.5, np.max(tools, axis=0) + 0.5))
    times = {}
    for name, watch in (('with', WorkspaceWatch(boxed)), ('without', None)):
        stream, now = CommandStream(dual.limits, PERIOD, watch), 10 ** 12
        stream.begin(now, dual.home, np.zeros(14))
        spent = []
        for tick in range(200):
            goal = dual.home + 0.3 * np.sin(tick * 0.02)
            begin = time.thread_time()
            stream.follow(now, lambda _: (even_goal(goal), 1.0))
            spent.append(time.thread_time() - begin)
            now += PERIOD
        times[name] = np.median(spent)
    print({name: f'{value * 1e6:.0f} us' for name, value in times.items()})
    assert times['with'] < 2e-3


def test_joints_that_are_not_the_arms_between_base_and_tool_are_named():
    with pytest.raises(ValueError, match='left arm'):
        WorkspaceWatch(replace(BOXED, base_frame='left_tool'))
