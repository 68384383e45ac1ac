"""The chase: the fastest way onto a goal that moves, inside the limits of motion."""

import numpy as np
import ruckig

from lingbot_va_ros.mux.curve import State
from lingbot_va_ros.mux.goal import even_goal, Goal, JERK_SHARE
from lingbot_va_ros.specs.embodiment import JointLimits

# Of the velocity limits, the chase uses this share: a goal that gets slower while the joints are
# at the limit carries them a little beyond.
CHASE_SPEED = 0.99
# A goal that moves at the limits could never be caught: it counts as no faster and no more
# accelerated than these shares of them.
SPEED_SHARE, ACCELERATION_SHARE = 0.99, 0.95
# ruckig finds no way in rare cases between two kinds of profile; a little less jerk is none.
JERK_SHARES_TO_TRY = (1.0, 0.995, 0.97)
# A joint this near to its goal (rad, m; per s; per s²) is on it.
SAME = (1e-7, 1e-5, 1e-3)


class ChaseSegment:
    """
    One tick of a chase: the motion of the goal, and that of the joints towards it (ruckig).

    It is a `Curve` of `period` seconds.

    :param goal: the goal's motion, as polynomial of the time before the end of the tick.
    :param closing: the joints' motion as seen from the goal; None: they are on it.
    :param rest: positions and velocities [J] that joints which are on their goal lack of it, at
        the begin of the tick. At its end they lack nothing.
    """

    def __init__(
        self, goal: Goal, period: float, closing: ruckig.Trajectory | None = None,
        rest: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        self._goal = goal
        self._period = period
        self._closing = closing
        self._rest = rest

    @property
    def seconds(self) -> float:
        """Seconds until the joints are on the goal."""
        return 0.0 if self._closing is None else float(self._closing.duration)

    def extremes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the lowest and highest positions [J] on the way to a goal at rest."""
        q = self._goal.q
        if self._closing is None:
            return q, q
        bounds = self._closing.position_extrema
        return (q + np.array([bound.min for bound in bounds]),
                q + np.array([bound.max for bound in bounds]))

    @property
    def switches(self) -> np.ndarray:
        """Times [n] at which the jerk of a joint changes, s."""
        if self._closing is None:
            return np.empty(0)
        spans = np.array([
            [*profile.brake.t, *profile.t] for profile in self._closing.profiles[0]])
        return np.asarray(np.cumsum(spans, axis=1)[spans > 0.0])

    def at(self, times: np.ndarray) -> State:
        """Return positions, velocities and accelerations [n, J] at times [n] of the tick, s."""
        q, v, a, j = self._goal
        t = (times - self._period)[:, None]
        q = q + t * (v + t * (a / 2.0 + t * j / 6.0))
        v, a = v + t * (a + t * j / 2.0), a + t * j
        if self._rest is not None:
            dq, dv, da = self._fading(times, *self._rest)
            q, v, a = q + dq, v + dv, a + da
        if self._closing is None:
            return q, v, a
        rows = np.array([self._closing.at_time(time) for time in times])  # [n, 3, J]
        return q + rows[:, 0], v + rows[:, 1], a + rows[:, 2]

    def _fading(self, times: np.ndarray, q: np.ndarray, v: np.ndarray) -> State:
        """Return the cubic from a state [J] to 0 at the end of the tick, [n, J]."""
        period = self._period
        u = (times / period)[:, None]
        square = -3.0 * q - 2.0 * v * period
        cube = 2.0 * q + v * period
        return (
            q + u * (v * period + u * (square + u * cube)),
            v + u * (2.0 * square + 3.0 * u * cube) / period,
            (2.0 * square + 6.0 * u * cube) / period ** 2)


class Chase:
    """
    Finds tick by tick the fastest way of all joints [J] onto their goals, each by itself.

    A goal is approached in the frame that moves with it, so that a motion of the goal inside the
    limits is followed exactly once it is caught.

    :param period: seconds from tick to tick.
    """

    def __init__(self, limits: JointLimits, period: float) -> None:
        self._limits = limits
        self._period = period
        count = len(limits.lower)
        self._generator = ruckig.Ruckig(count)
        self._given = ruckig.InputParameter(count)
        self._given.synchronization = ruckig.Synchronization.No
        for name in ('position', 'velocity', 'acceleration'):
            setattr(self._given, f'target_{name}', np.zeros(count))

    def segment(
        self, q: np.ndarray, v: np.ndarray, a: np.ndarray, goal: Goal, share: float, speed: float,
    ) -> ChaseSegment:
        """
        Return the motion of the next tick.

        :param q, v, a: the present state [J]; the motion begins with it.
        :param goal: at the end of the tick.
        :param share: of the velocity and acceleration limits, above 0 and at most 1.
        :param speed: further share of the velocity limits alone.
        :raises ArithmeticError: there is no way inside the limits.
        """
        period, limits = self._period, self._limits
        velocity = CHASE_SPEED * share * speed * limits.velocity
        acceleration = share * limits.acceleration
        goal = _clipped(goal, velocity, acceleration, limits.jerk, period)
        q_0, v_0, a_0 = (row[0] for row in ChaseSegment(goal, period).at(np.zeros(1)))
        state = [q - q_0, v - v_0, a - a_0]
        is_caught = np.logical_and.reduce([
            np.abs(part) < same for part, same in zip(state, SAME, strict=True)])
        rest = (np.where(is_caught, state[0], 0.0), np.where(is_caught, state[1], 0.0))
        if is_caught.all():
            return ChaseSegment(goal, period, None, rest)
        given = self._given
        # Of both ends of the tick, so that neither leads beyond the limits.
        least = (1.0 - SPEED_SHARE) * velocity
        given.max_velocity = np.maximum(velocity - np.maximum(v_0, goal.v), least)
        given.min_velocity = np.minimum(-velocity - np.minimum(v_0, goal.v), -least)
        given.max_acceleration = acceleration - np.maximum(a_0, goal.a)
        given.min_acceleration = -acceleration - np.minimum(a_0, goal.a)
        given.max_jerk = limits.jerk - np.abs(goal.j)
        closing = self._closing([np.where(is_caught, 0.0, part) for part in state])
        return ChaseSegment(goal, period, closing, rest)

    def way_to_rest(
        self, q: np.ndarray, v: np.ndarray, a: np.ndarray, goal: np.ndarray, speed: float,
    ) -> ChaseSegment:
        """
        Return the whole way to rest at positions [J]; see `segment`.

        :raises ArithmeticError: there is no way inside the limits.
        """
        given, limits = self._given, self._limits
        given.max_velocity, given.min_velocity = speed * limits.velocity, -speed * limits.velocity
        given.max_acceleration, given.min_acceleration = limits.acceleration, -limits.acceleration
        given.max_jerk = limits.jerk
        return ChaseSegment(
            even_goal(goal), self._period, self._closing([q - goal, v, a]))

    def _closing(self, state: list[np.ndarray]) -> ruckig.Trajectory:
        """Return the way of all joints from positions, velocities, accelerations [J] to 0."""
        given = self._given
        given.current_position, given.current_velocity, given.current_acceleration = state
        jerk = np.array(given.max_jerk)
        for share in JERK_SHARES_TO_TRY:
            given.max_jerk = share * jerk
            closing = ruckig.Trajectory(len(jerk))
            try:
                result = self._generator.calculate(given, closing)
            except ruckig.RuckigError:
                continue
            if result in (ruckig.Result.Working, ruckig.Result.Finished):
                return closing
        raise ArithmeticError('ruckig finds no way')


def _clipped(
    goal: Goal, velocity: np.ndarray, acceleration: np.ndarray, jerk: np.ndarray, period: float,
) -> Goal:
    """Return a goal that can be caught: at both ends of its tick slower than the limits."""
    v = _bounded(goal.v, SPEED_SHARE * velocity)
    most = ACCELERATION_SHARE * acceleration
    a = _bounded(goal.a, most)
    j = _bounded(goal.j, JERK_SHARE * jerk)
    # Its acceleration at the begin of the tick is inside too.
    j = (a - _bounded(a - j * period, most)) / period
    return Goal(goal.q, v, a, j)


def _bounded(values: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Return values inside -most … most, as np.clip does in twice the time."""
    return np.asarray(np.minimum(np.maximum(values, -most), most))
