"""Drives a controller with a stream of messages in virtual time, and measures its commands."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lingbot_va_ros.motion.time import to_seconds
from lingbot_va_ros.sim.controllers.control_loop import ControlLoop
from lingbot_va_ros.sim.controllers.first_order_joints import FirstOrderJoints
from lingbot_va_ros.sim.controllers.messages import Trajectory


@dataclass(frozen=True)
class CommandTrace:
    """Commands [n, J] of consecutive updates, `period` seconds apart, the first at `begin_ns`."""

    begin_ns: int
    period: float
    commands: np.ndarray

    def speeds(self) -> np.ndarray:
        """Return the commanded speeds [n - 1, J], per s."""
        return np.asarray(np.diff(self.commands, axis=0) / self.period)

    def accelerations(self) -> np.ndarray:
        """Return the commanded accelerations [n - 2, J], per s²."""
        return np.asarray(np.diff(self.speeds(), axis=0) / self.period)

    def after(self, seconds: float) -> 'CommandTrace':
        """Return the trace without its first seconds."""
        skipped = round(seconds / self.period)
        return CommandTrace(
            self.begin_ns + round(skipped * self.period * 1e9), self.period,
            self.commands[skipped:])

    def until(self, seconds: float) -> 'CommandTrace':
        """Return the first seconds of the trace."""
        return CommandTrace(
            self.begin_ns, self.period, self.commands[:round(seconds / self.period)])


def trace_commands(
    loop: ControlLoop, joints: FirstOrderJoints, send: Callable[[int], Sequence[Trajectory]],
    send_ns: int, send_period_ns: int, begin_ns: int, seconds: float,
) -> CommandTrace:
    """
    Run a control loop from its next update on and return its commands.

    :param joints: follow the commands, and are what the controller measures.
    :param send: returns the messages that are sent at a time in nanoseconds.
    :param send_ns: when messages are sent first.
    :param begin_ns: time of the loop's next update.
    """
    period_ns = loop.controller.settings.period_ns
    period = to_seconds(period_ns)
    commands = []
    for now_ns in range(begin_ns, begin_ns + round(seconds * 1e9), period_ns):
        while send_ns <= now_ns:
            for message in send(send_ns):
                loop.send(message, send_ns)
            send_ns += send_period_ns
        command = loop.advance(now_ns, lambda: (joints.positions, joints.velocities))
        joints.step(command, period)
        commands.append(command)
    return CommandTrace(begin_ns, period, np.array(commands))
