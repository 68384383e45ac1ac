"""Two arms never come nearer than the stop distance, whatever drives them; MuJoCo judges."""

from dataclasses import replace

import numpy as np
import pytest
from support.dual_arms import (
    Arms,
    free_positions,
    HOME,
    JOINTS,
    Judge,
    LIMITS,
    model,
    PERIOD,
    plan_message,
    ROBOT,
    STOP,
    TURN,
)
from support.motion_limits import assert_points_inside_limits

from lingbot_va_ros.motion.plan import Plan
from lingbot_va_ros.mux.collision_watch import CollisionWatch
from lingbot_va_ros.mux.command_stream import CommandStream
from lingbot_va_ros.mux.goal import even_goal
from lingbot_va_ros.mux.modes import MuxMode
from lingbot_va_ros.mux.proximity import SLOWEST
from lingbot_va_ros.mux.state_watch import make_watches

# Between two checked states bodies may come this much nearer than the stop distance, m.
BETWEEN = 0.002
LEAST = STOP - BETWEEN
# A leader's motion of less than this share of a joint's range is noise.
HOME_NOISE = 0.0005 * float(np.max(LIMITS.upper - LIMITS.lower)) + 1e-3


@pytest.fixture(scope='module')
def judge():
    return Judge()


def nearest_of(judge, rows):
    return min(judge.nearest(q)[0] for q in rows)


def tail_of(command, places=6):
    return [command.sample(int(t))[0]
            for t in np.linspace(command.times_ns[0], command.end_ns, places)]


def assert_inside_limits(arms, start):
    assert_points_inside_limits(arms.executed, start, LIMITS, PERIOD * 1e-9)


