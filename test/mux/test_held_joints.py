"""Held joints: where they are held, and what they refuse."""

from dataclasses import replace

import numpy as np
from support.two_joints import ROBOT

from lingbot_va_ros.motion.plan import resting_at
from lingbot_va_ros.mux.held_joints import HeldJoints
from lingbot_va_ros.mux.report import Tick
from lingbot_va_ros.specs.held_joints import HeldJoint

TORSO = HeldJoint('torso', None, 0.0, 0.4, 0.1)
LIFT = HeldJoint('lift', 0.3, 0.0, 0.4, 0.1)


def held_joints(*joints):
    return HeldJoints(replace(ROBOT, held_joints=joints), 0.2)


def tell(held, now_s, **positions):
    for index in range(3):
        time_s = now_s + 0.01 * index
        held.update(list(positions), list(positions.values()), 0, round(time_s * 1e9), time_s)
    return now_s + 0.03


def command(held):
    plan = resting_at(0, np.array([1.0, 2.0, 3.0]))
    return held.extend(Tick(command=plan)).command.positions[0]


def test_a_robot_without_them_is_sent_as_it_is():
    held = held_joints()
    tick = Tick(command=resting_at(0, np.zeros(3)))
    assert held.extend(tick) is tick and held.faults(5.0) == []


def test_an_unknown_joint_refuses_and_is_sent_as_nan():
    held = held_joints(TORSO)
    assert held.faults(5.0) == ['joint_states (none received)']
    assert np.isnan(command(held)[3])
    now = tell(held, 5.0, torso=0.1)
    assert held.faults(now) == []
    assert 'joint_states of torso' in held.faults(now + 1.0)[0]


def test_a_joint_is_held_where_it_was_measured_first():
    held = held_joints(TORSO)
    tell(held, 5.0, torso=0.1)
    np.testing.assert_allclose(command(held), [1.0, 2.0, 3.0, 0.1])
    now = tell(held, 5.1, torso=0.09)  # it sags
    np.testing.assert_allclose(command(held)[3], 0.1)
    assert held.faults(now) == []
    held.extend(Tick())
    np.testing.assert_allclose(command(held)[3], 0.1)  # nearer than the tolerance: held there
    now = tell(held, 5.2, torso=0.05)
    assert held.faults(now) == ["held joint 'torso' at 0.100 (it is at 0.050)"]
    held.extend(Tick())
    assert held.faults(now) == []
    np.testing.assert_allclose(command(held)[3], 0.05)  # others have moved it meanwhile


def test_a_joint_with_a_position_has_to_stand_there():
    held = held_joints(TORSO, LIFT)
    now = tell(held, 5.0, torso=0.1, lift=0.2)
    assert held.faults(now) == ["held joint 'lift' at 0.300 (it is at 0.200)"]
    now = tell(held, 6.0, torso=0.1, lift=0.31)
    assert held.faults(now) == []
    np.testing.assert_allclose(command(held), [1.0, 2.0, 3.0, 0.1, 0.31])
