"""Twists, hands and a joystick over DDS: two arms that are led by their tools."""

import time
from types import SimpleNamespace

from geometry_msgs.msg import PoseStamped, TwistStamped
import numpy as np
import pytest
from sensor_msgs.msg import Joy
from support.followed_arm import FollowedArm
from support.messages import stamped
from support.motion_limits import assert_points_inside_limits
from support.node_processes import node_process
from support.spinning import spinning_node
from support.waiting import wait_for

from lingbot_va_ros.msg import ControlMode
from lingbot_va_ros.nodes import qos
from lingbot_va_ros.nodes.command_mux.tf_reader import TfReader
from lingbot_va_ros.robot.tool_kinematics import ToolKinematics
from lingbot_va_ros.specs.embodiment import load_embodiment

NAMESPACE = '/devices'
ROBOT = load_embodiment('sim_dual')
ARMS = {arm.side: (ToolKinematics(ROBOT, arm), [ROBOT.joints.index(name) for name in arm.joints])
        for arm in ROBOT.arms}
TIMEOUT = 0.6  # s; a busy machine may deliver late
PARAMETERS = {
    'source_timeout': TIMEOUT, 'joint_state_timeout': 3.0, 'deadman_button': 5,
    'deadman_modes': '[teleop]', 'joy_axes.linear_y': 1, 'joy_buttons.select_arm': 3,
    'joy_buttons.gripper': 4, 'teleop_pose_mode': 'relative', 'embodiment': 'sim_dual',
    'teleop_linear_speed': 0.1}


@pytest.fixture(scope='module')
def arms(tmp_path_factory):
    log = tmp_path_factory.mktemp('mux') / 'mux.log'
    words = [word for name, value in PARAMETERS.items() for word in ('-p', f'{name}:={value}')]
    with node_process('command_mux', log, '-r', f'__ns:={NAMESPACE}', *words) as process:
        with spinning_node('devices') as node:
            arms = FollowedArm(node, ROBOT, NAMESPACE)
            arms.process, arms.log = process, log
            arms.devices = {}  # functions that return a message, by topic
            publishers = {
                topic: node.create_publisher(kind, f'{NAMESPACE}/{topic}', qos.SENSOR)
                for topic, kind in (
                    ('teleop/left/twist', TwistStamped), ('teleop/right/twist', TwistStamped),
                    ('teleop/left/pose', PoseStamped), ('teleop/right/pose', PoseStamped),
                    ('joy', Joy))}

            def send():
                for topic, message in list(arms.devices.items()):
                    publishers[topic].publish(stamped(message(), time.time_ns()))

            node.create_timer(0.02, send)
            wait_for(lambda: arms.mode is not None, 'the first mode')
            for publisher in publishers.values():
                wait_for(publisher.get_subscription_count, 'discovery')
            yield arms


@pytest.fixture(autouse=True)
def rest(arms):
    arms.devices = {'joy': joy}
    begin = time.monotonic()
    arms.hold()
    # What led an arm before is forgotten.
    wait_for(lambda: time.monotonic() > begin + 1.3 * TIMEOUT, 'silence')
    yield
    assert arms.process.poll() is None and 'Traceback' not in arms.log.read_text()
    assert_points_inside_limits(arms.points(), ROBOT.home, ROBOT.limits, 0.01)


def joy(y=0.0, dead_man=1, select=0, gripper=0):
    return Joy(axes=[0.0, y], buttons=[0, 0, 0, select, gripper, dead_man])


def twist(y=0.0, frame=''):
    message = TwistStamped()
    message.header.frame_id, message.twist.linear.y = frame, y
    return message


def hand(x=0.0, y=0.0, z=0.0, frame=''):
    message = PoseStamped()
    message.header.frame_id = frame
    message.pose.position.x, message.pose.position.y, message.pose.position.z = x, y, z
    return message


def tool(arms, side):
    kinematics, columns = ARMS[side]
    return kinematics.place(arms.end[columns])


def test_one_arm_by_a_twist_and_the_other_by_a_hand(arms):
    begin = time.monotonic()
    before = tool(arms, 'left'), tool(arms, 'right')
    arms.devices.update({
        'teleop/left/twist': lambda: twist(), 'teleop/right/pose': lambda: hand(3.0, 1.0)})
    arms.choose(ControlMode.TELEOP)
    assert np.allclose(tool(arms, 'right'), before[1]), 'the arm does not travel to the hand'
    begin = time.monotonic()
    arms.devices.update({
        'teleop/left/twist': lambda: twist(0.05, 'left_base_link'),
        'teleop/right/pose': lambda: hand(
            3.0, 1.0 - 0.05 * min(1.0, time.monotonic() - begin), 0.0, 'right_base_link')})
    wait_for(lambda: tool(arms, 'left')[1] - before[0][1] > 0.04, 'the left arm', 20.0)
    wait_for(lambda: tool(arms, 'right')[1] - before[1][1] < -0.045, 'the right arm', 20.0)
    assert arms.mode == ControlMode.TELEOP
    arms.devices['teleop/left/twist'] = lambda: twist(-0.05)
    wait_for(lambda: tool(arms, 'left')[1] - before[0][1] < 0.01, 'the way back', 20.0)
    del arms.devices['teleop/left/twist']
    wait_for(lambda: arms.mode == ControlMode.HOLD, 'HOLD', 20.0)
    assert arms.modes[-1].reason.startswith('teleop/left/twist silent')


