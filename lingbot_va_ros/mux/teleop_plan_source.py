"""
Plans of an operator's tools on teleop/joint_trajectory, in the forms that those tools send.

MoveIt Servo and rqt_joint_trajectory_controller write for joint_trajectory_controller: stamp 0
means now, a first point may be due at once, a message may name a part of the joints, and its last
point may move on.
"""

from dataclasses import dataclass, replace

import numpy as np

from lingbot_va_ros.motion.plan import Plan, resting_at
from lingbot_va_ros.motion.time import NANOSECONDS, to_nanoseconds
from lingbot_va_ros.motion.trajectory import TrajectoryMessage, TrajectoryPoint
from lingbot_va_ros.mux.goal import Goal
from lingbot_va_ros.mux.plan_playback import largest_share
from lingbot_va_ros.mux.plan_source import PlanSource
from lingbot_va_ros.mux.validation import check_stamp, NOT_NEWER, read_plan, Rejected
from lingbot_va_ros.specs.embodiment import Embodiment

# Behind a last point that moves on the plan moves on evenly, for as long as the last interval and
# no longer than this, s, and then brakes as long: the next message may be late.
LONGEST_LEAD = 0.05
# A plan that ends so soon after its stamp, s, is one of a stream of short ones.
SHORT = 0.1
# A cubic from rest to rest is faster than its mean speed by this factor.
PEAK_SPEED = 1.5
# So many messages count at once; more of them come in no tick.
MOST_RECENT = 16


@dataclass(frozen=True)
class PartialPlan(Plan):
    """
    A plan of which only some joints were asked for.

    :param named: [J] bool; the other joints stand still in it.
    :param anchor_ns: what counts as now in its times, where they are relative: it is followed as
        if it had come when the mux first acts on it. 0: its times are absolute.
    """

    named: np.ndarray
    anchor_ns: int = 0


