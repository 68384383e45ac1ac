"""Measured joints: merged by name; old, missing and future stamps are named."""

import numpy as np

from lingbot_va_ros.robot.joint_state_buffer import JointStateBuffer

NS = 1_000_000_000
NOW = 100 * NS


def measured(stamp_ns=NOW):
    joints = JointStateBuffer(['shoulder', 'elbow'])
    joints.update(['elbow', 'tail', 'shoulder'], [2.0, 9.0, 1.0], stamp_ns)
    return joints


def test_joints_come_in_the_order_asked_for_whatever_the_message_says():
    np.testing.assert_array_equal(measured().positions(), [1.0, 2.0])
    assert measured().fault(NOW, 0.5) is None


def test_arm_and_gripper_may_come_apart():
    joints = JointStateBuffer(['shoulder', 'gripper'])
    joints.update(['shoulder'], [1.0], NOW)
    assert joints.positions() is None and 'gripper' in joints.fault(NOW, 0.5)
    joints.update(['gripper'], [0.1], NOW)
    np.testing.assert_array_equal(joints.positions(), [1.0, 0.1])


def test_one_joint_that_has_fallen_silent_is_named_alone():
    joints = measured()
    joints.update(['elbow'], [2.1], NOW + NS)
    fault = joints.fault(NOW + NS, 0.5)
    assert 'shoulder' in fault and 'elbow' not in fault


def test_stamps_ahead_of_the_clock_do_not_pass_for_fresh():
    assert 'ahead' in measured(NOW + 2 * NS).fault(NOW, 0.5)
    assert measured(NOW + NS // 10).fault(NOW, 0.5) is None


def test_a_position_that_is_not_finite_is_left_as_old_as_it_was():
    joints = measured()
    joints.update(['elbow'], [float('nan')], NOW + NS)
    assert joints.positions()[1] == 2.0 and 'elbow' in joints.fault(NOW + NS, 0.5)


def test_who_else_was_heard_is_said_where_nothing_fits():
    joints = JointStateBuffer(['shoulder'])
    joints.update(['left_wheel', 'right_wheel'], [0.0, 0.0], NOW)
    assert 'left_wheel' in joints.fault(NOW, 0.5)
