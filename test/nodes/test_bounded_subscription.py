"""Messages that are too long are seen before they are converted."""

import pytest
from rclpy.serialization import serialize_message
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from lingbot_va_ros.nodes.bounded_subscription import (
    MAX_POINTS,
    state_fault,
    trajectory_counts,
    trajectory_fault,
)


def trajectory(points, joints=7, frame='', width=None):
    message = JointTrajectory(joint_names=['j' * (each % 5) for each in range(joints)])
    message.header.frame_id = frame
    point = JointTrajectoryPoint(positions=[0.1] * (joints if width is None else width))
    message.points = [point] * points
    return serialize_message(message)


@pytest.mark.parametrize('frame', ['', 'a', 'base', 'base_link'])
@pytest.mark.parametrize('points', [0, 1, 1000, 10_000])
@pytest.mark.parametrize('joints', [0, 1, 7, 16])
def test_joints_and_points_are_counted(points, joints, frame):
    assert trajectory_counts(trajectory(points, joints, frame)) == (joints, points)


def test_both_orders_of_bytes_are_read():
    big = b'\x00\x00\x00\x00' + bytes(8) + b'\x00\x00\x00\x01\x00' + bytes(3) + (
        b'\x00\x00\x00\x01' + b'\x00\x00\x00\x02j\x00' + bytes(2) + b'\x00\x00\x10\x00')
    assert trajectory_counts(big) == (1, 4096)


def test_what_is_cut_off_is_left_to_its_conversion():
    whole = trajectory(3)
    for end in range(len(whole)):
        assert trajectory_fault(whole[:end]) == ''


def test_bounds():
    assert trajectory_fault(trajectory(MAX_POINTS, joints=16)) == ''
    assert trajectory_fault(trajectory(1001)) == (
        'a trajectory of 1001 points; at most 1000 are taken')
    assert 'a trajectory of 300 joints' in trajectory_fault(trajectory(1, joints=300, width=0))
    assert 'bytes; at most 1048576 are taken' in trajectory_fault(trajectory(1, width=200_000))
    assert state_fault(serialize_message(JointState(name=['j'] * 64, position=[0.0] * 64))) == ''
    assert 'a message of' in state_fault(serialize_message(JointState(position=[0.0] * 10_000)))
