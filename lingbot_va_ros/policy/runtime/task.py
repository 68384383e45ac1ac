"""One episode of one task, with an end: what run_task asks for and what came of it."""

from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import IntEnum

from lingbot_va_ros.motion.time import NANOSECONDS


class Outcome(IntEnum):
    """How an episode ended, numbered as in RunTask."""

    TIMEOUT = 0
    CHUNK_LIMIT = 1
    CANCELED = 2
    STOPPED = 3
    FAULT = 4
    PREEMPTED = 5


@dataclass
class Task:
    """
    A task that is worked on, and how far it is.

    :param timeout: seconds of ROS time; 0 for no limit, as `max_chunks`.
    :param chunks: chunks that were executed to their end.
    :param seconds: of ROS time since it began; a clock that jumps back takes none of it away.
    :param result: carries (outcome, one line) in the end.
    """

    instruction: str
    keep_memory: bool = False
    timeout: float = 0.0
    max_chunks: int = 0
    chunks: int = 0
    seconds: float = 0.0
    result: 'Future[tuple[Outcome, str]]' = field(default_factory=Future)
    had_arm: bool = False
    looked_ns: int | None = None

    def look(
        self, now_ns: int, elsewhere: str | None, watched: bool = False,
    ) -> tuple[Outcome, str] | None:
        """
        Return how the task has ended, or None.

        It may wait for the arm (`elsewhere` says who has it); once it had it, losing it ends it.
        What a person does who is watched belongs to the task.
        """
        if self.looked_ns is not None:
            self.seconds += max(0, now_ns - self.looked_ns) / NANOSECONDS
        self.looked_ns = now_ns
        if elsewhere is None:
            self.had_arm = True
        elif self.had_arm and not watched:
            return Outcome.STOPPED, elsewhere
        if self.max_chunks and self.chunks >= self.max_chunks:
            return Outcome.CHUNK_LIMIT, f'executed {self.chunks} chunks'
        if self.timeout and self.seconds >= self.timeout:
            return Outcome.TIMEOUT, f'{self.timeout:g} s have passed'
        return None

    def wants_more(self, on_the_way: int) -> bool:
        """Return whether a chunk behind those on the way may still be begun."""
        return not self.max_chunks or self.chunks + on_the_way < self.max_chunks

    def end(self, outcome: Outcome, message: str) -> None:
        """Set the result, once."""
        if not self.result.done():
            self.result.set_result((outcome, message))
