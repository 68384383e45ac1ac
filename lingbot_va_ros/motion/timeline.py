"""Plan time: the time of plans and observations, which runs at the speed scale of ROS time."""

from collections.abc import Iterable
from dataclasses import dataclass
import math
import threading

import numpy as np

from lingbot_va_ros.motion.plan import Plan
from lingbot_va_ros.motion.time import NANOSECONDS, to_nanoseconds

# A change of the rate is made of constant rates of this length, seconds.
STEP = 0.01
# Changes of the rate take up this share of the acceleration limits.
ACCELERATION_SHARE = 0.5
FASTEST_CHANGE = 3.0  # of the rate, 1/s
MOST_KNOTS = 4096  # older ones are forgotten
NEGLIGIBLE = 1e-9
# A scale that differs by less than this share is the same: drivers report theirs with noise.
SAME_SCALE = 1e-3


@dataclass(frozen=True)
class PaceLimit:
    """A share of the full speed that a span of plan time, in ns, must not exceed."""

    begin_ns: int
    end_ns: int
    scale: float


@dataclass(frozen=True)
class _Map:
    """Knots [n]: from each one on, plan time runs at a constant rate of ROS time."""

    ros_ns: np.ndarray
    plan_ns: np.ndarray
    rates: np.ndarray


class Timeline:
    """
    A piecewise linear map between ROS time and plan time, both in ns.

    At a speed scale of 0.25 a second of plan time takes four seconds of ROS time: a plan's joints
    move at a quarter of its velocities, and images and actions keep to its grid. Plan time starts
    equal to ROS time. Any thread reads it; what is past never changes.

    :param largest_change: of the rate, 1/s.
    :param lead: seconds after a request from which the map may change: what was published until
        then stays true.
    :param is_fixed: whether plan time always is ROS time.
    """

    def __init__(
        self, largest_change: float = FASTEST_CHANGE, lead: float = 0.0, is_fixed: bool = False,
    ) -> None:
        self.is_fixed = is_fixed
        self._change = largest_change
        self._lead_ns = to_nanoseconds(lead)
        self._lock = threading.Lock()
        self._speed = 1.0
        self._limits: tuple[PaceLimit, ...] = ()
        self._map = _identity()

    def configure(self, velocity: np.ndarray, acceleration: np.ndarray) -> None:
        """Keep changes of the rate inside a robot's limits [J], rad and s (prismatic: m)."""
        share = ACCELERATION_SHARE * float(np.min(acceleration / velocity))
        self._change = min(FASTEST_CHANGE, share)

    # Conversions

    def to_plan(self, ros_ns: int) -> int:
        """Return the plan time of a ROS time."""
        known = self._map
        place = max(0, int(np.searchsorted(known.ros_ns, ros_ns, 'right')) - 1)
        rate, since = float(known.rates[place]), ros_ns - int(known.ros_ns[place])
        return int(known.plan_ns[place]) + (since if rate == 1.0 else round(since * rate))

    def to_ros(self, plan_ns: int) -> int:
        """Return the ROS time of a plan time."""
        return int(self.to_ros_times(np.array([plan_ns], np.int64))[0])

    def to_ros_times(self, plan_ns: np.ndarray) -> np.ndarray:
        """Return the ROS times of plan times [n], int64."""
        known = self._map
        places = np.maximum(np.searchsorted(known.plan_ns, plan_ns, 'right') - 1, 0)
        rates, since = known.rates[places], plan_ns - known.plan_ns[places]
        slow = np.rint(since / rates).astype(np.int64)
        return np.asarray(known.ros_ns[places] + np.where(rates == 1.0, since, slow))

    def rates(self, plan_ns: np.ndarray) -> np.ndarray:
        """Return the rates at plan times [n]; where they change, the mean of both sides."""
        known = self._map
        after = np.maximum(np.searchsorted(known.plan_ns, plan_ns, 'right') - 1, 0)
        before = np.maximum(np.searchsorted(known.plan_ns, plan_ns, 'left') - 1, 0)
        return np.asarray((known.rates[after] + known.rates[before]) / 2)

    def rate(self, plan_ns: int) -> float:
        """Return the seconds of plan time in a second of ROS time, at a plan time."""
        return float(self.rates(np.array([plan_ns], np.int64))[0])

    def seconds(self, begin_ns: int, end_ns: int) -> float:
        """Return the seconds of ROS time between two plan times."""
        return (self.to_ros(end_ns) - self.to_ros(begin_ns)) / NANOSECONDS

    def ahead(self, plan_ns: int, seconds: float) -> int:
        """Return the plan time that comes some seconds of ROS time after a plan time."""
        return self.to_plan(self.to_ros(plan_ns) + to_nanoseconds(seconds))

    def in_ros(self, plan: Plan) -> Plan:
        """Return a plan of plan time as a plan of ROS time."""
        known = self._map
        inside = known.plan_ns[
            (known.plan_ns > plan.times_ns[0]) & (known.plan_ns < plan.end_ns)]
        if not len(inside) and np.all(self.rates(plan.times_ns[[0, -1]]) == 1.0):
            return Plan(self.to_ros_times(plan.times_ns), plan.positions, plan.velocities)
        times = np.union1d(plan.times_ns, inside)
        rows = [plan.sample(int(time_ns)) for time_ns in times]
        rates = self.rates(times)[:, None]
        ros, kept = np.unique(self.to_ros_times(times), return_index=True)
        return Plan(
            ros, np.array([q for q, _ in rows])[kept],
            (np.array([v for _, v in rows]) * rates)[kept])

    # Changes

    @property
    def speed(self) -> float:
        """The speed scale that was set last."""
        return self._speed

    def set_speed(self, scale: float, now_ns: int) -> None:
        """
        Let plan time run at a speed scale.

        :param scale: above 0 and at most 1.
        :param now_ns: ROS time.
        """
        with self._lock:
            scale = 1.0 if scale > 1.0 - SAME_SCALE else scale
            differs = abs(scale - self._speed) > SAME_SCALE * self._speed
            if not self.is_fixed and differs:
                self._speed = scale
                self._change_from(now_ns + self._lead_ns)

    def set_limits(
        self, limits: Iterable[PaceLimit], now_ns: int, at_rest: bool = False) -> None:
        """
        Replace the limits of spans of plan time; each is a share of the speed scale.

        :param now_ns: ROS time.
        :param at_rest: nothing moves now, so that the rate may jump.
        """
        with self._lock:
            wanted = tuple(limit for limit in limits if limit.scale < 1.0)
            if not self.is_fixed and wanted != self._limits:
                self._limits = wanted
                self._change_from(now_ns + (0 if at_rest else self._lead_ns), at_rest)

    def reset(self, now_ns: int, speed: float | None = None) -> None:
        """
        Begin anew at a ROS time, with plan time equal to it: nothing of before is known any more.

        :param speed: the speed scale from then on; None: the present one.
        """
        with self._lock:
            self._limits, self._map = (), _identity()
            self._speed = self._speed if speed is None else speed
            self._change_from(now_ns, at_rest=True)

    def _change_from(self, ros_ns: int, at_rest: bool = False) -> None:
        """Compute the map anew from a ROS time on."""
        old, plan_ns = self._map, self.to_plan(ros_ns)
        place = max(0, int(np.searchsorted(old.ros_ns, ros_ns, 'right')) - 1)
        kept = slice(max(0, place + 1 - MOST_KNOTS), place + 1)
        pace = _Pace(self._speed, [each for each in self._limits if each.end_ns > plan_ns],
                     self._change)
        rate = pace.allowed(plan_ns) if at_rest else float(old.rates[place])
        knots = pace.knots(ros_ns, plan_ns, rate)
        self._map = _Map(
            np.concatenate((old.ros_ns[kept], [each[0] for each in knots])).astype(np.int64),
            np.concatenate((old.plan_ns[kept], [each[1] for each in knots])).astype(np.int64),
            np.concatenate((old.rates[kept], [each[2] for each in knots])))


