"""Measured joints: merged by name; silent, old and impossible ones are named, zeros refused."""

import numpy as np

from lingbot_va_ros.robot.joint_state_buffer import JointStateBuffer
from lingbot_va_ros.specs.embodiment import JointLimits
from lingbot_va_ros.specs.joint_state_topics import JointStateTopic

NS = 1_000_000_000
NOW = 100 * NS
STEP = NS // 100


class Joints:
    """A buffer whose clocks are the same one."""

    def __init__(self, *names):
        limits = (np.full(len(names), value) for value in (-3.0, 3.0, 2.0, 10.0, 100.0))
        self.buffer = JointStateBuffer(names, JointLimits(*limits), 0.5)
        self.now = NOW

    def take(self, names, positions, count=3, ahead=0):
        for _ in range(count):
            self.now += STEP
            self.buffer.update(
                names, positions, (), self.now + ahead, self.now, self.now / NS)

    def fault(self, later=0):
        return self.buffer.fault((self.now + later) / NS, 0.5)


def measured():
    joints = Joints('shoulder', 'elbow')
    joints.take(['elbow', 'tail', 'shoulder'], [2.0, 9.0, 1.0])
    return joints


def test_joints_come_in_the_order_asked_for_whatever_the_message_says():
    np.testing.assert_array_equal(measured().buffer.positions(), [1.0, 2.0])
    assert measured().fault() is None


def test_arm_and_gripper_may_come_apart():
    joints = Joints('shoulder', 'gripper')
    joints.take(['shoulder'], [1.0])
    assert joints.buffer.positions() is None and joints.fault() == (
        'no joint_states of gripper yet')
    joints.take(['gripper'], [0.1])
    np.testing.assert_array_equal(joints.buffer.positions(), [1.0, 0.1])


def test_one_joint_that_has_fallen_silent_is_named_alone():
    joints = measured()
    joints.now += NS
    joints.take(['elbow'], [2.0])
    assert joints.fault() == 'joint_states of shoulder are too old (1.03 s old)'


def test_stamps_of_another_clock_are_named():
    joints = Joints('shoulder')
    joints.take(['shoulder'], [1.0], ahead=2 * NS)
    assert joints.fault() == ("joint_states of shoulder are too old ('shoulder' is stamped "
                              '2.000 s ahead: the clocks are not synchronized)')
    joints.take(['shoulder'], [1.0], ahead=-2 * NS)
    assert 'stamped 2.00 s ago: late, or the clocks are not synchronized' in joints.fault()


def test_a_position_that_is_not_finite_is_left_as_old_as_it_was():
    joints = measured()
    joints.take(['elbow'], [float('nan')], count=60)
    assert joints.buffer.positions()[1] == 2.0
    assert "joint_states make no sense: 'elbow' is at nan" in joints.fault()


def test_zeros_of_another_publisher_do_not_become_the_state():
    joints = measured()
    for _ in range(50):
        joints.take(['shoulder', 'elbow'], [0.0, 0.0], count=1, ahead=-STEP // 2)
        joints.take(['shoulder', 'elbow'], [1.0, 2.0], count=1)
        np.testing.assert_array_equal(joints.buffer.positions(), [1.0, 2.0])
    assert joints.buffer.report(joints.now / NS).contradictions == (
        "'shoulder' is at 1 and at 0", "'elbow' is at 2 and at 0")


def test_who_else_was_heard_is_said_where_nothing_fits():
    joints = Joints('shoulder')
    joints.take(['left_wheel', 'right_wheel'], [0.0, 0.0])
    assert joints.fault() == (
        'no joint_states of shoulder yet; seen were left_wheel, right_wheel')


def test_a_topic_may_have_a_timeout_of_its_own():
    topics = (JointStateTopic('arm'), JointStateTopic('hand', names={'grip': 'g'}, timeout=2.0))
    names = ('shoulder', 'grip')
    limits = (np.full(2, value) for value in (-3.0, 3.0, 2.0, 10.0, 100.0))
    buffer = JointStateBuffer(names, JointLimits(*limits), 0.5, topics)
    for index in range(3):
        buffer.update(names, (1.0, 2.0), (), 0, NOW, 100.0 + 0.01 * index)
    assert buffer.fault(100.3, 0.5) is None
    assert 'shoulder' in buffer.fault(101.0, 0.5)
    assert 'grip' not in buffer.fault(101.0, 0.5)
    assert buffer.fault(101.0, 5.0) is None
    assert 'grip' in buffer.fault(102.5, 5.0)
