"""Estimates how far the clocks of publishers are from ours, from the stamps of their messages."""

import math

from lingbot_va_ros.motion.time import NANOSECONDS

# The smallest delay of this time, s, counts: it has the least transport in it.
WINDOW_SECONDS = 10.0
# Clocks further apart than this, s, are worth a warning.
LARGEST_OFFSET = 0.010


class ClockOffset:
    """
    The smallest (arrival - stamp) of the last seconds.

    A message needs some time from its stamp to its arrival, which adds to the offset; the smallest
    one of many is close to it. A window moves by halves.
    """

    def __init__(self) -> None:
        self._halves = [math.inf, math.inf]  # s, the newer first
        self._begin_s = -math.inf  # of the newer half

    def add(self, stamp_ns: int, now_ns: int, now_s: float) -> None:
        """
        Take the stamp of a message that arrives now; a stamp of 0 is none.

        :param now_ns: ROS time.
        :param now_s: seconds of any steady clock.
        """
        self._move(now_s)
        if stamp_ns:
            self._halves[0] = min(self._halves[0], (now_ns - stamp_ns) / NANOSECONDS)

    def seconds(self, now_s: float) -> float | None:
        """Return by how much the stamps are behind our clock (negative: ahead); None: unknown."""
        self._move(now_s)
        least = min(self._halves)
        return least if math.isfinite(least) else None

    def _move(self, now_s: float) -> None:
        passed = now_s - self._begin_s
        if passed >= WINDOW_SECONDS:
            self._halves = [math.inf, math.inf]
        elif passed >= WINDOW_SECONDS / 2:
            self._halves = [math.inf, self._halves[0]]
        else:
            return
        self._begin_s = now_s


class ClockOffsets:
    """The clock offsets of several topics."""

    def __init__(self) -> None:
        self._topics: dict[str, ClockOffset] = {}

    def add(self, topic: str, stamp_ns: int, now_ns: int, now_s: float) -> None:
        """Take the stamp of a message of a topic; see `ClockOffset.add`."""
        if topic not in self._topics:
            self._topics[topic] = ClockOffset()
        self._topics[topic].add(stamp_ns, now_ns, now_s)

    def largest(self, now_s: float) -> tuple[str, float] | None:
        """Return the topic with the largest offset, and the offset in s; None: unknown."""
        known = [(topic, seconds) for topic, offset in list(self._topics.items())
                 if (seconds := offset.seconds(now_s)) is not None]
        return max(known, key=lambda each: abs(each[1]), default=None)

    def warning(self, now_s: float) -> str:
        """Return in one line that a clock is further off than LARGEST_OFFSET, or an empty text."""
        largest = self.largest(now_s)
        if largest is None or abs(largest[1]) <= LARGEST_OFFSET:
            return ''
        topic, seconds = largest
        side = 'behind' if seconds > 0 else 'ahead of'
        return (f"{topic} is stamped {abs(seconds) * 1e3:.1f} ms {side} this node's clock: "
                'synchronize the clocks')
