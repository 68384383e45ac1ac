"""Arms that are led by their tools: twists, hands, frames, limits, and two devices at once."""

from dataclasses import replace

import numpy as np
import pinocchio as pin
import pytest
from support.tool_stage import apart, DUAL, HOME, moved, PERIOD, ROBOT
from support.tool_stage import ToolStage as Stage

from lingbot_va_ros.mux.hand_input import take_hand
from lingbot_va_ros.mux.joystick import JoyBindings
from lingbot_va_ros.mux.modes import MuxMode
from lingbot_va_ros.mux.mux import Mux
from lingbot_va_ros.mux.settings import MuxSettings
from lingbot_va_ros.mux.tool_messages import ToolPose, ToolTwist

# ---- twists

def test_a_twist_moves_the_tool_straight_at_its_speed_and_stops():
    stage = Stage()
    stage.teleop(lambda: stage.twist(0, 0, 0, 0, 0, 0))
    stage.run(30)
    begin = stage.tool()
    assert np.array_equal(stage.measured, HOME), 'a twist of zeros keeps the arm'
    stage.devices = [lambda: stage.twist(0.0, 0.1, 0.0, 0, 0, 0)]
    stage.run(100)
    after = stage.tool()
    assert after[1, 3] - begin[1, 3] == pytest.approx(0.1, abs=0.015)
    assert np.linalg.norm((after - begin)[[0, 2], 3]) < 2e-3
    assert apart(begin, after)[1] < 2e-3
    stage.devices = [lambda: stage.twist(0, 0, 0, 0, 0, 0)]
    stage.run(60)
    assert not np.any(stage.speed) and stage.mode == MuxMode.TELEOP and not stage.refused
    stage.assert_inside_limits()


def test_a_turn_is_about_the_axes_of_its_frame():
    for frame, axis in (('world', 'base'), ('left_tool', 'tool'), ('table', 'table')):
        table = moved(np.eye(4), turn=(0.0, 0.0, np.pi / 2))
        stage = Stage()
        stage.teleop(lambda s=stage, f=frame, t=table: s.twist(
            0, 0, 0, 0.3, 0, 0, frame=f, pose=t if f == 'table' else None))
        begin = stage.tool()
        stage.run(100)
        after = stage.tool()
        turn = pin.log3(after[:3, :3] @ begin[:3, :3].T)
        expected = {'base': np.array([1.0, 0, 0]), 'tool': begin[:3, 0],
                    'table': np.array([0, 1.0, 0])}[axis]
        assert turn @ expected == pytest.approx(0.3, abs=0.05)
        assert np.linalg.norm(turn - (turn @ expected) * expected) < 0.02
        assert apart(begin, after)[0] < 5e-3
        stage.assert_inside_limits()


def test_scales_and_the_fastest_twist():
    stage = Stage(teleop_linear_scale=0.5, teleop_linear_speed=0.1)
    for asked, speed in ((0.1, 0.05), (1e9, 0.1), (1e300, 0.1)):
        stage.teleop(lambda a=asked: stage.twist(0, a, 0, 0, 0, 0))
        stage.run(50)
        begin = stage.tool()
        stage.run(50)
        assert apart(begin, stage.tool())[0] == pytest.approx(0.5 * speed, rel=0.05)
        stage.choose(MuxMode.HOLD)
        stage.run(40)
    stage.assert_inside_limits()


def test_silence_of_a_twist_means_hold():
    stage = Stage()
    stage.teleop(lambda: stage.twist(0, 0.1, 0, 0, 0, 0))
    stage.run(50)
    stage.devices = []
    stage.run(30)
    assert stage.mode == MuxMode.HOLD
    assert stage.mux.machine.reason.startswith('teleop/twist silent for 0.2 s')
    stage.run(30)
    assert not np.any(stage.speed)
    stage.assert_inside_limits()


@pytest.mark.parametrize('direction', [(1.0, 0.0, 0.0), (0.0, 0.0, -1.0)])
def test_a_twist_ends_at_the_limits_and_comes_back(direction):
    stage = Stage(teleop_linear_speed=1.0)
    stage.teleop(lambda: stage.twist(*direction, 0, 0, 0))
    stage.run(200)
    assert stage.mode == MuxMode.TELEOP
    assert np.abs(stage.speed).max() < 0.05, 'at the end of its reach or of a joint'
    note = stage.mux.report(stage.now_s).sources.teleop_note
    assert 'is near its limit' in note or 'singularity' in note
    end = stage.tool()
    stage.devices = [lambda: stage.twist(*(-0.2 * np.array(direction)), 0, 0, 0)]
    stage.run(70)
    assert (end - stage.tool())[:3, 3] @ direction > 0.02, 'it comes back at once'
    stage.assert_inside_limits()


