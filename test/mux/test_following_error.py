"""The following error: each joint has a limit in its own unit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lingbot_va_ros.mux.following_error import following_error, following_error_limits
from lingbot_va_ros.specs.controllers import Controller
from lingbot_va_ros.specs.embodiment import Arm, Embodiment, Gripper, JointLimits

JOINTS = ('rail', 'elbow', 'grip')
LIMITS = JointLimits(*np.ones((5, 3)))
ROBOT = Embodiment(
    name='on_a_rail', joints=JOINTS, limits=LIMITS, home=np.zeros(3),
    arms=(Arm('left', ('rail', 'elbow'), Gripper('grip', 0.04, 0.0)),),
    controllers=(Controller('c', JOINTS, 'trajectory'),), cameras={}, urdf=Path('none.urdf'))


def robot(*limits):
    return replace(ROBOT, limits=replace(LIMITS, following_error=np.array(limits)))


@pytest.mark.parametrize('embodiment, expected', [
    (ROBOT, [0.35, 0.35, np.inf]),
    (robot(0.02, np.nan, np.nan), [0.02, 0.35, np.inf]),
    (robot(0.02, 0.1, 0.01), [0.02, 0.1, 0.01])])
def test_a_joint_without_a_limit_of_its_own_has_the_default_and_a_gripper_none(
        embodiment, expected):
    np.testing.assert_array_equal(following_error_limits(embodiment, 0.35), expected)


@pytest.mark.parametrize('measured, words, can_retreat', [
    ([0.019, 0.34, 1.0], None, False),
    ([0.021, 0.34, 0.0], "'rail' is 0.021, more than 0.02", True),
    ([0.031, 0.36, 0.0], "'rail' is 0.031, more than 0.02", False),
    ([0.0, -0.36, 0.0], "'elbow' is 0.360, more than 0.35", True),
    ([0.0, 0.6, 0.0], "'elbow' is 0.600, more than 0.35", False)])
def test_the_joint_furthest_beyond_its_own_limit_is_named(measured, words, can_retreat):
    limits = following_error_limits(robot(0.02, np.nan, np.nan), 0.35)
    error = following_error(np.array(measured), np.zeros(3), limits, JOINTS)
    if words is None:
        assert error is None
    else:
        assert words in error.reason and error.can_retreat is can_retreat
