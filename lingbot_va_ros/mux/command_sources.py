"""The three command sources of a mux, and the one that is selected."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from lingbot_va_ros.mux.command_source import CommandSource
from lingbot_va_ros.mux.leader_arm import LeaderArm, LeaderJoint
from lingbot_va_ros.mux.motion_detector import MotionDetector
from lingbot_va_ros.mux.plan_source import PlanSource
from lingbot_va_ros.mux.settings import MuxSettings
from lingbot_va_ros.mux.teleop_plan_source import TeleopPlanSource
from lingbot_va_ros.specs.embodiment import Embodiment


class CommandSources:
    """
    The policy, a jogging program and a leader arm.

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
        self.leader = LeaderArm(embodiment, leader_map, timeout, max_jump)
        self.selected: CommandSource = self.policy
        self._all: tuple[CommandSource, ...] = (self.policy, self.teleop, self.leader)
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
        teleop, leader = self.teleop, self.leader
        if leader.is_fresh(now_s):
            if teleop.is_fresh(now_s):
                return teleop, [
                    f'one source, but both {teleop.name} and {leader.name} are alive']
            return leader, []
        never = np.isinf(teleop.age(now_s))
        if never and leader.counts.accepted:
            return leader, leader.missing(now_ns, now_s, arm)
        missing = teleop.missing(now_ns, now_s, arm)
        if never and leader.counts.rejected_in_row:
            missing.append(f'{leader.name} ({leader.counts.explanation})')
        return teleop, missing

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
        """How many messages of both teleoperation sources were accepted."""
        return self.teleop.counts.accepted + self.leader.counts.accepted

    @property
    def teleop_rejected(self) -> Counter[str]:
        """How many messages of both teleoperation sources were rejected, by kind."""
        return self.teleop.counts.rejected + self.leader.counts.rejected
