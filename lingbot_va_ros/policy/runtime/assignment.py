"""What the policy works on: an instruction, the encoding of its text, and the task behind it."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING

from lingbot_va_ros.policy.runtime.clock import Clock
from lingbot_va_ros.policy.runtime.instruction_text import at_once, InstructionText, RunAside
from lingbot_va_ros.policy.runtime.task import CurrentTask, Outcome, Task

if TYPE_CHECKING:  # torch is imported when a checkpoint is loaded, not when a node starts
    from lingbot_va_ros.policy.inference.engine import Engine


class Assignment:
    """
    The instruction and the task of a scheduler; used by the inference thread alone.

    :param aside: has the encoding of a text done.
    """

    def __init__(self, clock: Clock, aside: RunAside = at_once) -> None:
        self._clock = clock
        self._text = InstructionText(aside)
        self._tasks = CurrentTask()

    @property
    def instruction(self) -> str:
        """The instruction that is wanted; it may not be encoded yet."""
        return self._text.wanted

    @property
    def task(self) -> Task | None:
        """The task that is worked on."""
        return self._tasks.current

    @property
    def finished(self) -> str:
        """The result of the last task, one line, until there is another task or instruction."""
        return self._tasks.finished

    @property
    def wants_motion(self) -> bool:
        """Whether there is an instruction, of a task that goes on or of none."""
        return bool(self._text.wanted) and not self._tasks.finished

    def wants_chunk(self, engine: Engine | None) -> bool:
        """Return whether a chunk is wanted behind the running one, for the present instruction."""
        return self._tasks.wants_more(1) and not (
            self._text.is_pending(engine) or self._text.is_at_work)

    # The instruction

    def want(self, instruction: str, engine: Engine | None) -> None:
        """Change the instruction; it is encoded later, and an empty one never."""
        self._text.want(instruction, engine)

    def encoded(self, engine: Engine | None) -> Future[None]:
        """See `InstructionText.encoded`."""
        return self._text.encoded(engine)

    @property
    def encoding_line(self) -> str:
        """What the status says while a text is encoded."""
        return f'encoding the instruction {self._text.at_work!r}'

    def is_encoding_due(self, engine: Engine, at_rest: bool) -> bool:
        """See `InstructionText.is_due`."""
        return self._text.is_due(engine, at_rest)

    def encode(self, engine: Engine | None) -> tuple[bool, bool, Exception | None]:
        """
        Take one step of encoding the instruction, if it waits for that.

        :returns: whether there was something to do, whether it has ended, and the error with which
            it failed.
        """
        if engine is None or not self._text.is_due(engine, at_rest=True):
            return False, False, None
        return True, *self._text.encode(engine, self._clock)

    def settle(self, error: Exception | None) -> None:
        """See `InstructionText.settle`."""
        self._text.settle(error)

    def end_encoding(self) -> None:
        """See `InstructionText.end_encoding`."""
        self._text.end_encoding()

    # The task

    def begin(self, task: Task) -> None:
        """Work on a task."""
        self._tasks.begin(task)

    def end(self, outcome: Outcome, message: str) -> None:
        """End the task, if there is one."""
        self._tasks.end(outcome, message)

    def finish(self, outcome: Outcome, message: str) -> str:
        """Let nothing be wanted until there is another task; return the result, one line."""
        self._tasks.finished = f'run_task {outcome.name}: {message}'
        return self._tasks.finished

    def forget_result(self) -> None:
        """Let the result of the last task keep nothing back any more."""
        self._tasks.finished = ''

    def instruction_after_restore(self, saved: str) -> str:
        """Return the instruction after a memory was loaded: that of the task goes before."""
        return self._tasks.instruction or saved

    def update(
        self, now_ns: int, taken_by: str | None, recorded: bool = False,
    ) -> tuple[Outcome, str] | None:
        """Return outcome and message once the task has ended; see `Task.update`."""
        return self._tasks.update(now_ns, taken_by, recorded)

    def count_chunk(self) -> None:
        """Count a chunk that was executed to its end."""
        self._tasks.count_chunk()
