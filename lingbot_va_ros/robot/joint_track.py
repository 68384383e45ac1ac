"""The measurements of one joint: which are refused, and the state on which several agree."""

from collections import deque
import math
from statistics import median

from lingbot_va_ros.motion.time import NANOSECONDS

# A stamp further ahead of our clock than this is of a clock that is not synchronized with ours.
MAX_AHEAD_NS = 50_000_000
# A position is an outlier when it is further from the last one than OUTLIER_DISTANCE (rad, m) plus
# OUTLIER_SPEED times the way at the velocity limit.
OUTLIER_DISTANCE, OUTLIER_SPEED = 0.05, 4.0
# So many messages make a state, and so many in a row that agree are believed against the last one:
# the arm was moved while no message came, or its encoders or its clock were set anew.
AGREEING_MESSAGES = 3
# Two messages nearer than this, s, say nothing about a speed.
SHORTEST_INTERVAL = 1e-3
# Two steps of a position belong to one motion when neither is more than this times the other.
ALIKE_STEPS = 2.0
# So many outliers in this time, s, between good positions: two publishers contradict each other.
CONTRADICTIONS, CONTRADICTION_SECONDS = 3, 2.0

# Why a measurement is refused.
REFUSALS = ('implausible', 'future', 'stamp_back', 'stamp_still', 'outlier')


