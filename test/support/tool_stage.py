"""A mux whose arms are led by their tools, without ROS."""

from dataclasses import replace

import numpy as np
import pinocchio as pin

from lingbot_va_ros.mux.hand_input import take_hand
from lingbot_va_ros.mux.joystick import JoyBindings, JoyMessage
from lingbot_va_ros.mux.modes import MuxMode
from lingbot_va_ros.mux.mux import Mux
from lingbot_va_ros.mux.settings import MuxSettings
from lingbot_va_ros.mux.tool_messages import ToolPose, ToolTwist
from lingbot_va_ros.robot.poses import quaternion_of
from lingbot_va_ros.robot.tool_kinematics import ToolKinematics
from lingbot_va_ros.specs.embodiment import load_embodiment
from support.motion_limits import assert_points_inside_limits

ROBOT = load_embodiment('sim_left')
DUAL = load_embodiment('sim_dual')
PERIOD = 10_000_000
HOME = ROBOT.home
IDENTITY = np.array([0.0, 0.0, 0.0, 1.0])


class ToolStage:
    """A mux, a robot that follows at once, and devices that send every so many ticks."""

    def __init__(self, robot=ROBOT, bindings=None, every=2, **changes):
        changes.setdefault('teleop_pose_mode', 'relative')
        changes.setdefault('clutch_button', (bindings or JoyBindings()).buttons.get('clutch', -1))
        self.robot = robot
        self.mux = Mux(robot, replace(MuxSettings(), **changes), PERIOD, {}, bindings)
        self.kinematics = [ToolKinematics(robot, arm) for arm in robot.arms]
        self.now = 1_000_000_000_000
        self.measured, self.speed = robot.home.copy(), np.zeros(len(robot.joints))
        self.every = every
        self.devices = []  # functions of time that send a message
        self.executed, self.refused = [], []

    @property
    def now_s(self):
        return self.now * 1e-9

    @property
    def mode(self):
        return self.mux.machine.mode

    def note(self, refused):
        if refused:
            assert '\n' not in refused
            self.refused.append(refused)
        return refused

    def twist(self, *values, side='left', frame='', stamp=None, pose=None):
        tool = self.mux.sources.tool
        message = ToolTwist(side, self.now if stamp is None else stamp, frame, values, pose)
        return self.note(self.mux.take_from(
            tool, lambda: tool.take_twist(message, self.now, self.now_s)))

    def hand(self, pose, side='left', frame='', transform=None):
        return self.note(take_hand(self.mux, ToolPose(
            side, self.now, frame, tuple(pose[:3, 3]),
            tuple(quaternion_of(pose[:3, :3], IDENTITY)), transform), self.now, self.now_s))

    def joy(self, axes=(), buttons=()):
        return self.note(self.mux.take_joy(
            JoyMessage(self.now, axes, buttons), self.now, self.now_s))

    def run(self, ticks):
        for _ in range(ticks):
            self.mux.take_joint_state(
                self.robot.joints, self.measured, self.speed, self.now, self.now, self.now_s)
            if self.now // PERIOD % self.every == 0:
                for send in self.devices:
                    send()
            tick = self.mux.tick(self.now, self.now_s)
            self.executed += tick.executed
            if tick.executed:
                self.measured, self.speed = tick.executed[-1][1:]
            self.now += PERIOD

    def choose(self, mode=MuxMode.TELEOP):
        return self.mux.set_mode(mode, self.now, self.now_s)

    def teleop(self, *devices):
        self.devices = list(devices)
        self.run(6)
        answer = self.choose()
        assert answer == (True, 'TELEOP'), answer
        return self

    def tool(self, q=None, arm=0):
        q = self.measured if q is None else q
        columns = [self.robot.joints.index(name) for name in self.robot.arms[arm].joints]
        return self.kinematics[arm].forward(q[columns])

    def assert_inside_limits(self):
        limits = self.robot.limits
        for _, q, _ in self.executed:
            assert np.all((q >= limits.lower - 1e-9) & (q <= limits.upper + 1e-9))
        assert_points_inside_limits(self.executed, self.robot.home, limits, PERIOD * 1e-9)


def apart(one, other):
    """Return the distance in m and the angle in rad between two poses."""
    return (np.linalg.norm(one[:3, 3] - other[:3, 3]),
            np.linalg.norm(pin.log3(one[:3, :3].T @ other[:3, :3])))


def moved(pose, xyz=(0.0, 0.0, 0.0), turn=(0.0, 0.0, 0.0)):
    """Return a pose moved and turned along and about the axes of the base."""
    after = pose.copy()
    after[:3, 3] += xyz
    after[:3, :3] = pin.exp3(np.array(turn)) @ pose[:3, :3]
    return after
