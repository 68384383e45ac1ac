"""The way to end a prediction between two forwards of the network."""

import threading
from typing import Protocol

from lingbot_va_ros.policy.errors import PredictionAborted


class Interrupt(Protocol):
    """Asked before every forward whether the prediction may go on."""

    def check(self) -> None:
        """
        Return where the prediction may go on.

        :raises PredictionAborted: it must stop; the memory is then as it was before.
        """
        ...


class Uninterrupted:
    """Lets every prediction run to its end."""

    def check(self) -> None:
        """Return at once."""


class InterruptFlag:
    """An interrupt that any thread may set."""

    def __init__(self):
        self._flag = threading.Event()

    def set(self) -> None:
        """Stop the prediction at its next forward."""
        self._flag.set()

    def check(self) -> None:
        """
        Return unless the flag is set.

        :raises PredictionAborted: the flag is set.
        """
        if self._flag.is_set():
            raise PredictionAborted


UNINTERRUPTED = Uninterrupted()