def test_a_twist_is_slower_at_a_lower_speed_scale():
    stage = Stage(speed_scale=0.05, teleop_linear_speed=1.0)
    stage.teleop(lambda: stage.twist(0, 1.0, 0, 0, 0, 0))
    stage.run(100)
    assert np.max(np.abs([v for _, _, v in stage.executed]) / ROBOT.limits.velocity) < 0.0501


@pytest.mark.parametrize('values, frame, kind, words', [
    ((np.nan, 0, 0, 0, 0, 0), '', 'not_finite', 'not finite'),
    ((0, 0, 0, 0, 0, np.inf), '', 'not_finite', 'not finite'),
    ((0.1, 0, 0, 0, 0, 0), 'camera', 'frame', "frame 'camera' is neither the arm's base "
     "'left_base_link' nor its tool 'left_tool'")])
def test_a_wrong_twist_is_refused_and_then_the_arm_holds(values, frame, kind, words):
    stage = Stage()
    stage.teleop(lambda: stage.twist(0, 0.1, 0, 0, 0, 0))
    stage.run(30)
    stage.devices = [lambda: stage.twist(*values, frame=frame)]
    stage.run(30)
    assert words in stage.refused[-1]
    assert stage.mux.report(stage.now_s).sources.teleop_rejected[kind] > 2
    assert stage.mode == MuxMode.HOLD and words in stage.mux.machine.reason
    stage.assert_inside_limits()


def test_stamps_of_twists_are_checked_and_zero_is_none():
    stage = Stage()
    stage.run(3)
    assert stage.twist(0, 0, 0, 0, 0, 0, stamp=0) is None
    assert stage.twist(0, 0, 0, 0, 0, 0) is None
    assert 'not newer' in stage.twist(0, 0, 0, 0, 0, 0)
    assert 'future' in stage.twist(0, 0, 0, 0, 0, 0, stamp=stage.now + 200_000_000)
    assert 'ago' in stage.twist(0, 0, 0, 0, 0, 0, stamp=stage.now - 300_000_000)


# ---- hands

def test_a_hand_is_followed_relatively_from_wherever_it_is():
    stage = Stage()
    far = moved(np.eye(4), (3.0, -2.0, 1.0), (0.5, 0.2, 0.0))
    place = [far]
    stage.teleop(lambda: stage.hand(place[0]))
    stage.run(30)
    assert np.array_equal(stage.measured, HOME), 'the arm does not travel to the hand'
    begin, start = stage.tool(), stage.now
    for _ in range(100):
        share = (stage.now - start) * 1e-9
        place[0] = moved(far, np.array([0.05, 0.08, -0.04]) * share, (0, 0, 0.3 * share))
        stage.run(1)
    stage.run(50)
    np.testing.assert_allclose(
        apart(stage.tool(), moved(begin, (0.05, 0.08, -0.04), (0, 0, 0.3))), 0.0, atol=5e-3)
    assert stage.mode == MuxMode.TELEOP and not stage.refused
    stage.assert_inside_limits()


def test_a_hand_that_was_away_meanwhile_is_followed_from_where_it_is_then():
    stage = Stage()
    place = [np.eye(4)]
    stage.teleop(lambda: stage.hand(place[0]))
    stage.run(20)
    stage.choose(MuxMode.HOLD)
    stage.devices = []
    stage.run(40)
    place[0] = moved(np.eye(4), (0.4, 0.3, 0.0))
    stage.teleop(lambda: stage.hand(place[0]))
    stage.run(20)
    assert np.array_equal(stage.measured, HOME) and not stage.refused


def test_a_hand_near_the_tool_is_followed_absolutely_and_a_far_one_is_refused():
    stage = Stage(teleop_pose_mode='absolute', teleop_max_distance=0.2)
    goal = moved(stage.tool(HOME), (0.0, 0.1, 0.05))
    far = moved(goal, (0.0, 0.3, 0.0))
    stage.devices = [lambda: stage.hand(far)]
    stage.run(6)
    success, message = stage.choose()
    assert not success and 'a hand near the left tool: it is 0.4' in message
    stage.teleop(lambda: stage.hand(goal))
    stage.run(200)
    np.testing.assert_allclose(apart(stage.tool(), goal), 0.0, atol=2e-3)
    here = stage.measured.copy()
    stage.devices = [lambda: stage.hand(far)]
    stage.run(30)
    assert stage.mode == MuxMode.HOLD and 'teleop_max_distance' in stage.mux.machine.reason
    np.testing.assert_allclose(stage.measured, here, atol=2e-3)
    stage.assert_inside_limits()


