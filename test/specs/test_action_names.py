"""Names of an action's columns in the training data against the embodiment's joints."""

from dataclasses import replace

import numpy as np
import pytest

from lingbot_va_ros.resources import shared_file
from lingbot_va_ros.robot.action_map import make_action_map
from lingbot_va_ros.specs.action_names import compare_names, flat_names
from lingbot_va_ros.specs.embodiment import Arm, Embodiment, Gripper, JointLimits, load_embodiment
from lingbot_va_ros.specs.policy_file import load_policy_file

SO101 = ['shoulder_pan', 'shoulder_lift', 'elbow_flex', 'wrist_flex', 'wrist_roll']
VIPERX = ['waist', 'shoulder', 'elbow', 'forearm_roll', 'wrist_angle', 'wrist_rotate']
UR = ['shoulder_pan_joint', 'shoulder_lift_joint', 'elbow_joint', 'wrist_1_joint',
      'wrist_2_joint', 'wrist_3_joint']
FR3 = [f'fr3_joint{number}' for number in range(1, 8)]
LEFT = {count: [*range(14, 14 + count), 28] for count in (5, 6, 7)}
BOTH = [*range(14, 20), 28, *range(21, 27), 29]


def robot(*arms):
    """Return an embodiment of arms (side, joints, gripper joint)."""
    arms = tuple(Arm(side, tuple(joints), Gripper(gripper, 1.0, 0.0))
                 for side, joints, gripper in arms)
    names = tuple(name for arm in arms for name in arm.joints) + tuple(
        arm.gripper.joint for arm in arms)
    row = np.ones(len(names))
    return Embodiment(
        name='robot', joints=names, limits=JointLimits(-row, row, row, row, row),
        home=np.zeros(len(names)), arms=arms, controllers=(), cameras={}, urdf=None)


ONE = {
    'so101': robot(('left', SO101, 'gripper')),
    'ur': robot(('right', UR, 'robotiq_85_left_knuckle_joint')),
    'fr3': robot(('left', FR3, 'fr3_finger_joint1')),
    'viperx': robot(('left', VIPERX, 'left_finger'))}
DUAL = robot(
    ('left', [f'left_{name}' for name in VIPERX], 'left_left_finger'),
    ('right', [f'right_{name}' for name in VIPERX], 'right_left_finger'))
DUAL_FR3 = robot(
    ('left', [f'left_{name}' for name in FR3], 'left_fr3_finger_joint1'),
    ('right', [f'right_{name}' for name in FR3], 'right_fr3_finger_joint1'))


def sided(pattern, names):
    return [pattern.format(name) for name in names]


def compare(names, name='so101', channels=None):
    embodiment = ONE[name]
    arm, = embodiment.arms
    first = 14 if arm.side == 'left' else 21
    used = channels or [
        *range(first, first + len(arm.joints)), 28 if arm.side == 'left' else 29]
    return compare_names(names, used, embodiment, 'joints')


@pytest.mark.parametrize('name, names', [
    ('so101', sided('{}.pos', [*SO101, 'gripper'])),
    ('so101', sided('main_{}', [*SO101, 'gripper'])),
    ('so101', sided('left_{}', [*SO101, 'gripper'])), ('so101', [*SO101, 'gripper']),
    ('so101', ['motor_0', 'motor_1', 'motor_2', 'motor_3', 'motor_4', 'gripper']),
    ('ur', [*UR, 'gripper']), ('ur', [name.removesuffix('_joint') for name in UR] + ['grip']),
    ('fr3', [f'joint_{number}' for number in range(7)] + ['gripper_position']),
    ('fr3', [f'panda_joint{number}' for number in range(1, 8)] + ['panda_finger_joint1']),
    ('viperx', [*VIPERX, 'gripper'])])
def test_the_same_order_under_many_names_is_no_mistake(name, names):
    found = compare(names, name)
    assert found.mistake == found.remark == ''


@pytest.mark.parametrize('name, names, told', [
    ('so101', ['shoulder_lift', 'shoulder_pan', *SO101[2:], 'gripper'],
     'shoulder_lift (channel 14) is at shoulder_pan, not at shoulder_lift'),
    ('so101', sided('main_{}', [*SO101[:3], 'wrist_roll', 'wrist_flex', 'gripper']),
     'main_wrist_roll (channel 17) is at wrist_flex, not at wrist_roll'),
    ('so101', ['gripper.pos', *sided('{}.pos', SO101)],
     'gripper.pos (channel 14) is at shoulder_pan, not at gripper'),
    ('so101', ['motor_1', 'motor_0', 'motor_2', 'motor_3', 'motor_4', 'gripper'],
     'motor_1 (channel 14) is at shoulder_pan, not at shoulder_lift'),
    ('ur', ['elbow_joint', UR[1], UR[0], *UR[3:], 'gripper'],
     'elbow_joint (channel 21) is at shoulder_pan_joint, not at elbow_joint'),
    ('fr3', ['joint_2', 'joint_1', *(f'joint_{number}' for number in range(3, 8)), 'gripper'],
     'joint_2 (channel 14) is at fr3_joint1, not at fr3_joint2')])