class TeleopPlanSource(PlanSource):
    """
    A source of plans as joint_trajectory_controller takes them.

    Joints that a message does not name go on as the messages before it asked, or keep the command
    with which the motion began.

    :param approach_speed: share of the velocity limits to which the way to the first point of a
        motion keeps. A first point that is due later than that way takes is reached when it is
        due.
    """

    def __init__(
        self, name: str, timeout: float, embodiment: Embodiment, max_jump: float,
        may_jump: np.ndarray, approach_speed: float,
    ) -> None:
        super().__init__(name, timeout, embodiment, max_jump, may_jump, may_end_moving=True)
        self._approach_speed = approach_speed
        self._stamped_end_ns = 0  # of the last accepted plan that had a stamp
        # The plans of the last `timeout` seconds with the times of their arrival, and those that
        # the next tick takes.
        self._recent: list[tuple[float, PartialPlan]] = []
        self._pending: list[PartialPlan] = []
        self._followed: Plan | None = None
        self._start: np.ndarray | None = None  # where the motion began

    def read(
        self, message: TrajectoryMessage, now_ns: int, arm: np.ndarray | None) -> PartialPlan:
        """
        Return the plan of a message, checked as far as that needs no state.

        :param arm: positions [J] at which joints that it does not name stand.
        :raises Rejected: see `validation.read_plan`; kind jump, where a first point that is due at
            once is not where the arm is.
        """
        has_no_stamp = not message.stamp_ns
        if has_no_stamp:
            message = replace(message, stamp_ns=now_ns)
        named = np.isin(self._embodiment.joints, message.joints)
        whole = self._completed(message, named, arm)
        points = whole.points
        if len(points) == 1 and points[0].time_from_start_ns == 0:
            # Due at once: so late that it is not past already.
            at_once = replace(points[0], time_from_start_ns=1 + now_ns - message.stamp_ns)
            whole = replace(whole, points=(at_once,))
        plan = self._ended(read_plan(
            whole, self._embodiment, may_end_moving=True, may_begin_at_once=True),
            message.stamp_ns)
        is_relative = (
            has_no_stamp or points[-1].time_from_start_ns <= to_nanoseconds(SHORT))
        partial = PartialPlan(
            plan.times_ns, plan.positions, plan.velocities, named,
            message.stamp_ns if is_relative else 0)
        if points[0].time_from_start_ns == 0 and arm is not None:
            self.check_jump(partial, now_ns, arm)  # it says where the arm is
        return partial

    def _completed(
        self, message: TrajectoryMessage, named: np.ndarray, arm: np.ndarray | None,
    ) -> TrajectoryMessage:
        """Return a message that names all joints, where the given one names known ones."""
        if named.all() or not named.any():
            return message
        joints = self._embodiment.joints
        others = [name for name, is_named in zip(joints, named, strict=True) if not is_named]
        if arm is None:
            raise Rejected(
                'joints', f'missing joints {", ".join(others)}: no joint state tells where they '
                'are, so they cannot keep their place')
        limits = self._embodiment.limits
        held = tuple(float(q) for q in np.clip(arm, limits.lower, limits.upper)[~named])
        still = (0.0,) * len(held)
        points = []
        for index, point in enumerate(message.points):
            for what, values, is_needed in (
                    ('positions', point.positions, True),
                    ('velocities', point.velocities, False),
                    ('accelerations', point.accelerations, False)):
                if (is_needed or len(values)) and len(values) != len(message.joints):
                    raise Rejected(
                        'lengths', f'point {index} has {len(values)} {what}, expected '
                        f'{len(message.joints)}')
            points.append(TrajectoryPoint(
                point.time_from_start_ns, (*point.positions, *held),
                (*point.velocities, *still) if point.velocities else (),
                (*point.accelerations, *still) if point.accelerations else ()))
        return replace(message, joints=(*message.joints, *others), points=tuple(points))

    def _ended(self, plan: Plan, stamp_ns: int) -> Plan:
        """Return a plan that ends at rest; behind a last point that moves on it brakes."""
        speed = plan.velocities[-1]
        if not np.any(speed):
            return plan
        before_ns = int(plan.times_ns[-2]) if len(plan.times_ns) > 1 else stamp_ns
        lead_ns = min(max(plan.end_ns - before_ns, 1), to_nanoseconds(LONGEST_LEAD))
        limits, lead = self._embodiment.limits, lead_ns / NANOSECONDS
        speed = np.clip(speed, -limits.velocity, limits.velocity)
        ends = [np.clip(plan.positions[-1] + speed * way, limits.lower, limits.upper)
                for way in (lead, 1.5 * lead)]
        return Plan(
            np.append(plan.times_ns, [plan.end_ns + lead_ns, plan.end_ns + 2 * lead_ns]),
            np.vstack((plan.positions, *ends)),
            np.vstack((plan.velocities, speed, np.zeros_like(speed))))

    def check_times(self, message: TrajectoryMessage, plan: Plan, now_ns: int) -> None:
        """
        Check a plan's times against the clock and the last accepted message with a stamp.

        A message with the stamp of the last one is newer where it leads further: MoveIt Servo
        fills its window of points at first without moving its begin.

        :raises Rejected: kinds future, stale, not_newer.
        """
        if not message.stamp_ns:
            return
        check_stamp(message.stamp_ns, now_ns, to_nanoseconds(self.timeout))
        if plan.end_ns <= now_ns:
            raise Rejected('stale', 'its last point is past')
        is_same = message.stamp_ns == self._stamp_ns
        if message.stamp_ns < self._stamp_ns or is_same and plan.end_ns <= self._stamped_end_ns:
            raise Rejected('not_newer', NOT_NEWER)

    def check_jump(self, plan: Plan, now_ns: int, arm: np.ndarray) -> None:
        may_jump = self._may_jump
        if isinstance(plan, PartialPlan):
            may_jump = may_jump | ~plan.named
        self._check_jump_of(plan, now_ns, arm, may_jump)

    def accept(self, plan: Plan, stamp_ns: int, now_s: float) -> None:
        """Take a plan that passed all checks."""
        super().accept(plan, stamp_ns or self._stamp_ns, now_s)
        if stamp_ns:
            self._stamped_end_ns = plan.end_ns
        if isinstance(plan, PartialPlan):
            self._recent = [each for each in self._recent if now_s - each[0] <= self.timeout]
            self._recent = [*self._recent, (now_s, plan)][-MOST_RECENT:]
            self._pending = [*self._pending, plan][-MOST_RECENT:]

    def begin(self, start: np.ndarray) -> None:
        """Follow from these positions [J]; joints that the newest message lacks keep them."""
        super().begin(start)
        self._start, self._followed = np.array(start), None
        self._pending = [plan for _, plan in self._recent[-1:]]

    def goal(self, tick_ns: int, next_ns: int, speed: float) -> Goal:
        """Return what the plans ask for at the next tick; see `PlanPlayback`."""
        self._is_new = False
        for plan in self._pending:
            self._take(plan, tick_ns)
        self._pending = []
        return super().goal(tick_ns, next_ns, speed)

    def _take(self, plan: PartialPlan, tick_ns: int) -> None:
        times = plan.times_ns
        if plan.anchor_ns:
            times = times + max(0, tick_ns - plan.anchor_ns)
        before = self._followed
        if before is None:
            if self._start is None:
                raise RuntimeError(f'{self.name} is followed without a begin')
            before = resting_at(tick_ns, self._start)
            seconds = (int(times[0]) - tick_ns) / NANOSECONDS
            way = largest_share(
                plan.positions[0] - self._start,
                self._approach_speed * self._embodiment.limits.velocity,
                plan.named & ~self._may_jump)
            if PEAK_SPEED * way <= seconds:
                self._playback.take(before, tick_ns)
        self._followed = _merged(
            before, Plan(times, plan.positions, plan.velocities), plan.named)
        self._playback.take(self._followed, tick_ns)

    def position(self, time_ns: int) -> np.ndarray:
        """Return the positions [J] asked for; nan where no message names the joint."""
        q = np.full(len(self._may_jump), np.nan)
        for _, plan in self._recent:
            q = np.where(plan.named, plan.sample(time_ns)[0], q)
        return q

    def forget(self) -> None:
        super().forget()
        self._recent, self._pending = [], []
        self._followed = self._start = None
        self._stamped_end_ns = 0


def _merged(before: Plan, plan: Plan, named: np.ndarray) -> Plan:
    """Return a plan in which joints that are not named [J] go on along the plan before it."""
    if named.all():
        return plan
    begin_ns = int(plan.times_ns[0])
    times = np.union1d(plan.times_ns, before.times_ns[before.times_ns > begin_ns])
    rows = [(plan.sample(int(time)), before.sample(int(time))) for time in times]
    return Plan(
        times, np.array([np.where(named, new[0], old[0]) for new, old in rows]),
        np.array([np.where(named, new[1], old[1]) for new, old in rows]))