def test_a_pose_that_is_out_of_reach_from_the_begin_is_refused_by_set_mode():
    stage = Stage(teleop_pose_mode='absolute')
    stage.devices = [lambda: stage.hand(moved(stage.tool(HOME), (0.6, 0.0, 0.0)))]
    stage.run(6)
    success, message = stage.choose()
    assert not success and 'a hand in reach: the left arm cannot reach the pose' in message
    assert '\n' not in message


def test_a_clutch_that_closes_leads_the_arm_gently_to_a_hand_elsewhere():
    bindings = JoyBindings(buttons={'clutch': 0})
    stage = Stage(bindings=bindings, teleop_pose_mode='absolute', teleop_approach_speed=0.2)
    place, button = [stage.tool(HOME)], [1]
    stage.teleop(lambda: stage.joy((), button), lambda: stage.hand(place[0]))
    stage.run(30)
    button[0] = 0
    stage.run(4)
    place[0] = moved(stage.tool(HOME), (0.0, 0.1, 0.05))
    stage.run(20)
    assert np.array_equal(stage.measured, HOME)
    button[0] = 1
    stage.run(60)
    fastest = np.max([np.abs(v) for _, _, v in stage.executed], axis=0)
    assert np.all(fastest <= 0.2 * ROBOT.limits.velocity + 1e-9) and fastest.max() > 0.1
    stage.run(150)
    np.testing.assert_allclose(apart(stage.tool(), place[0]), 0.0, atol=2e-3)
    stage.assert_inside_limits()


@pytest.mark.parametrize('leader', [False, True])
def test_a_joystick_that_falls_silent_with_the_clutch_closed_means_hold(leader):
    """Nobody knows then whether the button is still pressed; the hand goes on."""
    bindings = JoyBindings(buttons={'clutch': 0})
    stage = Stage(bindings=bindings, teleop_leader_mode='relative')
    place = [HOME]

    def hand():
        if leader:
            stage.mux.take_leader_state(
                ROBOT.joints, place[0], stage.now, stage.now, stage.now_s)
        else:
            stage.hand(stage.tool(place[0]))
    stage.teleop(lambda: stage.joy((), [1]), hand)
    stage.run(30)
    assert stage.mode == MuxMode.TELEOP
    stage.devices = [hand]
    stage.run(30)
    assert stage.mode == MuxMode.HOLD
    assert stage.mux.machine.reason == 'joy silent for 0.2 s, and with it the clutch'
    success, message = stage.choose()
    assert not success and 'joy silent' in message and '\n' not in message
    stage.teleop(lambda: stage.joy((), [1]), hand)


def test_a_pose_out_of_reach_is_refused_and_the_arm_holds_until_the_hand_is_back():
    stage = Stage(teleop_max_distance=10.0)
    way = [0.0]
    stage.teleop(lambda: stage.hand(moved(np.eye(4), (way[0], 0.0, 0.0))))
    while not stage.refused:
        way[0] += 0.004
        stage.run(1)
        assert way[0] < 2.0
    assert 'the left arm cannot reach the pose' in stage.refused[-1]
    edge = way[0]
    stage.run(100)
    here = stage.tool()
    for _ in range(100):
        way[0] += 0.004
        stage.run(1)
    assert stage.mode == MuxMode.TELEOP
    assert apart(here, stage.tool())[0] < 0.01, 'it holds'
    report = stage.mux.report(stage.now_s).sources
    assert report.teleop_rejected['reach'] > 40 and 'cannot reach' in report.teleop_note
    while way[0] > edge - 0.1:
        way[0] -= 0.004
        stage.run(1)
    stage.run(30)
    assert 0.07 < apart(here, stage.tool())[0] < 0.13, 'it follows again'
    assert not stage.mux.report(stage.now_s).sources.teleop_note
    stage.assert_inside_limits()


def test_a_hand_that_jumps_is_not_followed():
    stage = Stage()
    place = [np.eye(4)]
    stage.teleop(lambda: stage.hand(place[0]))
    stage.run(20)
    place[0] = moved(np.eye(4), (0.25, 0.0, 0.2), (0.0, 2.5, 0.0))
    stage.run(40)
    assert stage.refused and np.allclose(stage.measured, HOME, atol=1e-6)
    place[0] = np.eye(4)
    count = len(stage.refused)
    stage.run(20)
    assert len(stage.refused) == count
    stage.assert_inside_limits()


