"""Model channels to joints and back, and errors for channels that do not fit."""

import numpy as np
import pytest

from lingbot_va_ros.robot.action_map import JointActionMap
from lingbot_va_ros.specs.embodiment import Arm, Embodiment, Gripper, JointLimits


def embodiment(*arms):
    joints = tuple(j for arm in arms for j in arm.joints)
    joints += tuple(arm.gripper.joint for arm in arms if arm.gripper)
    n = len(joints)
    return Embodiment(
        name='arm', joints=joints, limits=JointLimits(*np.ones((5, n))), home=np.zeros(n),
        arms=arms, controllers=(), cameras={}, urdf=None)


LEFT = Arm('left', ('l1', 'l2'), Gripper('lg', open=0.04, closed=0.01))
RIGHT = Arm('right', ('r1',), Gripper('rg', open=-1.0, closed=0.5))


def test_columns_reach_their_joints_in_command_order():
    action_map = JointActionMap(embodiment(LEFT, RIGHT), (29, 21, 15, 14, 28))
    joints = action_map.to_joints(np.array([[0.0, 0.3, 0.2, 0.1, 1.0]]), np.zeros(5))
    np.testing.assert_allclose(joints, [[0.1, 0.2, 0.3, 0.04, 0.5]])


def test_from_joints_is_the_inverse():
    action_map = JointActionMap(embodiment(LEFT, RIGHT), (14, 15, 28, 21, 29))
    actions = np.random.default_rng(0).uniform(-1, 1, (50, 5))
    np.testing.assert_allclose(
        action_map.from_joints(action_map.to_joints(actions, np.zeros(5))), actions, rtol=0,
        atol=1e-14)


def test_every_misfit_is_named_at_once():
    with pytest.raises(ValueError) as caught:
        JointActionMap(embodiment(LEFT), (14, 16, 29))
    text = str(caught.value)
    assert 'channels without a joint: [16, 29]' in text
    assert 'l2 (channel 15)' in text and 'lg (channel 28)' in text


def test_end_effector_channels_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r'channels \[0, 6\] are end-effector poses'):
        JointActionMap(embodiment(LEFT), (0, 6, 28))


def test_a_channel_used_twice_is_refused():
    with pytest.raises(ValueError, match=r'used twice: \[14\]'):
        JointActionMap(embodiment(LEFT), (14, 14, 15, 28))
