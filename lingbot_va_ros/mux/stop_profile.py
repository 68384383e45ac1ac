"""Stop profiles: motions to rest inside the limits of acceleration and jerk."""

import numpy as np

from lingbot_va_ros.mux.curve import State

TINY = 1e-12  # s, and per s²: what divides is never 0


class StopProfile:
    """
    A stop of all joints [J]: the acceleration changes, stays, and changes to 0, evenly.

    It is a `Curve`. `lower` and `upper` are the extreme positions [J], `fastest` the highest
    speeds [J]; `turns` [J] says which joints turn round on the way.

    :param q, v, a: the state at its begin [J]; rad and s, or m and s.
    :param phases: durations of the three phases, [3, J] or [3, 1], s.
    :param jerks: [3, J] with which the velocity and the acceleration end at 0.
    """

    def __init__(
        self, q: np.ndarray, v: np.ndarray, a: np.ndarray, phases: np.ndarray, jerks: np.ndarray,
    ) -> None:
        self._state = (q, v, a)
        self._phases, self._jerks = phases, jerks
        self._ends = np.cumsum(phases, axis=0)
        self.end = float(self._ends[-1].max(initial=0.0))
        self._rest = self._moved(self._ends[-1])[0]
        jerk, first = jerks[0], phases[0]
        end_speed = v + first * (a + jerk * first / 2.0)
        # A joint that turns round does so in the first phase, and only there it gains speed.
        self.turns = turns = v * end_speed < 0.0
        root = a + np.copysign(np.sqrt(np.maximum(a * a - 2.0 * jerk * v, 0.0)), a)
        time = np.where(turns, -2.0 * v / np.where(turns & (root != 0.0), root, 1.0), 0.0)
        turn = q + time * (v + time * (a / 2.0 + jerk * time / 6.0))
        self.lower = np.minimum(np.minimum(q, turn), self._rest)
        self.upper = np.maximum(np.maximum(q, turn), self._rest)
        gains = (a * jerk < 0.0) & (np.abs(a) <= np.abs(jerk) * first)
        peak = np.where(gains, v - a * a / (2.0 * np.where(gains, jerk, 1.0)), v)
        self.fastest = np.maximum(np.abs(v), np.abs(peak))

    @property
    def switches(self) -> np.ndarray:
        """Times [n] at which the jerk of a joint changes, s."""
        return self._ends.ravel()

    def at(self, times: np.ndarray) -> State:
        """Return positions, velocities and accelerations [n, J] at times [n], s."""
        q, v, a = self._moved(times[:, None])
        rests = times[:, None] >= self._ends[-1]
        return np.where(rests, self._rest, q), np.where(rests, 0.0, v), np.where(rests, 0.0, a)

    def _moved(self, times: np.ndarray) -> State:
        q, v, a = self._state
        begin: np.ndarray | float = 0.0
        for phase, end, jerk in zip(self._phases, self._ends, self._jerks, strict=True):
            t = np.minimum(np.maximum(times - begin, 0.0), phase)
            q = q + t * (v + t * (a / 2.0 + jerk * t / 6.0))
            v, a = v + t * (a + jerk * t / 2.0), a + jerk * t
            begin = end
        return q, v, a


def fastest_stop(
    q: np.ndarray, v: np.ndarray, a: np.ndarray, acceleration: np.ndarray, jerk: np.ndarray,
) -> StopProfile:
    """
    Return the stop of all joints [J], each as fast as it may by itself.

    Seen in the direction in which a joint would move on if it let go of its acceleration, the
    acceleration falls to -p, stays there, and rises to 0 as the velocity does. p is the limit A,
    or where the stop is shorter, √(J·v + a²/2): then nothing stays. (Biagiotti and Melchiorri,
    Trajectory Planning for Automatic Machines and Robots, section 3.4: the double S profile.)

    :param q, v, a: positions, velocities and accelerations [J]; rad and s, or m and s.
    :param acceleration, jerk: the limits [J].
    """
    sign = np.where(v + a * np.abs(a) / (2.0 * jerk) < 0.0, -1.0, 1.0)
    speed, gain = sign * v, sign * a
    peak = np.minimum(np.sqrt(np.maximum(jerk * speed + gain * gain / 2.0, 0.0)), acceleration)
    # What is left for the phase in between, after the gains of the other two.
    left = speed + gain * gain / (2.0 * jerk) - peak * peak / jerk
    middle = np.maximum(left, 0.0) / np.where(peak > 0.0, peak, 1.0)
    phases = np.stack((np.maximum((gain + peak) / jerk, 0.0), middle, peak / jerk))
    falls = sign * jerk
    return StopProfile(q, v, a, phases, np.stack((-falls, np.zeros_like(falls), falls)))


def straight_stop(
    q: np.ndarray, v: np.ndarray, a: np.ndarray, acceleration: np.ndarray, jerk: np.ndarray,
) -> StopProfile:
    """
    Return a stop in which all joints [J] begin, stay and end together, as `fastest_stop`.

    The arm stops nearly along its path. It takes about as long as the slowest joint needs, and
    the others go further than they need to.
    """
    fall = np.abs(v) + a * a / (2.0 * jerk)  # no joint has to lose more speed
    peak = np.minimum(np.sqrt(jerk * fall), acceleration)
    first = max(float(np.max((np.abs(a) + peak) / jerk)), TINY)
    last = max(float(np.max(peak / jerk)), TINY)
    # Accelerations that each joint may reach in the first phase and leave in the last.
    most = np.minimum(acceleration, np.minimum(jerk * last, jerk * first - np.abs(a)))
    lost = v + a * (first / 2.0)
    moves = np.abs(lost) > 0.0
    needed = float(np.max(np.abs(lost) / np.where(moves, np.maximum(most, TINY), 1.0)))
    middle = max(needed - (first + last) / 2.0, 0.0)
    reached = lost / (first / 2.0 + middle + last / 2.0)
    return StopProfile(q, v, a, np.array([[first], [middle], [last]]), np.stack(
        (-(a + reached) / first, np.zeros_like(a), reached / last)))
