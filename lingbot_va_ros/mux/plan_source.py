"""A command source that sends plans: the policy, or a jogging program."""

import math

import numpy as np

from lingbot_va_ros.motion.plan import Plan
from lingbot_va_ros.motion.time import to_nanoseconds
from lingbot_va_ros.motion.trajectory import TrajectoryMessage
from lingbot_va_ros.mux.command_source import CommandSource
from lingbot_va_ros.mux.goal import Goal
from lingbot_va_ros.mux.plan_playback import PlanPlayback
from lingbot_va_ros.mux.validation import check_jump, check_times, read_plan, Rejected
from lingbot_va_ros.specs.embodiment import Embodiment


class PlanSource(CommandSource):
    """
    A source of plans: the newest accepted one, and the one that the arm follows.

    :param max_jump: seconds; see `validation.check_jump`.
    :param may_jump: [J] bool: joints for which a plan may begin anywhere, and which slow down no
        other.
    :param may_end_moving: whether the last velocities of a plan may differ from 0.
    """

    is_followed_exactly = True

    def __init__(
        self, name: str, timeout: float, embodiment: Embodiment, max_jump: float,
        may_jump: np.ndarray, may_end_moving: bool = False,
    ) -> None:
        super().__init__(name, timeout)
        self._embodiment = embodiment
        self._max_jump = max_jump
        self._may_jump = may_jump
        self._may_end_moving = may_end_moving
        self.received = -math.inf
        self._stamp_ns = -1
        self._newest: Plan | None = None
        self._is_new = False
        self._playback = PlanPlayback(embodiment.limits, ~may_jump)

    def read(self, message: TrajectoryMessage, now_ns: int, arm: np.ndarray | None) -> Plan:
        """
        Return the plan of a message, checked as far as that needs no clock and no state.

        :param now_ns: ROS time.
        :param arm: positions [J] where a motion would start now; None: unknown.
        :raises Rejected: see `validation.read_plan`.
        """
        return read_plan(message, self._embodiment, self._may_end_moving)

    def check_times(self, message: TrajectoryMessage, plan: Plan, now_ns: int) -> None:
        """
        Check a plan's times against the clock and the last accepted message.

        :raises Rejected: kinds future, stale, not_newer.
        """
        check_times(
            message.stamp_ns, plan, now_ns, self._stamp_ns, to_nanoseconds(self.timeout))

    def check_jump(self, plan: Plan, now_ns: int, arm: np.ndarray) -> None:
        """
        Check that a plan begins near positions [J].

        :raises Rejected: kind jump.
        """
        self._check_jump_of(plan, now_ns, arm, self._may_jump)

    def _check_jump_of(
        self, plan: Plan, now_ns: int, arm: np.ndarray, exempt: np.ndarray) -> None:
        check_jump(plan, now_ns, arm, self._embodiment, self._max_jump, exempt)

    def accept(self, plan: Plan, stamp_ns: int, now_s: float) -> None:
        """Take a plan that passed all checks."""
        self._newest, self._is_new = plan, True
        self._stamp_ns, self.received = stamp_ns, now_s
        self.counts.count_accepted()

    def age(self, now_s: float) -> float:
        return now_s - self.received

    def missing(self, now_ns: int, now_s: float, arm: np.ndarray | None) -> list[str]:
        age = self.age(now_s)
        why = f' ({self.counts.explanation})' if self.counts.explanation else ''
        if self._newest is None:
            return [f'{self.name}: no acceptable message received{why}']
        if age > self.timeout:
            return [f'fresh {self.name}: the last good one is {age:.2f} s old{why}']
        if arm is not None:
            try:
                self.check_jump(self._newest, now_ns, arm)
            except Rejected as rejected:
                return [f'a plan that begins where the arm is: {rejected}']
        return []

    def begin(self, start: np.ndarray) -> None:
        """Follow nothing; the next plan is followed from its own beginning."""
        self._playback.clear()
        self._is_new = self._newest is not None

    def goal(self, tick_ns: int, next_ns: int, speed: float) -> Goal:
        """Return what the plan asks for at the next tick; see `PlanPlayback`."""
        if self._is_new and self._newest is not None:
            self._playback.take(self._newest, tick_ns)
            self._is_new = False
        return self._playback.step(tick_ns, next_ns, speed)

    def position(self, time_ns: int) -> np.ndarray:
        if self._newest is None:
            raise RuntimeError(f'{self.name} has no plan yet')
        return self._newest.sample(time_ns)[0]

    def forget(self) -> None:
        self._newest, self.received, self._stamp_ns = None, -math.inf, -1
        self._playback.clear()
        self._is_new = False