@pytest.mark.parametrize('spoil, kind', [
    (lambda pose: ToolPose('left', 0, '', (np.nan, 0, 0), (0, 0, 0, 1)), 'not_finite'),
    (lambda pose: ToolPose('left', 0, '', (0, 0, 0), (0, 0, 0, 0)), 'pose'),
    (lambda pose: ToolPose('left', 0, 'camera', (0, 0, 0), (0, 0, 0, 1)), 'frame'),
    (lambda pose: ToolPose('left', 0, 'left_tool', (0, 0, 0), (0, 0, 0, 1)), 'frame'),
    (lambda pose: ToolPose('right', 0, '', (0, 0, 0), (0, 0, 0, 1)), 'frame')])
def test_a_wrong_pose_is_refused(spoil, kind):
    stage = Stage()
    stage.run(3)
    assert stage.note(take_hand(stage.mux, spoil(None), stage.now, stage.now_s))
    assert stage.mux.report(stage.now_s).sources.teleop_rejected[kind] == 1


def test_a_hand_in_another_frame_is_turned_into_the_base_frame():
    stage = Stage()
    room = moved(np.eye(4), (1.0, 2.0, 0.0), (0.0, 0.0, np.pi / 2))
    place = [np.eye(4)]
    stage.teleop(lambda: stage.hand(place[0], frame='room', transform=room))
    stage.run(10)
    begin, start = stage.tool(), stage.now
    for _ in range(100):
        place[0] = moved(np.eye(4), ((stage.now - start) * 1e-10, 0.0, 0.0))
        stage.run(1)
    stage.run(40)
    np.testing.assert_allclose(
        apart(stage.tool(), moved(begin, (0.0, 0.1, 0.0))), 0.0, atol=5e-3)


# ---- several devices, several arms

def test_two_devices_at_once_are_refused_or_held():
    stage = Stage()
    twist, hand = (lambda: stage.twist(0, 0, 0, 0, 0, 0)), (lambda: stage.hand(np.eye(4)))
    stage.devices = [twist, hand]
    stage.run(6)
    success, message = stage.choose()
    assert not success and 'both teleop/twist and teleop/pose are alive' in message
    stage.devices = [twist]
    stage.run(30)
    stage.teleop(twist)
    stage.run(20)
    stage.devices = [twist, hand]
    stage.run(5)
    assert stage.mode == MuxMode.HOLD and 'two devices at once' in stage.mux.machine.reason


def test_a_leader_arm_beside_a_twist_is_refused_or_held():
    stage = Stage()

    def twist():
        stage.twist(0, 0, 0, 0, 0, 0)

    def leader():
        stage.mux.take_leader_state(
            ROBOT.joints, HOME, stage.now, stage.now, stage.now_s)
    stage.devices = [twist, leader]
    stage.run(6)
    success, message = stage.choose()
    assert not success and 'teleop/joint_states and teleop/twist are alive' in message
    stage.devices = [leader]
    stage.run(30)
    stage.teleop(leader)
    stage.run(20)
    stage.devices = [twist, leader]
    stage.run(5)
    assert stage.mode == MuxMode.HOLD and 'two devices at once' in stage.mux.machine.reason


def test_each_of_two_arms_has_a_device_of_its_own():
    stage = Stage(DUAL)
    stage.teleop(
        lambda: stage.twist(0, 0.1, 0, 0, 0, 0, side='left'),
        lambda: stage.hand(np.eye(4), side='right'))
    begin = stage.tool(arm=0), stage.tool(arm=1)
    stage.run(100)
    assert apart(begin[0], stage.tool(arm=0))[0] == pytest.approx(0.1, abs=0.02)
    assert apart(begin[1], stage.tool(arm=1))[0] < 1e-6
    stage.devices = stage.devices[:1]
    stage.run(30)
    assert stage.mode == MuxMode.HOLD
    assert stage.mux.machine.reason.startswith('teleop/right/pose silent')
    stage.assert_inside_limits()


def test_what_led_an_arm_long_ago_is_not_missed():
    stage = Stage(DUAL)
    stage.teleop(lambda: stage.twist(0, 0, 0, 0, 0, 0, side='right'))
    stage.choose(MuxMode.HOLD)
    stage.devices = []
    stage.run(50)
    stage.teleop(lambda: stage.twist(0, 0.1, 0, 0, 0, 0, side='left'))
    stage.run(50)
    assert stage.mode == MuxMode.TELEOP


def test_an_arm_without_frames_is_refused_in_one_line():
    plain = replace(ROBOT, arms=(replace(ROBOT.arms[0], tool_frame=None),))
    mux = Mux(plain, MuxSettings(), PERIOD)
    tool = mux.sources.tool
    refused = mux.take_from(
        tool, lambda: tool.take_twist(ToolTwist('left', 0, '', (0,) * 6), 1, 1.0))
    assert 'has no tool_frame' in refused and '\n' not in refused
