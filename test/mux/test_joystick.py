"""The joystick: axes, arms, grippers, clutch, dead-man button, and giving the arm to and fro."""

import numpy as np
import pytest
from support.tool_stage import apart, DUAL, HOME, moved, PERIOD, ROBOT, ToolStage

from lingbot_va_ros.motion.trajectory import TrajectoryMessage, TrajectoryPoint
from lingbot_va_ros.mux.clutch import Clutch
from lingbot_va_ros.mux.joystick import JoyBindings, TWIST_AXES
from lingbot_va_ros.mux.modes import MuxMode

AXES = {name: index for index, name in enumerate(TWIST_AXES)}
STILL = [0.0] * 6


class Pad(ToolStage):
    """A stage with a joystick whose axes and buttons are lists."""

    def __init__(self, robot=ROBOT, bindings=None, **changes):
        super().__init__(robot, bindings or JoyBindings(AXES), **changes)
        self.axes, self.buttons = list(STILL), [0] * 6
        self.devices = [self.push]

    def push(self):
        self.joy(list(self.axes), list(self.buttons))

    def press(self, button, ticks=2):
        self.buttons[button] = 1
        self.run(ticks)
        self.buttons[button] = 0
        self.run(2)

    def plan(self):
        """Send a plan of the policy that rests where the arm is."""
        self.mux.take_policy_plan(TrajectoryMessage(self.now, self.robot.joints, (
            TrajectoryPoint(20 * PERIOD, tuple(self.measured)),)), self.now, self.now_s)


def test_axes_move_the_tool_at_the_fastest_speed_at_their_end():
    pad = Pad(teleop_linear_speed=0.1, bindings=JoyBindings(
        {'linear_y': 4, 'angular_z': 1}, scales={'linear_y': -1.0}))
    pad.teleop(pad.push)
    pad.axes[4] = -1.0
    pad.run(20)
    begin = pad.tool()
    pad.run(50)
    np.testing.assert_allclose(
        apart(pad.tool(), moved(begin, (0, 0.05, 0))), 0.0, atol=2e-3)
    pad.axes[4] = 0.04
    pad.run(40)
    assert not np.any(pad.speed), 'the deadzone'
    pad.assert_inside_limits()


def test_the_next_arm_is_selected_and_the_first_one_rests():
    pad = Pad(DUAL, JoyBindings(AXES, {'select_arm': 3}))
    pad.teleop(pad.push)
    pad.axes[1] = 1.0
    pad.run(30)
    right = pad.tool(arm=1)
    assert np.any(pad.speed[:6]) and not np.any(pad.speed[6:12])
    pad.press(3, 20)
    pad.run(30)
    assert not np.any(pad.speed[:6]) and apart(right, pad.tool(arm=1))[0] > 0.03
    assert pad.mux.report(pad.now_s).teleop_side == 'right'
    assert pad.mode == MuxMode.TELEOP
    pad.assert_inside_limits()


@pytest.mark.parametrize('binding, opened, closed', [
    ('axis', 1.0, -1.0), ('toggle', None, None), ('two', None, None)])
def test_a_gripper_by_an_axis_or_by_buttons(binding, opened, closed):
    pad = Pad(bindings={
        'axis': JoyBindings({**AXES, 'gripper': 6}),
        'toggle': JoyBindings(AXES, {'gripper': 0}),
        'two': JoyBindings(AXES, {'gripper_open': 0, 'gripper_close': 1})}[binding])
    pad.axes.append(-0.5)
    pad.teleop(pad.push)
    pad.run(20)
    assert pad.measured[6] == 0.04, 'nothing moved yet'
    for button, goal, axis in ((1, 0.0, closed), (0, 0.04, opened)):
        if axis is not None:
            pad.axes[6] = axis
        elif binding == 'two':
            pad.press(button)
        else:
            pad.press(0)
        pad.run(80)
        assert pad.measured[6] == pytest.approx(goal, abs=1e-6)
    np.testing.assert_allclose(pad.measured[:6], HOME[:6], atol=1e-9)
    pad.assert_inside_limits()


