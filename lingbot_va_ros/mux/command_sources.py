"""Where plans come from: the newest acceptable one of a source, and what was refused of it."""

from collections import Counter
import math

from lingbot_va_ros.motion.plan import Plan
from lingbot_va_ros.mux.validation import Rejected


class Refusals:
    """How many messages of a source were taken and refused, and why the last one was."""

    def __init__(self):
        self.accepted = 0
        self.rejected: Counter[str] = Counter()
        self.in_row = 0
        self.last = ''

    def took(self) -> None:
        """Count a message that was taken."""
        self.accepted += 1
        self.in_row = 0

    def refused(self, refusal: Rejected) -> None:
        """Count a message that was refused."""
        self.rejected[refusal.kind] += 1
        self.in_row += 1
        self.last = str(refusal)


class PlanSource:
    """
    A source of plans: the newest that was taken, and the plan that is being followed.

    :param topic: its name, for messages to people.
    """

    def __init__(self, topic: str):
        self.topic = topic
        self.refusals = Refusals()
        self.plan: Plan | None = None
        self.heard = -math.inf
        self.stamp_ns = -1
        self._is_new = False
        self._followed: Plan | None = None

    def take(self, plan: Plan, stamp_ns: int, now_s: float) -> None:
        """Take a plan that was found good."""
        self.plan, self._is_new = plan, True
        self.stamp_ns, self.heard = stamp_ns, now_s
        self.refusals.took()

    def forget(self) -> None:
        """Forget the plan, after a clock jump."""
        self.plan, self.heard, self.stamp_ns = None, -math.inf, -1
        self.rest()

    def rest(self) -> None:
        """Follow nothing; the next plan is followed from its own beginning."""
        self._followed, self._is_new = None, self.plan is not None

    def goal(self, tick_ns: int, next_ns: int) -> tuple:
        """
        Return (q, v, a) [J] to have at the next tick: positions, velocities, accelerations.

        A new plan is led to from what the one before asked for, not from where the gate let the
        arm come: a lead from there, renewed with every message, would ask for more speed than can
        be braked.
        """
        if self._is_new:
            self._followed = self.plan if self._followed is None else (
                self.plan.led_to(tick_ns, *_sample(self._followed, tick_ns)))
            self._is_new = False
        _, v_now = _sample(self._followed, tick_ns)
        q, v = _sample(self._followed, next_ns)
        return q, v, (v - v_now) / ((next_ns - tick_ns) * 1e-9)


def _sample(plan: Plan, time_ns: int) -> tuple:
    """Return (q, v) [J] of a plan; before its begin as if it came from there at that velocity."""
    before = (int(plan.times_ns[0]) - time_ns) * 1e-9
    if before <= 0:
        return plan.sample(time_ns)
    return plan.positions[0] - plan.velocities[0] * before, plan.velocities[0]
