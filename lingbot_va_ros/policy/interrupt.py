"""Interrupts, which abort a prediction between two forward passes of the network."""

import threading
from typing import Protocol

from lingbot_va_ros.policy.errors import PredictionAborted


class Interrupt(Protocol):
    """Checked before every forward pass of a prediction."""

    def check(self) -> None:
        """
        Return if the prediction may continue.

        :raises PredictionAborted: the prediction must stop; the memory is then unchanged.
        """
        ...


class Uninterrupted:
    """Never interrupts a prediction."""

    def check(self) -> None:
        """Do nothing."""


class InterruptFlag:
    """An interrupt that any thread may set."""

    def __init__(self):
        self._flag = threading.Event()

    def set(self) -> None:
        """Stop the prediction before its next forward pass."""
        self._flag.set()

    def check(self) -> None:
        """
        Return unless the flag is set.

        :raises PredictionAborted: the flag is set.
        """
        if self._flag.is_set():
            raise PredictionAborted


UNINTERRUPTED = Uninterrupted()
