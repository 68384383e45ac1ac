"""
Follows joint trajectories as joint_trajectory_controller (JTC) of ros2_controllers does.

Its behavior is that of the sources in settings.py: position commands on the topic interface,
without the action, `cmd_timeout` and `decelerate_on_cancel`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lingbot_va_ros.sim.controllers.messages import Trajectory, TrajectoryRejected
from lingbot_va_ros.sim.controllers.replacement import splice
from lingbot_va_ros.sim.controllers.running_trajectory import (
    Knot,
    knots_of,
    RunningTrajectory,
    Sample,
)
from lingbot_va_ros.sim.controllers.settings import ControllerSettings, Replacement
from lingbot_va_ros.sim.controllers.splines import JointMotion
from lingbot_va_ros.sim.controllers.validation import check_trajectory


@dataclass(frozen=True)
class ControllerState:
    """
    A control_msgs/JointTrajectoryControllerState; arrays are [J] float64, in SI units.

    :param stamp_ns: time of the update.
    :param reference: the reference of the trajectory at that time.
    :param feedback: the measured state.
    :param error: reference minus feedback, positions.
    :param output: commanded positions.
    :param speed_scaling: factor by which trajectory time advances.
    """

    stamp_ns: int
    reference: JointMotion
    feedback: JointMotion
    error: np.ndarray
    output: np.ndarray
    speed_scaling: float


class TrajectoryController:
    """
    One JTC, inactive at first. Times are nanoseconds of one clock that the caller keeps.

    :param joints: names, in the order of every joint array.
    """

    def __init__(self, joints: Sequence[str], settings: ControllerSettings):
        self.joints = tuple(joints)
        self.settings = settings
        self.active = False
        # Share of its speed at which a trajectory is executed; UR's slider. No effect on Humble.
        self.speed_scaling = 1.0
        self.accepted = 0  # messages
        self.rejected = 0
        self.violations = 0  # of tolerances
        self.last_violation = ''
        # Commanded positions [J].
        self.command = np.zeros(len(self.joints))
        self.state: ControllerState | None = None
        self._received: Trajectory | None = None
        self._deferred: Trajectory | None = None
        self._held: np.ndarray | None = None  # positions [J] to hold from the next update on
        self._running: RunningTrajectory | None = None
        self._is_holding = True
        self._last_command = JointMotion(self.command)
        self._last_command_ns: int | None = None
        self._reached_ns = 0  # trajectory time of the last update

    def activate(self, positions: np.ndarray, velocities: np.ndarray | None = None) -> None:
        """
        Hold measured positions [J] from now on, and accept messages.

        The JTC holds what the hardware's command interface has; drivers set that to the measured
        positions while no controller is active.
        """
        self.active = True
        self.command = np.array(positions, float)
        self.state = None
        self._running = self._received = self._deferred = None
        self._last_command = JointMotion(self.command, velocities)
        self._last_command_ns = None
        self._hold(self.command)

    def deactivate(self) -> None:
        """Stop updating and accepting messages; the last command remains."""
        self.active = False
        self._running = self._received = self._deferred = self._held = None

    def receive(self, trajectory: Trajectory, now_ns: int) -> None:
        """
        Accept a message that arrives now, for the next update; an inactive controller ignores it.

        :raises TrajectoryRejected: nothing changes then but the counter.
        """
        try:
            check_trajectory(trajectory, self.joints, self.settings, now_ns)
        except TrajectoryRejected:
            self.rejected += 1
            raise
        if self.active:
            self.accepted += 1
            self._received, self._held = trajectory, None
            self._is_holding = False

    def update(
        self, now_ns: int, positions: np.ndarray, velocities: np.ndarray | None = None,
    ) -> np.ndarray:
        """
        Return the command [J] of one control cycle of an active controller.

        :param now_ns: whole periods after the last update.
        :param positions: measured, [J].
        :param velocities: measured, [J]; None: the robot has none.
        """
        settings = self.settings
        self._take_new_trajectory(now_ns)
        assert self._running is not None  # an active controller at least holds
        running = self._running
        measured = JointMotion(positions, velocities)
        is_first = not running.was_sampled
        if is_first:
            self._join(running, now_ns, measured)
            self._reached_ns = now_ns
        else:
            scaling = self.speed_scaling if settings.has_speed_scaling else 1.0
            self._reached_ns += round(settings.period_ns * scaling)
        there = running.sample(self._reached_ns)
        wanted = there
        if settings.looks_ahead:
            wanted = running.sample(self._reached_ns + settings.period_ns)
        reference = self._last_command.complete() if there is None else there.motion
        error = reference.positions - positions
        if wanted is not None:
            fault = self._fault(wanted, reference, measured, error, is_first)
            if fault:
                self.violations += 1
                self.last_violation = fault
                self._hold(positions)
            else:
                self.command = wanted.motion.positions
                self._last_command, self._last_command_ns = wanted.motion, now_ns
        self.state = ControllerState(
            now_ns, reference, measured, error, self.command, self.speed_scaling)
        return self.command

    def _hold(self, positions: np.ndarray) -> None:
        """Hold positions [J] from the next update on; a message that waits is dropped."""
        self._held, self._received = np.array(positions, float), None
        self._is_holding = True

    def _take_new_trajectory(self, now_ns: int) -> None:
        if self._held is not None:
            self._running = RunningTrajectory(0, [Knot(0, JointMotion(self._held))])
            self._held = None
            return
        message, self._received = self._received, None
        if self.settings.replacement is Replacement.DEFERRED and message is not None:
            self._deferred = message
            message = None
        if self._deferred is not None and self._deferred.stamp_ns <= now_ns:
            message, self._deferred = self._deferred, None
        if message is None:
            return
        old = self._running
        if self.settings.replacement is Replacement.SPLICED and (
                old is not None and len(old.knots) > 1):
            self._running = splice(
                old, message, self.joints, self.command, now_ns, self._reached_ns,
                self.speed_scaling)
        else:
            self._running = RunningTrajectory(
                message.stamp_ns, knots_of(message, self.joints, self.command))

    def _join(self, running: RunningTrajectory, now_ns: int, measured: JointMotion) -> None:
        """Set where the way to the first knot of a new trajectory begins."""
        if not self.settings.joins_last_command:
            running.join(now_ns, measured)
        elif self.settings.looks_ahead and self._last_command_ns is not None:
            running.join(self._last_command_ns, self._last_command)
        else:
            running.join(now_ns, self._last_command)

    def _fault(
        self, wanted: Sample, reference: JointMotion, measured: JointMotion, error: np.ndarray,
        is_first: bool,
    ) -> str:
        """Return in one line which tolerance is violated, or ''."""
        if self._is_holding:
            return ''
        settings = self.settings
        if settings.trajectory_tolerance and (is_first or not wanted.is_past_end):
            fault = self._exceeded('trajectory', error, settings.trajectory_tolerance)
            if fault:
                return fault
        assert self._running is not None
        end_ns = self._running.start_ns + wanted.segment_ns
        late = (self._reached_ns - end_ns) * 1e-9
        if not wanted.is_past_end or not settings.goal_time or late <= settings.goal_time:
            return ''
        fault = ''
        if settings.goal_tolerance:
            fault = self._exceeded('goal', error, settings.goal_tolerance)
        if not fault and settings.commands_velocity and measured.velocities is not None:
            assert reference.velocities is not None
            fault = self._exceeded(
                'stopped velocity', reference.velocities - measured.velocities,
                settings.stopped_velocity_tolerance)
        return f'{fault}, {late:.3f} s after the end' if fault else ''

    def _exceeded(self, name: str, error: np.ndarray, tolerance: float) -> str:
        worst = int(np.abs(error).argmax())
        if abs(error[worst]) <= tolerance:
            return ''
        return (f'{name} tolerance of joint {self.joints[worst]}: error '
                f'{error[worst]:.3f}, tolerance {tolerance:g}')