def test_a_joystick_leads_the_selected_arm_and_its_gripper(arms):
    before = {side: tool(arms, side) for side in ARMS}
    arms.choose(ControlMode.TELEOP)
    arms.devices['joy'] = lambda: joy(1.0)
    wait_for(lambda: tool(arms, 'left')[1] - before['left'][1] > 0.03, 'the left arm', 20.0)
    arms.devices['joy'] = lambda: joy(select=1)
    wait_for(lambda: arms.said('teleop_side') == 'right', 'the right arm selected', 20.0)
    arms.devices['joy'] = lambda: joy(-1.0, gripper=1)
    wait_for(lambda: tool(arms, 'right')[1] - before['right'][1] < -0.03, 'the right arm', 20.0)
    gripper = ROBOT.joints.index('right_gripper_joint')
    wait_for(lambda: abs(arms.end[gripper]) < 1e-6, 'the closed gripper', 20.0)
    assert arms.mode == ControlMode.TELEOP
    arms.devices['joy'] = lambda: joy(dead_man=0)
    wait_for(lambda: arms.mode == ControlMode.HOLD, 'HOLD', 20.0)
    assert 'dead-man' in arms.modes[-1].reason


@pytest.mark.parametrize('topic, message, words', [
    ('teleop/left/twist', lambda: twist(0.1, 'camera'), "frame 'camera' is neither the arm's"),
    ('teleop/left/twist', lambda: twist(np.nan), 'the twist has a number that is not finite'),
    ('teleop/right/pose', lambda: hand(np.inf), 'the pose has a number that is not finite'),
    ('joy', lambda: Joy(axes=[0.0, np.nan], buttons=[0, 0, 0, 0, 0, 1]),
     'axis 1 of joy (linear_y) is not a finite number')])
def test_what_is_wrong_is_refused_in_one_line(arms, topic, message, words):
    arms.devices[topic] = message
    wait_for(lambda: words in arms.said('teleop_last_rejection'), words, 20.0)
    assert '\n' not in arms.said('teleop_last_rejection')


def test_a_pose_out_of_reach_is_refused_and_the_arm_holds(arms):
    arms.devices['teleop/left/pose'] = hand
    arms.choose(ControlMode.TELEOP)
    begin = time.monotonic()
    arms.devices['teleop/left/pose'] = lambda: hand(
        x=min(0.6, 0.3 * (time.monotonic() - begin)))
    wait_for(lambda: 'cannot reach' in arms.said('teleop_note'), 'the end of its reach', 20.0)
    assert 'cannot reach the pose' in arms.said('teleop_last_rejection')


def test_two_devices_at_once_are_refused_and_held(arms):
    arms.devices['teleop/left/twist'] = twist
    arms.choose(ControlMode.TELEOP)
    arms.devices['teleop/left/pose'] = hand
    wait_for(lambda: arms.mode == ControlMode.HOLD, 'HOLD', 20.0)
    assert 'two devices at once lead the left arm' in arms.modes[-1].reason
    answer = arms.set_mode(ControlMode.TELEOP)
    assert not answer.success and 'both teleop/left/twist and teleop/left/pose' in answer.message


def test_tf_tells_where_a_frame_is():
    """tf2_msgs has no wheel: the messages are stood in for."""
    reader = TfReader(None)
    reader._fault = ''
    assert reader.pose('base', 'room') == "tf has no frame 'room'"

    def put(parent, frame, x, quaternion, is_static):
        x_axis, y_axis, z_axis, w = quaternion
        reader.take(SimpleNamespace(transforms=[SimpleNamespace(
            header=SimpleNamespace(frame_id=parent), child_frame_id=frame,
            transform=SimpleNamespace(
                translation=SimpleNamespace(x=x, y=0.0, z=0.0),
                rotation=SimpleNamespace(x=x_axis, y=y_axis, z=z_axis, w=w)))]), is_static)

    put('map', '/base', 1.0, (0.0, 0.0, 0.0, 1.0), True)
    put('map', 'room', 3.0, (0.0, 0.0, np.sqrt(0.5), np.sqrt(0.5)), False)
    put('map', 'broken', np.nan, (0.0, 0.0, 0.0, 0.0), False)
    pose = reader.pose('base', 'room')
    np.testing.assert_allclose(pose[:3, 3], [2.0, 0.0, 0.0])
    np.testing.assert_allclose(pose[:3, 0], [0.0, 1.0, 0.0], atol=1e-12)
    assert reader.pose('base', 'broken') == "tf has no frame 'broken'"
    put('elsewhere', 'island', 0.0, (0.0, 0.0, 0.0, 1.0), True)
    assert reader.pose('base', 'island') == "tf does not connect 'island' with 'base'"