def test_another_order_is_one_line(name, names, told):
    mistake = compare(names, name).mistake
    assert told in mistake and '\n' not in mistake and 'action_names' in mistake


def test_one_joint_astray_is_enough_whatever_the_others_are_called():
    names = ['a', 'b', 'c', 'd', 'shoulder_pan', 'e']
    assert 'shoulder_pan (channel 18) is at wrist_roll' in compare(names).mistake


@pytest.mark.parametrize('pattern', ['{side}_{name}', '{side}_{name}.pos', '{short}_{name}'])
def test_the_arms_of_the_data_may_be_exchanged(pattern):
    def names(*sides):
        return [pattern.format(side=side, short=side[0], name=name)
                for side in sides for name in (*VIPERX, 'gripper')]
    assert compare_names(names('left', 'right'), BOTH, DUAL, 'joints').mistake == ''
    assert compare_names(names('left', 'right'), BOTH, DUAL, 'joints').remark == ''
    mistake = compare_names(names('right', 'left'), BOTH, DUAL, 'joints').mistake
    assert f'{names("right")[0]} (channel 14) is at left_waist, not at right_waist' in mistake
    assert 'and 10 more' in mistake


def test_two_numbered_arms_are_compared_by_side_and_rank():
    channels = [*range(14, 21), 28, *range(21, 28), 29]
    names = [f'{side}_joint_{number}.pos' if number < 7 else f'{side}_gripper.pos'
             for side in ('left', 'right') for number in range(8)]
    found = compare_names(names, channels, DUAL_FR3, 'joints')
    assert found.mistake == found.remark == ''
    names[0], names[8] = names[8], names[0]
    assert 'is at left_fr3_joint1, not at right_fr3_joint1' in compare_names(
        names, channels, DUAL_FR3, 'joints').mistake


def test_names_that_cannot_be_told_apart_are_refused():
    mistake = compare(['main_shoulder_pan', 'shoulder_pan.pos', *SO101[2:], 'gripper']).mistake
    assert 'main_shoulder_pan, shoulder_pan.pos cannot be told apart' in mistake
    both = [*VIPERX, 'gripper', *(f'{name}.pos' for name in (*VIPERX, 'gripper'))]
    assert 'cannot be told apart' in compare_names(both, BOTH, DUAL, 'joints').mistake
    assert '\n' not in mistake


def test_names_that_say_nothing_are_a_remark():
    found = compare(['yaw', 'shoulder_lift', 'knee', 'wrist_flex', 'wrist_roll', 'gripper'])
    assert found.mistake == ''
    assert 'yaw (at shoulder_pan), knee (at elbow_flex); make sure' in found.remark


def test_the_order_of_poses_is_compared_too():
    dual = load_embodiment('sim_dual')
    channels = [*range(7), 28, *range(7, 14), 29]
    parts = ['x', 'y', 'z', 'qx', 'qy', 'qz', 'qw', 'gripper']
    good = [f'{side}_{part}' for side in ('left', 'right') for part in parts]
    quat = [name.replace('_q', '_quat_') for name in good]
    for names in (good, quat):
        found = compare_names(names, channels, dual, 'eef_absolute')
        assert found.mistake == found.remark == ''
    parts = ['x', 'y', 'z', 'qw', 'qx', 'qy', 'qz', 'gripper']
    scalar_first = [f'{side}_{part}' for side in ('left', 'right') for part in parts]
    assert 'left_qw (channel 3) is at left qx, not at left qw' in compare_names(
        scalar_first, channels, dual, 'eef_relative').mistake
    left = load_embodiment('sim_left')
    for names in (['dx', 'dy', 'dz', 'drx', 'dry', 'drz', 'gripper'],
                  ['delta_x', 'delta_y', 'delta_z', 'rot_x', 'rot_y', 'rot_z', 'gripper']):
        found = compare_names(names, range(7), left, 'eef_delta')
        assert found.mistake == found.remark == ''


@pytest.mark.parametrize('names, flat', [
    (['a', 'b'], ['a', 'b']), ([['a', 'b']], ['a', 'b']), ({'motors': ['a', 'b']}, ['a', 'b']),
    ({'b': 1, 'a': 0}, ['a', 'b']), ({'b': 2, 'a': 0}, None), (None, None), ([], None),
    ([1, 2], None), ('ab', None), ({'a': ['x'], 'b': ['y']}, None), ({}, None),
    (['a', ''], None), (['a' * 101], None), (['a\nb'], None)])
def test_the_forms_of_lerobots_names_are_flattened(names, flat):
    assert flat_names(names) == flat


def test_a_policy_with_other_names_makes_no_action_map():
    policy = load_policy_file(shared_file('config', 'policies', 'untrained.yaml'))
    robot = load_embodiment('sim_left')
    names = tuple(robot.joints)
    make_action_map(robot, replace(policy, action_names=names))
    with pytest.raises(ValueError, match='left_joint_2 .* is at left_joint_1, not'):
        make_action_map(robot, replace(
            policy, action_names=(names[1], names[0], *names[2:])))
