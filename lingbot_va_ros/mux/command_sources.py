"""The command sources of a mux, and the one that is selected."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lingbot_va_ros.mux.command_source import CommandSource
from lingbot_va_ros.mux.leader_arm import LeaderArm, LeaderJoint
from lingbot_va_ros.mux.motion_detector import MotionDetector
from lingbot_va_ros.mux.plan_source import PlanSource
from lingbot_va_ros.mux.settings import MuxSettings
from lingbot_va_ros.mux.teleop_plan_source import TeleopPlanSource
from lingbot_va_ros.mux.tool_teleop import ToolTeleop
from lingbot_va_ros.specs.embodiment import Embodiment


@dataclass(frozen=True)
class SourcesReport:
    """
    Figures of the policy, and of all sources of operators together.

    :param rejected, teleop_rejected: messages by kind.
    :param age, teleop_age: of the newest accepted message, s; inf where none ever came.
    :param teleop_note: what holds an arm back that is led by its tool, in one line.
    """

    accepted: int
    rejected: dict[str, int]
    rejected_in_row: int
    last_rejection: str
    age: float
    teleop_accepted: int
    teleop_rejected: dict[str, int]
    teleop_last_rejection: str
    teleop_age: float
    teleop_note: str


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
                lost = self._clutch_lost(source, now_s)
                return source, [*source.missing(now_ns, now_s, arm), *filter(None, [lost])]
        # What was heard last tells why it is none; before any, the first one does.
        heard = [source for source in self._operators if source.counts.accepted]
        source = min(heard, key=lambda each: each.age(now_s), default=self.teleop)
        missing = source.missing(now_ns, now_s, arm)
        for other in self._operators:
            if other is not source and other.counts.rejected_in_row:
                missing.append(f'{other.name} ({other.counts.explanation})')
        return source, missing

    def clutch_lost(self, now_s: float, margin: float) -> str:
        """Return in one line that the clutch of the selected source was lost; see `Clutch`."""
        return self._clutch_lost(self.selected, now_s, margin)

    def _clutch_lost(self, source: CommandSource, now_s: float, margin: float = 0.0) -> str:
        has_clutch = source is self.tool or source is self.leader and self.leader.is_relative
        return self.tool.clutch.lost(now_s, margin) if has_clutch else ''

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

    def report(self, now_s: float) -> SourcesReport:
        """Return the figures of all sources."""
        policy = self.policy.counts
        operators = [source.counts for source in self._operators]
        rejected: Counter[str] = sum((counts.rejected for counts in operators), Counter())
        return SourcesReport(
            accepted=policy.accepted, rejected=dict(policy.rejected),
            rejected_in_row=policy.rejected_in_row, last_rejection=policy.last_rejection,
            age=self.policy.age(now_s),
            teleop_accepted=sum(counts.accepted for counts in operators),
            teleop_rejected=dict(rejected),
            teleop_last_rejection=max(
                operators, key=lambda counts: counts.last_number).last_rejection,
            teleop_age=min(source.age(now_s) for source in self._operators),
            teleop_note=self.tool.notes())
