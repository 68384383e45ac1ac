"""The command sources of a mux, and the one that is selected."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from lingbot_va_ros.mux.command_source import CommandSource
from lingbot_va_ros.mux.leader_arm import LeaderArm, LeaderJoint
from lingbot_va_ros.mux.motion_detector import MotionDetector
from lingbot_va_ros.mux.plan_source import PlanSource
from lingbot_va_ros.mux.settings import MuxSettings
from lingbot_va_ros.mux.teleop_plan_source import TeleopPlanSource
from lingbot_va_ros.mux.tool_teleop import ToolTeleop
from lingbot_va_ros.specs.embodiment import Embodiment


class CommandSources:
    """
    The policy, a program that sends trajectories, a leader arm, and what leads tools.

    :param is_gripper: [J] bool. A plan may begin with a gripper anywhere: a policy opens and
        closes it from one action to the next. A gripper's motion takes over from nothing.
    """

    def __init__(
        self, embodiment: Embodiment, settings: MuxSettings,
        leader_map: Mapping[str, LeaderJoint], is_gripper: np.ndarray,
    ) -> None:
        timeout, max_jump = settings.source_timeout, settings.max_jump
        self.policy = PlanSource(
            'policy/joint_trajectory', timeout, embodiment, max_jump, may_jump=is_gripper)
        self.teleop = TeleopPlanSource(
            'teleop/joint_trajectory', timeout, embodiment, max_jump, is_gripper,
            settings.teleop_approach_speed)
        self.leader = LeaderArm(
            embodiment, leader_map, timeout, max_jump, settings.teleop_max_distance, is_gripper,
            settings.teleop_leader_mode == 'relative')
        self.tool = ToolTeleop(embodiment, settings)
        self.selected: CommandSource = self.policy
        self._operators: tuple[CommandSource, ...] = (self.teleop, self.leader, self.tool)
        self._all: tuple[CommandSource, ...] = (self.policy, *self._operators)
        self.engage(self.tool.clutch.is_engaged)
        self._takeover_motion = settings.takeover_motion
        self._detector = MotionDetector(
            np.where(is_gripper, np.inf, settings.takeover_motion), settings.takeover_rest)

    def select(self, source: CommandSource) -> None:
        """Let a source move the arm; its rejected messages in a row count from 0."""
        self.selected = source
        self._detector.reset()
        for each in self._all:
            each.counts.rejected_in_row = 0

    def forget(self) -> None:
        """Count every source as never received, after a clock jump."""
        for source in self._all:
            source.forget()
        self._detector.reset()

    def teleoperation(
        self, now_ns: int, now_s: float, arm: np.ndarray | None,
    ) -> tuple[CommandSource, list[str]]:
        """Return the source that TELEOP would have, and what it lacks; see CommandSource."""
        alive = [source for source in self._operators if source.claims(now_s)]
        if len(alive) > 1:
            names = ' and '.join(source.name for source in alive)
            return alive[0], [f'one source, but both {names} are alive']
        for source in (*alive, *self._operators):
            if source.is_fresh(now_s):
                return source, source.missing(now_ns, now_s, arm)
        # What was heard last tells why it is none; before any, the first one does.
        heard = [source for source in self._operators if source.counts.accepted]
        source = min(heard, key=lambda each: each.age(now_s), default=self.teleop)
        missing = source.missing(now_ns, now_s, arm)
        for other in self._operators:
            if other is not source and other.counts.rejected_in_row:
                missing.append(f'{other.name} ({other.counts.explanation})')
        return source, missing

    def rival(self, now_s: float) -> str:
        """Return in one line that a second source of an operator is alive, or an empty text."""
        for source in self._operators:
            if source is not self.selected and source.claims(now_s):
                return (f'two devices at once: both {self.selected.name} and {source.name} are '
                        'alive')
        return ''

    def engage(self, is_engaged: bool) -> None:
        """Close or release the clutch of the sources that have one."""
        self.leader.engage(is_engaged)
        self.tool.engage(is_engaged)

    def takes_over(self, time_ns: int, now_s: float) -> bool:
        """Return whether a teleoperation source that rested has begun to move."""
        if self._takeover_motion <= 0:
            return False
        for source in (self.leader, self.teleop):
            if source.is_fresh(now_s):
                return self._detector.moved(source.position(time_ns), now_s)
        self._detector.reset()
        return False

    @property
    def teleop_accepted(self) -> int:
        """How many messages of operators were accepted."""
        return sum(source.counts.accepted for source in self._operators)

    def teleop_age(self, now_s: float) -> float:
        """Return the age of the newest message of an operator, s; inf where none ever came."""
        return min(source.age(now_s) for source in self._operators)

    @property
    def teleop_rejected(self) -> Counter[str]:
        """How many messages of operators were rejected, by kind."""
        return sum((source.counts.rejected for source in self._operators), Counter())

    @property
    def teleop_last_rejection(self) -> str:
        """Why the last message of an operator was rejected."""
        return max((source.counts for source in self._operators),
                   key=lambda counts: counts.last_number).last_rejection