@pytest.mark.parametrize('seed', (1, 3))
def test_no_command_and_no_braking_tail_comes_nearer_at_full_speed(seed):
    judge, rng = Judge(), np.random.default_rng(seed)
    start = free_positions(rng)
    stream, now = CommandStream(LIMITS, PERIOD, make_watches(ROBOT, model()), 0.01), 10 ** 12
    stream.begin(now, start, np.zeros(14))
    seen = []
    for goal in rng.uniform(LIMITS.lower, LIMITS.upper, (3, 14)):
        for tick in range(40):
            command = stream.follow(now, lambda _: (even_goal(goal), 1.0))
            seen += [command.sample(now + part * PERIOD // 2)[0] for part in (1, 2)]
            seen += tail_of(command) if tick % 4 == 0 else []
            now += PERIOD
    assert nearest_of(judge, seen) >= LEAST


@pytest.mark.parametrize('seed', range(2))
def test_a_leader_that_drives_one_arm_into_the_other_is_kept_off_and_can_lead_it_away(seed):
    judge, rng = Judge(), np.random.default_rng(seed)
    start = free_positions(rng)
    arms = Arms(start, teleop_approach_speed=1.0)
    arms.begin(MuxMode.TELEOP)
    for goal in rng.uniform(LIMITS.lower, LIMITS.upper, (2, 14)):
        arms.goal = goal
        arms.run(60)
    assert arms.mode == MuxMode.TELEOP, arms.mux.machine.reason
    arms.goal = start
    far = np.abs(arms.q - start).max()
    arms.run(150)
    assert np.abs(arms.q - start).max() < max(0.5 * far, HOME_NOISE)
    assert nearest_of(judge, [q for _, q, _ in arms.executed]) >= LEAST
    assert_inside_limits(arms, start)


def meeting_arms(**settings):
    """Return two arms that a leader drives into each other at full speed."""
    arms = Arms(teleop_approach_speed=1.0, **settings)
    arms.begin(MuxMode.TELEOP)
    arms.goal = HOME + TURN
    return arms


def test_two_arms_that_meet_at_full_speed_slow_down_stop_and_can_be_driven_away(judge):
    arms = meeting_arms()
    arms.run(250)
    nearest, one, other = judge.nearest(arms.q)
    assert LEAST <= nearest < STOP + 0.01
    assert {one.split('_')[0], other.split('_')[0]} == {'left', 'right'}
    assert nearest_of(judge, [q for _, q, _ in arms.executed]) >= LEAST
    assert np.abs(arms.executed[-1][2]).max() < 0.02
    assert min(arms.scales) < 0.3 and min(arms.scales) >= SLOWEST
    assert arms.mode == MuxMode.TELEOP
    report = arms.mux.report(arms.now_s)
    assert set(report.nearest.bodies) == {one, other}
    assert report.nearest.distance == pytest.approx(nearest, abs=1e-3)
    assert report.blocked is not None and report.blocked.kind == 'collision'
    assert report.blocked_ticks['collision'] > 0
    arms.goal = HOME
    arms.run(250)
    np.testing.assert_allclose(arms.q, HOME, atol=HOME_NOISE)
    assert_inside_limits(arms, HOME)


def test_an_emergency_stop_while_arms_meet_stops_them_apart_and_inside_the_limits(judge):
    # One run without and then stops at any moment of the approach.
    for ticks in range(14, 60, 15):
        arms = meeting_arms()
        arms.run(ticks)
        arms.mux.take_emergency_stop(True, arms.now_s)
        arms.run(60)
        assert arms.mode == MuxMode.STOPPED
        assert not np.any(arms.executed[-1][2])
        assert nearest_of(judge, [q for _, q, _ in arms.executed[-80:]]) >= LEAST
        assert_inside_limits(arms, HOME)


def test_a_plan_that_would_collide_is_refused_whole_by_bodies_and_time():
    arms = Arms()
    arms.run(5)
    message = plan_message(arms.now, HOME, HOME + TURN, 2.0)
    reason = arms.mux.take_policy_plan(message, arms.now, arms.now_s)
    assert 'left_' in reason and 'right_' in reason and 's after its first point' in reason
    after = float(reason.split(', ')[-1].split(' s ')[0])
    assert 0.3 < after < 1.9
    rejected = arms.mux.report(arms.now_s).sources.rejected
    assert rejected == {'collision': 1}
    arms.run(3)
    message = plan_message(arms.now, HOME, HOME + 0.3 * TURN, 2.0)
    assert arms.mux.take_policy_plan(message, arms.now, arms.now_s) is None
    # From where the time counts there is nothing too near before.
    plan = Plan(*(np.array(part) for part in zip(*[
        (point.time_from_start_ns, point.positions, point.velocities)
        for point in plan_message(0, HOME, HOME + TURN, 2.0).points], strict=True)))
    watch = CollisionWatch(model())
    first = int(plan.times_ns[0])
    assert watch.outside(plan.sample(first + int((after - 0.03) * 1e9))[0]) is None
    assert watch.outside(plan.sample(first + int((after + 0.03) * 1e9))[0]) is not None


def test_a_plan_whose_points_are_clear_and_whose_way_between_them_is_not_is_refused():
    arms = Arms()
    arms.run(5)
    there = crossed()
    message = plan_message(arms.now, 2.0 * HOME - there, there, 3.0, points=2)
    np.testing.assert_allclose(message.points[0].positions, HOME)
    reason = arms.mux.take_teleop_plan(message, arms.now, arms.now_s)
    assert 'm apart are needed)' in reason and 's after its first point' in reason


def test_too_many_plans_that_would_collide_mean_hold_with_the_bodies_in_the_reason():
    arms = Arms(max_rejections=5)
    arms.run(5)

    def send(goal):
        arms.mux.take_policy_plan(
            plan_message(arms.now, arms.q, goal, 2.0), arms.now, arms.now_s)
    send(HOME)
    arms.run(2)
    assert arms.choose(MuxMode.POLICY)[0]
    arms.run(10, lambda: send(HOME + TURN))
    assert arms.mode == MuxMode.HOLD
    assert 'left_' in arms.mux.machine.reason and 'right_' in arms.mux.machine.reason


def too_near(rng):
    """Return positions [J] with hands nearer than the stop distance, and the pair's number."""
    low, high = 0.0, 1.0
    watch = CollisionWatch(model())
    for _ in range(30):
        middle = (low + high) / 2.0
        nearest = watch.nearest(HOME + middle * TURN)[0].distance
        low, high = (middle, high) if nearest > 0.012 else (low, middle)
    return HOME + low * TURN


def test_from_too_near_there_is_a_way_apart_and_none_nearer(judge):
    start = too_near(None)
    begin = judge.nearest(start)[0]
    assert 0.005 < begin < STOP
    arms = Arms(start, teleop_approach_speed=1.0)
    arms.begin(MuxMode.TELEOP)
    arms.goal = HOME + TURN
    arms.run(100)
    assert arms.mode == MuxMode.TELEOP
    assert judge.nearest(arms.q)[0] >= begin - 2e-4
    arms.goal = HOME
    arms.run(300)
    np.testing.assert_allclose(arms.q, HOME, atol=HOME_NOISE)


def test_a_plan_from_too_near_may_lead_apart_and_not_nearer():
    start = too_near(None)
    arms = Arms(start)
    arms.run(5)
    assert arms.mux.take_policy_plan(
        plan_message(arms.now, start, HOME, 2.0), arms.now, arms.now_s) is None
    arms.run(1)
    assert 'apart are needed' in arms.mux.take_policy_plan(
        plan_message(arms.now, start, HOME + TURN, 2.0), arms.now, arms.now_s)


def test_go_home_is_refused_by_name_of_what_is_in_the_way():
    # Both hands have passed each other: the way back leads through.
    arms = Arms(crossed())
    arms.run(5)
    assert arms.choose(MuxMode.HOLD)[0]
    arms.run(5)
    success, reason = arms.mux.go_home(arms.now_s)
    assert not success
    assert reason.startswith('on the way home is')
    assert ' and ' in reason and 'apart are needed' in reason
    arms = Arms(HOME + 0.2 * TURN)
    arms.run(5)
    assert arms.choose(MuxMode.HOLD)[0]
    arms.run(5)
    assert arms.mux.go_home(arms.now_s)[0]
    arms.run(300)
    assert arms.mux.machine.reason == 'at home'


def crossed():
    """Return positions from which the straight way home leads one arm through the other."""
    watch, rng = CollisionWatch(model()), np.random.default_rng(3)
    while True:
        q = free_positions(rng, 0.05)
        q[12:] = HOME[12:]
        if watch.outside(q) is None and watch.leaves(np.stack((q, HOME)), watch.nothing):
            return q


def test_far_arms_cost_no_distance_at_all():
    watch = CollisionWatch(model())
    asked = []
    at = watch._distances.at
    watch._distances.at = lambda q, pairs=None: asked.append(len(pairs)) or at(q, pairs)
    path = np.linspace(HOME, HOME + 0.01, 9)
    assert not watch.leaves(path, watch.nothing)
    assert not asked
    assert not watch.leaves(np.linspace(HOME, HOME + 0.02 * TURN, 9), watch.nothing)
    assert sum(asked) <= 4


def test_a_wild_plan_of_a_thousand_points_is_refused_after_few_distances():
    rng = np.random.default_rng(0)
    rows = np.clip(HOME + np.cumsum(rng.normal(0.0, 0.3, (1000, 14)), axis=0),
                   LIMITS.lower, LIMITS.upper)
    watch = CollisionWatch(model())
    asked = []
    at = watch._distances.at
    watch._distances.at = lambda q, pairs=None: asked.append(q) or at(q, pairs)
    place, too_near = watch.first_outside(rows, watch.nothing)
    assert len(asked) < 200
    before = watch.first_outside(rows[:int(place) + 1], watch.nothing)
    assert before is None and too_near.distance < STOP


def test_a_position_that_is_no_number_is_never_far_enough():
    watch = CollisionWatch(model())
    path = np.stack((HOME, HOME))
    path[1, 0] = np.nan
    assert watch.leaves(path, watch.nothing)


def test_without_the_section_the_arms_meet():
    arms = Arms(robot=replace(ROBOT, collision=None), teleop_approach_speed=1.0)
    arms.begin(MuxMode.TELEOP)
    arms.goal = HOME + TURN
    arms.run(150)
    assert Judge().nearest(arms.q)[0] < 0.0
    assert arms.mux.report(arms.now_s).nearest is None
    assert len(JOINTS) == 14


def test_gripper_and_speed_scale_stay_free_where_nothing_approaches():
    arms = meeting_arms()
    arms.run(120)
    # They rest near each other: nothing is slowed down, and the grippers move.
    arms.goal = arms.leader.copy()
    arms.goal[12:] = 0.0
    arms.run(100)
    assert arms.scales[-1] == 1.0
    assert np.all(arms.q[12:] < 1e-3)
