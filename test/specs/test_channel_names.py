"""Names and units of the channels of the shipped policies."""

import pytest

from lingbot_va_ros.resources import shared_file
from lingbot_va_ros.specs.channel_names import describe_channels, UNKNOWN
from lingbot_va_ros.specs.policy_file import load_policy_file, shipped_policies


def described(name):
    return describe_channels(load_policy_file(shared_file('config', 'policies', f'{name}.yaml')))


def test_joints_of_one_arm():
    assert described('untrained') == [
        *((f'left_joint_{number}', 'rad') for number in range(1, 7)),
        ('left_gripper', '0 closed, 1 open')]


@pytest.mark.parametrize('name', ['robotwin', 'franka'])
def test_poses_of_two_arms(name):
    names, units = zip(*described(name))
    assert names[:8] == (
        'left_x', 'left_y', 'left_z', 'left_qx', 'left_qy', 'left_qz', 'left_qw', 'left_gripper')
    assert names[8:] == tuple(name.replace('left', 'right') for name in names[:8])
    assert units[:4] == ('m', 'm', 'm', '1')


def test_the_changes_that_a_controller_takes():
    names, units = zip(*described('libero'))
    assert names == ('left_dx', 'left_dy', 'left_dz', 'left_rotation_x', 'left_rotation_y',
                     'left_rotation_z', 'left_gripper')
    assert set(units) == {'controller units'}


def test_nothing_is_claimed_of_joints_in_the_channels_of_a_pose():
    assert described('demo') == [(f'channel_{number}', UNKNOWN) for number in (0, 1, 2, 3, 4, 28)]


@pytest.mark.parametrize('name', shipped_policies())
def test_every_channel_has_a_name_of_its_own(name):
    names = [name for name, _ in described(name)]
    assert len(set(names)) == len(names)