class JointTrack:
    """
    The last measurements of one joint. Positions in rad or m, velocities per s.

    One false message never changes the state by more than the joint moves between two messages,
    whatever its position, velocity and stamp are: the state is a median of the last three.

    :param lowest, highest: positions outside are implausible.
    :param velocity, acceleration: the joint's limits.
    :param timeout: seconds of silence after which earlier measurements count no longer.
    """

    def __init__(
        self, lowest: float, highest: float, velocity: float, acceleration: float,
        timeout: float,
    ) -> None:
        self.position = 0.0
        self.velocity = 0.0
        self.position_ns = 0  # ROS time of the measurement of `position`: its stamp, or arrival
        # When the newest accepted message was measured, on the watchdogs' clock in s: the earlier
        # of its arrival and its stamp.
        self.measured_s = -math.inf
        # Why the newest message was refused, to follow the joint's name; empty: it was not.
        self.refusal = ''
        self.contradiction = ''  # the last outlier and the position before it
        self._lowest, self._highest = lowest, highest
        self._velocity_limit, self._acceleration_limit = velocity, acceleration
        self._timeout = timeout
        self._outlier_times: deque[float] = deque(maxlen=CONTRADICTIONS)
        self._disputed_s = -math.inf
        self.forget()

    @property
    def is_agreed(self) -> bool:
        """Whether enough messages agree on the state."""
        return len(self._recent) == AGREEING_MESSAGES

    def forget(self) -> None:
        """Count the joint as never received."""
        # Position, velocity, and ROS time of the measurement.
        self._recent: deque[tuple[float, float, int]] = deque(maxlen=AGREEING_MESSAGES)
        self._candidates: deque[tuple[float, float, int]] = deque(maxlen=AGREEING_MESSAGES)
        self._candidate_arrived_s = -math.inf
        self._arrived_s = self.measured_s = -math.inf
        self._stamp_ns = 0  # of the newest accepted message that has one
        self._seen_stamp_ns = 0  # of the newest message that has one
        self._stamps_back = 0  # messages in a row that are older than `_stamp_ns`, each newer

    def update(
        self, position: float, velocity: float, stamp_ns: int, now_ns: int, now_s: float,
    ) -> str:
        """
        Take one measurement; returns one of REFUSALS, or an empty text.

        :param stamp_ns: ROS time; 0: the message has none.
        :param now_ns: ROS time now.
        :param now_s: the watchdogs' clock now.
        """
        if not self._lowest <= position <= self._highest:  # also not a number
            self.refusal = f'is at {position:.4g}, far outside its limits'
            return 'implausible'
        velocity = velocity if math.isfinite(velocity) else 0.0
        kind = self._stamp_refusal(stamp_ns, now_ns) if stamp_ns else ''
        if kind:
            if kind == 'stamp_back':
                self._disputed_s = now_s
            return kind
        if now_s - self._arrived_s > self._timeout:
            self._recent.clear()
        if not self._is_believed(position, velocity, stamp_ns, now_ns, now_s):
            return 'outlier'
        self.refusal = ''
        self._recent.append((
            position, self._plausible_velocity(position, velocity, now_s), stamp_ns or now_ns))
        self._candidates.clear()
        self._stamps_back = 0
        self._arrived_s = now_s
        self.measured_s = now_s
        if stamp_ns:
            self._stamp_ns = stamp_ns
            self.measured_s -= max(0, now_ns - stamp_ns) / NANOSECONDS
        if self.is_agreed:
            self._settle()
        return ''

    def contradicts(self, now_s: float) -> bool:
        """Return whether outliers keep coming between the good positions."""
        times = self._outlier_times
        return len(times) == CONTRADICTIONS and now_s - times[0] <= CONTRADICTION_SECONDS

    def is_disputed(self, now_s: float) -> bool:
        """Return whether another position or another order of stamps was told of lately."""
        return now_s - self._disputed_s <= CONTRADICTION_SECONDS

    def arrival_age(self, now_s: float) -> float:
        """Return the seconds since the newest accepted message arrived; inf before any."""
        return now_s - self._arrived_s

    def _stamp_refusal(self, stamp_ns: int, now_ns: int) -> str:
        ahead_ns = stamp_ns - now_ns
        if ahead_ns > MAX_AHEAD_NS:
            self.refusal = (f'is stamped {ahead_ns / NANOSECONDS:.3f} s ahead: the clocks are '
                            'not synchronized')
            return 'future'
        seen_ns, self._seen_stamp_ns = self._seen_stamp_ns, stamp_ns
        if stamp_ns in (seen_ns, self._stamp_ns):
            self.refusal = 'has a stamp that stands still'
            return 'stamp_still'
        if stamp_ns > self._stamp_ns:
            return ''
        self._stamps_back = self._stamps_back + 1 if stamp_ns > seen_ns else 1
        if self._stamps_back >= AGREEING_MESSAGES:
            return ''  # the publisher's clock was set back, and goes on from there
        self.refusal = (
            f'has a stamp that goes back by {(self._stamp_ns - stamp_ns) / NANOSECONDS:.3f} s')
        return 'stamp_back'

    def _is_believed(
        self, position: float, velocity: float, stamp_ns: int, now_ns: int, now_s: float,
    ) -> bool:
        """
        Tell whether a position is no outlier, as far as this message and the last ones show.

        It is none where the joint can have come to it, or where it is the last of so many in a
        row that agree. The time for the way is the shorter one of arrivals and stamps: a false
        stamp must not widen it.
        """
        if not self._recent:
            return True
        seconds = now_s - self._arrived_s
        if stamp_ns and self._stamp_ns:
            seconds = min(seconds, max(0, stamp_ns - self._stamp_ns) / NANOSECONDS)
        last = self._recent[-1][0]
        if abs(position - last) <= self._reach(OUTLIER_SPEED * seconds):
            return True
        if self._candidates and abs(position - self._candidates[-1][0]) > self._reach(
                now_s - self._candidate_arrived_s):
            self._candidates.clear()
        self._candidates.append((position, velocity, stamp_ns or now_ns))
        self._candidate_arrived_s = now_s
        if len(self._candidates) < AGREEING_MESSAGES:
            self.refusal = f'is at {position:.4g} after {last:.4g}, further than it can go'
            self.contradiction = f'at {last:.4g} and at {position:.4g}'
            self._outlier_times.append(now_s)
            self._disputed_s = now_s
            return False
        self._outlier_times.clear()
        self._recent.clear()
        self._recent.extend(list(self._candidates)[:-1])
        return True

    def _reach(self, seconds: float) -> float:
        return OUTLIER_DISTANCE + self._velocity_limit * seconds

    def _plausible_velocity(self, position: float, velocity: float, now_s: float) -> float:
        """
        Return a velocity brought into what the last two positions allow.

        It is at most twice the mean speed, which a joint has that started from rest between the
        two, plus what the joint can gain meanwhile. A stop from a higher, false velocity would
        move the arm.
        """
        if not self._recent:
            return velocity
        seconds = now_s - self._arrived_s
        mean = abs(position - self._recent[-1][0]) / max(seconds, SHORTEST_INTERVAL)
        fastest = 2 * mean + self._acceleration_limit * seconds
        return min(max(velocity, -fastest), fastest)

    def _settle(self) -> None:
        """
        Set the state from the last three measurements.

        The median of three lies between two good ones whatever the third is. In an even motion,
        where the median would be one message late, the newest position is taken.
        """
        positions = [position for position, _, _ in self._recent]
        first, second = positions[1] - positions[0], positions[2] - positions[1]
        is_even = first * second > 0 and (
            abs(first) <= ALIKE_STEPS * abs(second) and abs(second) <= ALIKE_STEPS * abs(first))
        self.position = positions[2] if is_even else median(positions)
        self.velocity = median(velocity for _, velocity, _ in self._recent)
        self.position_ns = max(
            time_ns for position, _, time_ns in self._recent if position == self.position)