def test_the_clutch_lets_hand_and_tool_go_together_and_never_jumps():
    pad = Pad(bindings=JoyBindings(buttons={'clutch': 2}))
    place = [0.0]
    pad.teleop(pad.push, lambda: pad.hand(moved(np.eye(4), (0.0, place[0], 0.0))))
    begin = pad.tool()

    def move(way, ticks=30):
        for _ in range(ticks):
            place[0] += way / ticks
            pad.run(1)
        pad.run(25)

    move(0.1)
    assert apart(begin, pad.tool())[0] == 0.0, 'released'
    pad.buttons[2] = 1
    pad.run(10)
    move(0.05)
    assert pad.tool()[1, 3] - begin[1, 3] == pytest.approx(0.05, abs=3e-3)
    pad.buttons[2] = 0
    pad.run(2)
    move(-0.3)
    assert pad.tool()[1, 3] - begin[1, 3] == pytest.approx(0.05, abs=3e-3), 'released'
    pad.buttons[2] = 1
    pad.run(10)
    move(0.05)
    assert pad.tool()[1, 3] - begin[1, 3] == pytest.approx(0.10, abs=3e-3)
    assert pad.mode == MuxMode.TELEOP and not pad.refused
    pad.assert_inside_limits()


def test_a_clutch_that_bounces_means_hold():
    pad = Pad(bindings=JoyBindings(buttons={'clutch': 2}))
    place = [0.0]
    pad.teleop(pad.push, lambda: pad.hand(moved(np.eye(4), (0.0, place[0], 0.0))))
    for _ in range(40):
        pad.buttons[2] = 1 - pad.buttons[2]
        place[0] += 0.005
        pad.run(2)
    assert pad.mode == MuxMode.HOLD
    assert pad.mux.machine.reason.startswith('the clutch bounces')
    np.testing.assert_allclose(pad.measured, HOME, atol=1e-9)
    success, message = pad.choose()
    assert not success and message.startswith('TELEOP needs a clutch that does not bounce (')


def test_a_joystick_at_rest_does_not_hide_why_a_hand_is_not_followed():
    pad = Pad(bindings=JoyBindings(buttons={'clutch': 2}))
    pad.buttons[2] = 1
    place = [0.0]
    pad.teleop(pad.push, lambda: pad.hand(moved(np.eye(4), (0.0, place[0], 0.0))))
    place[0] = np.nan
    pad.run(30)
    assert pad.mode == MuxMode.HOLD
    assert pad.mux.machine.reason.endswith(
        '; last rejected: the pose has a number that is not finite')


def test_a_clutch_settles_before_it_closes_and_opens_at_once():
    clutch = Clutch(is_used=True, timeout=0.2)
    assert not clutch.update(True, 0.00) and not clutch.update(True, 0.04)
    assert clutch.update(True, 0.06) and clutch.is_engaged
    assert clutch.update(False, 0.07) and not clutch.is_engaged
    assert Clutch(is_used=False, timeout=0.2).is_engaged


def test_a_leader_arm_is_followed_relatively_with_a_clutch():
    pad = Pad(bindings=JoyBindings(buttons={'clutch': 2}), teleop_leader_mode='relative')
    leader = HOME + [1.5, -0.5, 0.3, 0.0, 0.0, 0.2, 0.0]
    pad.teleop(pad.push, lambda: pad.mux.take_leader_state(
        ROBOT.joints, leader, pad.now, pad.now, pad.now_s))

    def move(way):
        for _ in range(25):
            leader[0] += way / 25
            pad.run(1)
        pad.run(60)

    move(0.2)
    np.testing.assert_allclose(pad.measured, HOME, atol=1e-6)
    pad.buttons[2] = 1
    pad.run(10)
    move(0.2)
    assert pad.measured[0] - HOME[0] == pytest.approx(0.2, abs=1e-2)
    pad.buttons[2] = 0
    move(-1.0)
    assert pad.measured[0] - HOME[0] == pytest.approx(0.2, abs=1e-2)
    assert pad.mode == MuxMode.TELEOP
    pad.assert_inside_limits()


