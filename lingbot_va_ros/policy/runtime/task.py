"""One episode of one task, as run_task asks for it, and its result."""

from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import IntEnum

from lingbot_va_ros.motion.time import NANOSECONDS


class Outcome(IntEnum):
    """The ways in which a task ends, numbered as in RunTask.action."""

    TIMEOUT = 0
    CHUNK_LIMIT = 1
    CANCELED = 2
    STOPPED = 3
    FAULT = 4
    PREEMPTED = 5


def normalize_instruction(text: str) -> str:
    """Return an instruction as it is; one of blanks and newlines alone is an empty one."""
    return text if text.strip() else ''


@dataclass
class Task:
    """
    A task and its progress.

    :param timeout: seconds of ROS time; 0 for no limit.
    :param max_chunks: executed chunks after which it ends; 0 for no limit.
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
    _had_arm: bool = field(default=False, init=False)
    _updated_ns: int | None = field(default=None, init=False)

    def update(
        self, now_ns: int, taken_by: str | None, recorded: bool = False,
    ) -> tuple[Outcome, str] | None:
        """
        Count the time, and return outcome and message once the task has ended, else None.

        It may wait for the arm; once the policy had it, losing it ends the task. A person's
        motion that is recorded belongs to the task.

        :param taken_by: why the policy does not move the arm (one line), or None.
        :param recorded: whether a person moves the arm and the motion is recorded.
        """
        if self._updated_ns is not None:
            self.seconds += max(0, now_ns - self._updated_ns) / NANOSECONDS
        self._updated_ns = now_ns
        if taken_by is None:
            self._had_arm = True
        elif self._had_arm and not recorded:
            return Outcome.STOPPED, taken_by
        if self.max_chunks and self.chunks >= self.max_chunks:
            return Outcome.CHUNK_LIMIT, f'executed {self.chunks} chunks'
        if self.timeout and self.seconds >= self.timeout:
            return Outcome.TIMEOUT, f'{self.timeout:g} s have passed'
        return None

    def wants_more(self, active: int) -> bool:
        """Return whether a further chunk may begin behind so many active ones."""
        return not self.max_chunks or self.chunks + active < self.max_chunks

    def end(self, outcome: Outcome, message: str) -> None:
        """Set the result, once."""
        if not self.result.done():
            self.result.set_result((outcome, message))


class CurrentTask:
    """
    The task that is worked on, if any, and how the last one ended.

    :param finished: the result of the last task, one line, until there is another task or
        instruction.
    """

    def __init__(self) -> None:
        self.current: Task | None = None
        self.finished = ''

    @property
    def instruction(self) -> str:
        """The instruction of the task; empty without one."""
        return self.current.instruction if self.current is not None else ''

    def begin(self, task: Task) -> None:
        """Work on a task."""
        self.current, self.finished = task, ''

    def end(self, outcome: Outcome, message: str) -> None:
        """End the task, if there is one."""
        task, self.current = self.current, None
        if task is not None:
            task.end(outcome, message)

    def update(
        self, now_ns: int, taken_by: str | None, recorded: bool = False,
    ) -> tuple[Outcome, str] | None:
        """Return outcome and message once the task has ended; see `Task.update`."""
        if self.current is None:
            return None
        return self.current.update(now_ns, taken_by, recorded)

    def wants_more(self, active: int) -> bool:
        """Return whether a further chunk may begin behind so many active ones."""
        return self.current is None or self.current.wants_more(active)

    def count_chunk(self) -> None:
        """Count a chunk that was executed to its end."""
        if self.current is not None:
            self.current.chunks += 1
