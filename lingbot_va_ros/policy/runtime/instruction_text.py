"""The instruction of a scheduler, and the encoding of its text, which may take a minute."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
import math
from typing import TYPE_CHECKING

from lingbot_va_ros.policy.runtime.clock import Clock

if TYPE_CHECKING:  # torch is imported when a checkpoint is loaded, not when a node starts
    from lingbot_va_ros.policy.inference.engine import Engine

# Images of a chunk on its way wait in their rings for some seconds. An encoding that takes longer
# than this is done while no chunk is on its way.
QUICK_SECONDS = 0.5

# Has work done, in another thread or at once; the future says when, and carries an exception.
RunAside = Callable[[Callable[[], None]], 'Future[None]']


def at_once(work: Callable[[], None]) -> Future[None]:
    """Do work in the calling thread."""
    future: Future[None] = Future()
    try:
        work()
        future.set_result(None)
    except Exception as error:
        future.set_exception(error)
    return future


@dataclass(frozen=True)
class _Encoding:
    """The encoding of a text that has begun, at a time of the steady clock."""

    text: str
    done: Future[None]
    since: float


class InstructionText:
    """
    The instruction that is wanted, the encoding of its text, and those who wait for it.

    Used by the inference thread alone. The encoding may run in a thread of its own, so that the
    inference thread serves requests meanwhile; it has no other use of the device then.

    :param aside: has an encoding done.
    """

    def __init__(self, aside: RunAside = at_once) -> None:
        self.wanted = ''
        self._aside = aside
        self._encoding: _Encoding | None = None
        self._settled = ''  # the last one that was encoded, or needed no encoding
        self._waiting: list[Future[None]] = []
        self._seconds = math.inf  # of the newest encoding of a text that was not known

    @property
    def at_work(self) -> str:
        """The text that is being encoded, or the one that would be next."""
        return self.wanted if self._encoding is None else self._encoding.text

    @property
    def is_at_work(self) -> bool:
        """Whether a text is being encoded, wanted or not."""
        return self._encoding is not None and not self._encoding.done.done()

    def want(self, text: str, engine: Engine | None) -> None:
        """Change the instruction; it is encoded later, and an empty one never."""
        if not self.is_pending(engine):
            self._settled = self.wanted
        self.wanted = text
        self.settle()

    def is_pending(self, engine: Engine | None) -> bool:
        """Return whether the instruction is not encoded yet."""
        return bool(self.wanted) and engine is not None and engine.instruction != self.wanted

    def is_due(self, engine: Engine, at_rest: bool) -> bool:
        """
        Return whether the instruction is to be encoded now.

        It is while another text is being encoded too: that ends first. A text that takes a while
        waits for the end of the running chunk, whose images would not be looked at meanwhile.

        :param at_rest: whether the policy has no chunk on its way.
        """
        if self._encoding is not None:
            return bool(self.wanted)
        return self.is_pending(engine) and (
            at_rest or self._seconds < QUICK_SECONDS or engine.knows_instruction(self.wanted))

    def encoded(self, engine: Engine | None) -> Future[None]:
        """
        Return a future that is done when the present instruction is encoded or another is wanted.

        It carries the error where the text cannot be encoded.
        """
        future: Future[None] = Future()
        if self.is_pending(engine):
            self._waiting.append(future)
        else:
            future.set_result(None)
        return future

    def encode(self, engine: Engine, clock: Clock) -> tuple[bool, Exception | None]:
        """
        Take one step of encoding the instruction; where that fails, the one before is wanted.

        Those who wait are answered by `settle`.

        :returns: whether it has ended, and the error with which it failed.
        """
        if self._encoding is None:
            text = self.wanted
            if engine.knows_instruction(text):
                return True, self._take(engine)
            since = clock.steady()
            self._encoding = _Encoding(
                text, self._aside(lambda: engine.prepare_instruction(text)), since)
        encoding = self._encoding
        if not encoding.done.done():
            return False, None
        self._encoding = None
        if encoding.text != self.wanted:  # another one is wanted by now
            return False, None
        error = encoding.done.exception()
        if isinstance(error, Exception):  # answered to the client that sent the text
            self.wanted = self._settled
            return True, error
        self._seconds = clock.steady() - encoding.since
        return True, self._take(engine)

    def settle(self, error: Exception | None = None) -> None:
        """
        Answer those who wait: their text is encoded, or another is wanted.

        :param error: the one with which encoding failed.
        """
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    def end_encoding(self) -> None:
        """Wait until no encoding uses the engine any more: it is to be released."""
        if self._encoding is not None:
            wait([self._encoding.done])
            self._encoding = None

    def _take(self, engine: Engine) -> Exception | None:
        """Set the engine's instruction, whose embeddings are known."""
        try:
            engine.set_instruction(self.wanted)
        except Exception as error:
            self.wanted = self._settled
            return error
        return None