def test_buttons_give_the_arm_from_the_policy_to_the_operator_and_back():
    pad = Pad(bindings=JoyBindings(AXES, {'take_over': 0, 'give_back': 1}))
    pad.devices = [pad.push, pad.plan]
    pad.run(6)
    pad.press(1)
    assert pad.mode == MuxMode.HOLD, 'nothing moves before the first set_mode'
    assert 'takes the arm from POLICY or TELEOP, not HOLD' in pad.refused[-1]
    assert pad.choose(MuxMode.POLICY)[0]
    pad.run(5)
    pad.press(0)
    assert pad.mode == MuxMode.TELEOP
    assert pad.mux.machine.reason == 'asked for by a button of joy'
    pad.run(5)
    pad.buttons[1] = 1
    pad.run(2)
    assert pad.mode == MuxMode.POLICY
    pad.press(0)
    assert pad.mode == MuxMode.TELEOP, 'a button that stays pressed asks once'


@pytest.mark.parametrize('modes, needed', [
    (('teleop',), (MuxMode.TELEOP,)), (('policy',), (MuxMode.POLICY,)),
    (('teleop', 'policy'), (MuxMode.TELEOP, MuxMode.POLICY)), ((), ())])
def test_the_dead_man_button_is_needed_in_the_modes_that_are_named(modes, needed):
    pad = Pad(deadman_button=5, deadman_modes=modes)
    pad.devices = [pad.push, pad.plan]
    pad.run(6)
    for mode in (MuxMode.TELEOP, MuxMode.POLICY):
        assert pad.choose(mode)[0] == (mode not in needed)
        pad.buttons[5] = 1
        pad.run(2)
        assert pad.choose(mode)[0]
        pad.run(5)
        pad.buttons[5] = 0
        pad.run(2)
        assert pad.mode == (MuxMode.HOLD if mode in needed else mode)
        pad.choose(MuxMode.HOLD)
        pad.run(5)


@pytest.mark.parametrize('axes, words', [
    ([0.0, np.nan, 0, 0, 0, 0], 'axis 1 of joy (linear_y) is not a finite number'),
    ([0.0, 0.0], 'joy has 2 axes, none with the index 2 (linear_z)')])
def test_a_wrong_joystick_is_refused_and_then_the_arm_holds(axes, words):
    pad = Pad()
    pad.teleop(pad.push)
    pad.axes = axes
    pad.run(30)
    assert words in pad.refused[-1] and pad.mode == MuxMode.HOLD
    assert words in pad.mux.machine.reason


def test_a_joystick_at_random_breaks_no_limit():
    rng = np.random.default_rng(7)
    pad = Pad(DUAL, JoyBindings(
        {**AXES, 'gripper': 6}, {
            'clutch': 0, 'select_arm': 1, 'take_over': 2, 'give_back': 3, 'gripper': 4}),
        deadman_button=5, deadman_modes=('teleop', 'policy'), teleop_linear_speed=2.0,
        teleop_angular_speed=6.0)
    pad.axes, pad.buttons[5] = [0.0] * 7, 1
    strange = [np.nan, np.inf, -np.inf, 1e300, -5.0]

    def wild():
        axes = rng.uniform(-1.2, 1.2, 7) if rng.random() < 0.2 else np.array(pad.axes)
        if rng.random() < 0.02:
            axes[rng.integers(7)] = rng.choice(strange)
        pad.axes = list(np.where(np.isfinite(axes), axes, 0.0))
        buttons = [int(rng.random() < share) for share in (0.9, 0.1, 0.05, 0.05, 0.1, 0.99)]
        pad.joy(list(axes)[:7 if rng.random() < 0.99 else 3], buttons)

    pad.devices = [wild, pad.plan]
    moving = 0
    for _ in range(60):
        if pad.mode == MuxMode.HOLD:
            pad.choose(rng.choice([MuxMode.TELEOP, MuxMode.POLICY, MuxMode.TELEOP]))
        pad.run(10)
        moving += np.any(np.abs(pad.speed) > 0.05)
    assert moving > 5, pad.mux.machine.reason
    pad.choose(MuxMode.HOLD)
    pad.devices = []
    pad.run(60)
    assert not np.any(pad.speed)
    pad.assert_inside_limits()