class _Pace:
    """The rates of plan time that a speed scale and limits ask for."""

    def __init__(self, speed: float, limits: list[PaceLimit], change: float) -> None:
        self._speed = speed
        self._limits = limits
        # At the limit of a span the plan's own velocities are that much above the robot's.
        self._change = change * min((limit.scale for limit in limits), default=1.0)

    def allowed(self, plan_ns: float) -> float:
        """Return the highest rate at a plan time from which all later limits can be kept."""
        rate = self._speed
        for limit in self._limits:
            least, before = self._speed * limit.scale, (limit.begin_ns - plan_ns) / NANOSECONDS
            if plan_ns < limit.end_ns:
                rate = min(rate, math.sqrt(least ** 2 + 2 * self._change * max(before, 0.0)))
        return rate

    def knots(self, ros_ns: int, plan_ns: int, rate: float) -> list[tuple[int, int, float]]:
        """Return the knots (ROS time, plan time, rate) from a time and a rate on."""
        knots: list[tuple[int, int, float]] = []
        step_ns = to_nanoseconds(STEP)
        while len(knots) < MOST_KNOTS:
            duration = step_ns
            steady = abs(rate - self.allowed(plan_ns)) < NEGLIGIBLE
            until_ns = self._steady_until(plan_ns, rate) if steady else plan_ns
            if until_ns is None:
                knots.append((ros_ns, plan_ns, rate))
                break
            if until_ns - plan_ns > rate * step_ns:
                duration = round((until_ns - plan_ns) / rate)
            else:
                most = self._change * STEP
                wanted = self.allowed(plan_ns + rate * step_ns)
                rate = min(max(wanted, rate - most), rate + most)
            knots.append((ros_ns, plan_ns, rate))
            ros_ns, plan_ns = ros_ns + duration, plan_ns + round(duration * rate)
        return knots

    def _steady_until(self, plan_ns: int, rate: float) -> int | None:
        """Return the plan time until which an allowed rate stays the allowed one; None: ever."""
        ends = []
        for limit in self._limits:
            least = self._speed * limit.scale
            if plan_ns < limit.end_ns and (limit.begin_ns <= plan_ns and least < self._speed):
                ends.append(limit.end_ns)
            elif plan_ns < limit.end_ns and least < rate:
                way = (rate ** 2 - least ** 2) / (2 * self._change)
                ends.append(max(plan_ns, limit.begin_ns - to_nanoseconds(way)))
        return min(ends, default=None)


def _identity() -> _Map:
    return _Map(np.zeros(1, np.int64), np.zeros(1, np.int64), np.ones(1))
