"""The instruction of a scheduler, and the encoding of its text, which may take a minute."""

from __future__ import annotations

from concurrent.futures import Future
import math
from typing import TYPE_CHECKING

from lingbot_va_ros.policy.runtime.clock import Clock

if TYPE_CHECKING:  # torch is imported when a checkpoint is loaded, not when a node starts
    from lingbot_va_ros.policy.inference.engine import Engine

# Images of a chunk on its way wait in their rings for some seconds. An encoding that takes longer
# than this is done while no chunk is on its way.
QUICK_SECONDS = 0.5


class InstructionText:
    """
    The instruction that is wanted, and the futures of those who wait until it is encoded.

    Used by the inference thread alone.
    """

    def __init__(self) -> None:
        self.wanted = ''
        self._settled = ''  # the last one that was encoded, or needed no encoding
        self._waiting: list[Future[None]] = []
        self._seconds = math.inf  # of the newest encoding of a text that was not known

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

        A text that takes a while waits for the end of the running chunk, whose images would not be
        looked at meanwhile.

        :param at_rest: whether the policy has no chunk on its way.
        """
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

    def encode(self, engine: Engine, clock: Clock) -> Exception | None:
        """
        Encode the instruction; where that fails, the one before is wanted again.

        Those who wait are answered by `settle`.

        :returns: the error, or None.
        """
        known, since = engine.knows_instruction(self.wanted), clock.steady()
        try:
            engine.set_instruction(self.wanted)
        except Exception as error:  # answered to the client that sent the text
            self.wanted = self._settled
            return error
        if not known:
            self._seconds = clock.steady() - since
        return None

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
