"""An arm over DDS that goes exactly where the mux sends it, and what the mux says of itself."""

import time

from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from lingbot_va_ros.motion.plan import Plan, resting_at
from lingbot_va_ros.msg import ControlMode
from lingbot_va_ros.nodes import qos
from lingbot_va_ros.srv import SetControlMode
from support.messages import nanoseconds, stamped
from support.services import Services
from support.waiting import wait_for

NANOSECONDS = 1_000_000_000


class FollowedArm:
    """
    Publishes joint states at 100 Hz, follows commands and keeps what the mux publishes.

    :param start: positions [J] at first.
    :param controller: its command topic.
    """

    def __init__(
        self, node, robot, namespace, start=None,
        controller='joint_trajectory_controller/joint_trajectory',
    ):
        self.node, self.robot, self.namespace = node, robot, namespace
        self.arm = resting_at(0, robot.home if start is None else start)
        self.executed, self.modes, self.diagnostics = [], [], []
        self.call = Services(node).call
        for kind, name, callback, profile in (
                (JointTrajectory, controller, self._on_command, qos.EVENTS),
                (JointTrajectory, 'executed', self.executed.append, qos.EXECUTED),
                (ControlMode, 'command_mux/mode', self.modes.append, qos.LATCHED)):
            node.create_subscription(kind, f'{namespace}/{name}', callback, profile)
        node.create_subscription(
            DiagnosticArray, '/diagnostics', self._on_diagnostics, qos.EVENTS)
        self._joints = node.create_publisher(
            JointState, f'{namespace}/joint_states', qos.JOINT_STATES)
        node.create_timer(0.01, self._tell)

    def _on_command(self, message):
        begin = nanoseconds(message.header.stamp)
        q, v = self.arm.sample(begin)
        self.arm = Plan(
            np.array([begin] + [begin + nanoseconds(p.time_from_start) for p in message.points]),
            np.array([q] + [p.positions for p in message.points]),
            np.array([v] + [p.velocities for p in message.points]))

    def _on_diagnostics(self, message):
        for status in message.status:
            if status.name == f'{self.namespace.lstrip("/")}/command_mux: mode':
                self.diagnostics.append({pair.key: pair.value for pair in status.values})

    def _tell(self):
        now = time.time_ns()
        q, v = self.arm.sample(now)
        self._joints.publish(stamped(JointState(
            name=list(self.robot.joints), position=q.tolist(), velocity=v.tolist()), now))

    @property
    def mode(self):
        """The last published mode."""
        return self.modes[-1].mode if self.modes else None

    @property
    def end(self):
        """Positions [J] at which the last command ends."""
        return self.arm.positions[-1]

    def said(self, key):
        """Return an entry of the last diagnostics; an empty text before any."""
        return self.diagnostics[-1].get(key, '') if self.diagnostics else ''

    def set_mode(self, mode):
        """Return the answer of ~/set_mode."""
        return self.call(
            SetControlMode, f'{self.namespace}/command_mux/set_mode',
            SetControlMode.Request(mode=mode))

    def choose(self, mode):
        """Ask for a mode until the mux has it, while a busy machine delivers late."""
        answers = []

        def chosen():
            answers.append(self.set_mode(mode))
            return answers[-1].success

        try:
            wait_for(chosen, f'mode {mode}', 60.0)
        except AssertionError:
            raise AssertionError(answers[-1].message) from None
        wait_for(lambda: self.mode == mode, f'the word of mode {mode}')

    def hold(self):
        """Choose HOLD, and return where the arm has come to rest, positions [J]."""
        self.choose(ControlMode.HOLD)
        wait_for(lambda: time.time_ns() > self.arm.end_ns + NANOSECONDS // 5, 'rest')
        return self.end.copy()

    def points(self):
        """Return the executed points: due times in ns, positions [J], velocities [J]."""
        return [
            (nanoseconds(m.header.stamp), np.array(m.points[0].positions),
             np.array(m.points[0].velocities)) for m in list(self.executed)]
