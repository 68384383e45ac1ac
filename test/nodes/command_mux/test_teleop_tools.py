"""MoveIt Servo and rqt_joint_trajectory_controller on teleop/joint_trajectory, over DDS."""

import time

import numpy as np
import pytest
from support import tool_messages
from support.followed_arm import FollowedArm
from support.messages import stamped
from support.node_processes import node_process
from support.spinning import spinning_node
from support.waiting import wait_for
from trajectory_msgs.msg import JointTrajectory

from lingbot_va_ros.msg import ControlMode
from lingbot_va_ros.nodes import qos
from lingbot_va_ros.specs.embodiment import load_embodiment

NAMESPACE = '/tools'
ROBOT = load_embodiment('sim_left')
ARM = ROBOT.joints[:6]
WAY = np.array([0.15, 0.1, -0.1, 0.1, 0.1, 0.1])


@pytest.fixture(scope='module')
def arm(tmp_path_factory):
    log = tmp_path_factory.mktemp('mux') / 'mux.log'
    patient = [word for name in ('source_timeout', 'joint_state_timeout')
               for word in ('-p', f'{name}:=3.0')]
    with node_process('command_mux', log, '-r', f'__ns:={NAMESPACE}', *patient) as process:
        with spinning_node('tools') as node:
            arm = FollowedArm(node, ROBOT, NAMESPACE)
            arm.process, arm.log = process, log
            arm.publisher = node.create_publisher(
                JointTrajectory, f'{NAMESPACE}/teleop/joint_trajectory', qos.COMMAND)
            arm.tool = None

            def send():
                if arm.tool is not None:
                    arm.publisher.publish(arm.tool())

            node.create_timer(0.03, send)
            wait_for(lambda: arm.mode is not None, 'the first mode')
            wait_for(arm.publisher.get_subscription_count, 'discovery')
            yield arm


def moves(tool):
    """Return a tool that leads the arm there, and the arm's places on the way and there."""
    begin = time.monotonic()

    def send():
        return tool(min(1.0, (time.monotonic() - begin) / 0.4))
    return send


def window(here, way, share, now):
    def goal(time_ns):
        return here[:6] + way * np.clip(share + (time_ns - now) * 1e-9 / 0.4, 0.0, 1.0)
    return tool_messages.servo_window(ARM, goal, now)


FORMS = {
    'servo of Humble, stamp 0': lambda here, way, share: tool_messages.servo_humble(
        ARM, here[:6] + share * way, way / 0.4 * (share < 1.0)),
    'servo of Humble, stamp now': lambda here, way, share: stamped(
        tool_messages.servo_humble(
            ARM, here[:6] + share * way, way / 0.4 * (share < 1.0)), time.time_ns()),
    'servo of Jazzy': lambda here, way, share: window(here, way, share, time.time_ns()),
    'rqt, all joints': lambda here, way, share: tool_messages.rqt(
        ROBOT.joints, [*(here[:6] + way), here[6]], 0.5),
    'rqt, the arm': lambda here, way, share: tool_messages.rqt(ARM, here[:6] + way, 0.5),
    'a first point at once': lambda here, way, share: tool_messages.with_first_point(
        tool_messages.rqt(ARM, here[:6] + way, 0.5), here[:6] + share * way)}


@pytest.mark.parametrize('form', FORMS)
def test_a_form_is_followed(arm, form):
    here = arm.hold()
    way = WAY if here[0] < ROBOT.home[0] + 0.05 else -WAY
    still = tool_messages.rqt(ARM, here[:6], 0.5)
    arm.tool = lambda: still
    arm.choose(ControlMode.TELEOP)
    arm.tool = moves(lambda share: FORMS[form](here, way, share))
    wait_for(lambda: np.all(np.abs(arm.end[:6] - here[:6] - way) < 5e-3), 'the way', 20.0)
    assert arm.mode == ControlMode.TELEOP and arm.end[6] == here[6]


def test_the_gripper_alone_keeps_the_arm(arm):
    here = arm.hold()
    sent = []

    def close():
        sent.append(tool_messages.rqt(['left_gripper_joint'], [0.01], 0.5))
        return sent[-1]

    arm.tool = close
    wait_for(lambda: len(sent) > 5, 'messages')
    arm.choose(ControlMode.TELEOP)
    wait_for(lambda: abs(arm.end[6] - 0.01) < 1e-4, 'the gripper', 20.0)
    np.testing.assert_allclose(arm.end[:6], here[:6], atol=1e-9)


@pytest.mark.parametrize('message, words', [
    (tool_messages.rqt(['elbow'], [0.0]), 'unknown joints elbow'),
    (tool_messages.rqt(ARM, [np.nan] * 6), 'is not a finite number'),
    (tool_messages.servo_humble(ARM, [0.0] * 5, [0.0] * 6), 'has 5 positions, expected 6')])
def test_what_is_wrong_is_refused_in_one_line(arm, message, words):
    arm.tool = lambda: message
    wait_for(lambda: words in arm.said('teleop_last_rejection'), words, 20.0)
    assert arm.said('teleop_last_rejection').count('\n') == 0
    arm.tool = None
    assert 'Traceback' not in arm.log.read_text()
