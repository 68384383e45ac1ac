"""The detector of a source that begins to move, and the leader arm that is that source."""

import numpy as np
import pytest

from lingbot_va_ros.mux.leader_arm import LeaderArm, LeaderJoint
from lingbot_va_ros.mux.motion_detector import MotionDetector
from lingbot_va_ros.mux.validation import Rejected
from lingbot_va_ros.specs.embodiment import load_embodiment

ROBOT = load_embodiment('sim_left')
NS = 1_000_000_000
HERE = np.array([0.1, 0.2, 0.6, 0.1, 0.2, 0.1, 0.02])


def test_only_what_has_rested_and_then_moves_far_enough_fires_and_once():
    detector = MotionDetector(0.1, rest=0.5)
    fired = [tick for tick in range(300) if detector.moved(
        np.array([0.0 if tick < 100 else 0.01 * (tick - 100)]), tick * 0.01)]
    assert fired == [111]


def test_what_never_rests_never_fires():
    detector = MotionDetector(0.1, rest=0.5)
    assert not any(detector.moved(np.array([0.01 * tick]), tick * 0.01) for tick in range(500))


def leader(**joint_map):
    return LeaderArm(ROBOT, joint_map, timeout=0.2, max_jump=0.2)


def take(arm, positions=HERE, at_ns=NS, now_ns=None, names=ROBOT.joints):
    now_ns = at_ns if now_ns is None else now_ns
    return arm.update(names, tuple(positions), at_ns, now_ns, now_ns / NS)


def goal(arm, time_ns):
    arm.begin(HERE)
    return arm.goal(time_ns - NS // 100, time_ns, 1.0)


@pytest.mark.parametrize('kind, second', [
    ('not_newer', {'at_ns': NS}),
    ('not_newer', {'at_ns': NS - 1000, 'now_ns': NS}),
    ('future', {'at_ns': 2 * NS, 'now_ns': NS + NS // 10}),
    ('stale', {'at_ns': NS + 1, 'now_ns': NS + NS // 2}),
    ('lengths', {'at_ns': NS + 1000, 'positions': HERE[:3]}),
    ('not_finite', {'at_ns': NS + 1000, 'positions': HERE * np.nan}),
    ('jump', {'at_ns': NS + NS // 100, 'positions': HERE + [1, 0, 0, 0, 0, 0, 0]}),
])
def test_a_message_of_the_leader_is_rejected_whole(kind, second):
    arm = leader()
    assert take(arm)
    with pytest.raises(Rejected) as caught:
        take(arm, **second)
    assert caught.value.kind == kind
    np.testing.assert_array_equal(goal(arm, NS)[0], HERE)


def test_other_joints_are_ignored_and_named_where_nothing_else_comes():
    arm = leader()
    assert not take(arm, (0.0, 1.0), names=('x', 'y'))
    assert arm.missing(NS, 1.0, HERE) == [
        'teleop/joint_states (no acceptable message received; seen were x, y)']


def test_one_joint_of_the_leader_may_lead_two_of_the_robot():
    arm = leader(left_joint_1=LeaderJoint('a'), left_joint_2=LeaderJoint('a', sign=-1))
    names = ('a', *ROBOT.joints[2:])
    take(arm, (0.3, *HERE[2:]), names=names)
    assert arm.missing(NS, 1.0, HERE) == []
    np.testing.assert_allclose(goal(arm, NS)[0], [0.3, -0.3, *HERE[2:]])


def test_between_messages_the_goal_goes_on_and_then_waits():
    arm = leader()
    for tick in range(30):
        take(arm, HERE + [0.005 * tick, 0, 0, 0, 0, 0, 0], NS + tick * NS // 100)
    last = NS + 29 * NS // 100
    q, v, _, _ = goal(arm, last)
    assert v[0] == pytest.approx(0.5, rel=0.1)
    assert goal(arm, last + NS // 100)[0][0] == pytest.approx(q[0] + 0.005, abs=5e-4)
    later = goal(arm, last + NS)[0][0]
    assert later == goal(arm, last + 2 * NS)[0][0]
