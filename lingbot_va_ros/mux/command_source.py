"""The interface of a command source, and the counts of its messages."""

from abc import ABC, abstractmethod
from collections import Counter
import itertools

import numpy as np

from lingbot_va_ros.mux.goal import Goal
from lingbot_va_ros.mux.validation import Rejected

_numbers = itertools.count(1)


class MessageCounts:
    """Counts of accepted and rejected messages of one source, and the last reason."""

    def __init__(self) -> None:
        self.accepted = 0
        self.rejected: Counter[str] = Counter()  # by kind
        self.rejected_in_row = 0
        self.last_rejection = ''
        self.last_number = 0  # of the last rejection, counted over all sources

    def count_accepted(self) -> None:
        """Count a message that was accepted."""
        self.accepted += 1
        self.rejected_in_row = 0

    def count_rejected(self, rejected: Rejected) -> None:
        """Count a message that was rejected."""
        self.rejected_in_row += 1
        self.note(rejected)

    def note(self, rejected: Rejected) -> None:
        """Count a message that was not followed, of a source that is alive all the same."""
        self.rejected[rejected.kind] += 1
        self.last_rejection = str(rejected)
        self.last_number = next(_numbers)

    @property
    def explanation(self) -> str:
        """The last reason where the newest message was rejected, else an empty text."""
        return f'last rejected: {self.last_rejection}' if self.rejected_in_row else ''


class CommandSource(ABC):
    """
    One source that may move the arm: its age, what it lacks, and the goal that it asks for.

    :param name: its topic, for messages to people.
    :param timeout: seconds of silence after which the source is lost.
    """

    # Whether the arm goes exactly where the goal is; else behind a target that keeps the limits.
    is_followed_exactly: bool

    def __init__(self, name: str, timeout: float) -> None:
        self.name = name
        self.timeout = timeout
        self.counts = MessageCounts()
        # Whether the arm is to be led onto the goal gently once more, in the midst of a motion.
        self.begins_anew = False

    @abstractmethod
    def age(self, now_s: float) -> float:
        """Return the seconds since the last accepted message; inf where none ever came."""

    @abstractmethod
    def missing(self, now_ns: int, now_s: float, arm: np.ndarray | None) -> list[str]:
        """
        Return what the source lacks before it may move the arm; empty: nothing.

        :param arm: positions [J] from which the motion would start; None: unknown.
        """

    @abstractmethod
    def begin(self, start: np.ndarray) -> None:
        """
        Begin to follow the source anew.

        :param start: positions [J]; joints that the source does not command stay there.
        """

    @abstractmethod
    def goal(self, tick_ns: int, next_ns: int, speed: float) -> Goal:
        """
        Return what the source asks the arm to have at `next_ns`, the tick after `tick_ns`.

        :param speed: share of the velocity limits that holds now, 0 … 1.
        """

    @abstractmethod
    def position(self, time_ns: int) -> np.ndarray:
        """Return the positions [J] that the source asks for at a time, for motion detection."""

    @abstractmethod
    def forget(self) -> None:
        """Count the source as never received, after a clock jump."""

    def observe(self, q: np.ndarray, v: np.ndarray) -> None:
        """Take note of the commanded state [J] from which the next goal leads on."""
        del q, v  # most sources do without

    def is_fresh(self, now_s: float) -> bool:
        """Return whether the source is younger than its timeout."""
        return self.age(now_s) <= self.timeout

    def claims(self, now_s: float) -> bool:
        """Return whether the source wants the arm for itself: no other one may be alive."""
        return self.is_fresh(now_s)

    def lost(self, now_s: float, margin: float = 0.0) -> str:
        """
        Return in one line that the source fell silent, or an empty text.

        :param margin: seconds before the timeout at which it counts as silent already.
        """
        if self.age(now_s) <= self.timeout - margin:
            return ''
        why = self.counts.explanation
        return f'{self.name} silent for {self.timeout:g} s' + (f'; {why}' if why else '')
