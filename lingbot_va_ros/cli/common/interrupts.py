"""
Signals that end a command: Ctrl-C (SIGINT), SIGTERM, and SIGHUP of a closed terminal.

A signal raises KeyboardInterrupt in the main thread, wherever that is. A library may turn this
exception into one of its own, report it as ignored, or lose it. The handler therefore records the
signal, and the exit code follows the record instead of the exception that ends the command.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import os
import signal
import sys
import time
from types import FrameType
from typing import Any, NoReturn

EXIT_CODE = 130  # after any of the signals; shells give it to a process that SIGINT ends
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Wrappers such as make and timeout pass on the signal that a terminal sends to them as well.
SAME_REQUEST_SECONDS = 0.5


@dataclass
class _Record:
    received_at: float | None = None  # monotonic s, of the newest signal that counts
    deferred: bool = False
    ended: bool = False


_record = _Record()


@contextmanager
def recorded() -> Iterator[None]:
    """
    Record signals and let them raise KeyboardInterrupt, until the block ends.

    A signal within SAME_REQUEST_SECONDS of another is the same request. A later one raises
    KeyboardInterrupt again, and so ends a cleanup that takes too long.
    """
    global _record
    record_before, _record = _record, _Record()
    handlers_before = {number: signal.signal(number, _on_signal) for number in SIGNALS}
    hook_before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        # "Exception ignored in …" of a callback; `check` raises the interrupt again.
        if not received():
            hook_before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = hook_before
        for number, handler in handlers_before.items():
            signal.signal(number, handler)
        _record = record_before


@contextmanager
def deferred() -> Iterator[None]:
    """Let the first signal be recorded only, so that the command saves its work and ends."""
    _record.deferred = True
    try:
        yield
    finally:
        _record.deferred = False


def received() -> bool:
    """Return whether a signal has come since `recorded` began."""
    return _record.received_at is not None


def check() -> None:
    """
    Raise an interrupt again that a library has lost.

    :raises KeyboardInterrupt: a signal has come, and signals are not deferred.
    """
    if received() and not _record.deferred and not _record.ended:
        raise KeyboardInterrupt


def end() -> None:
    """Let signals raise nothing from now on: the command is over."""
    _record.ended = True


def forget_interrupted_exec() -> None:
    """
    Keep Python from ending the process by SIGINT after an exec() that was interrupted.

    Python notes such an interrupt even where it is caught (`dataclass` and `namedtuple` call
    exec(), so an import may be the place), until another exec() begins.
    """
    exec('')


def leave_at_next_signal(exit_code: int) -> None:
    """Let a signal that comes while Python shuts down end the process with this exit code."""
    def leave(_number: int, _frame: FrameType | None) -> NoReturn:
        os._exit(exit_code)

    for number in SIGNALS:
        signal.signal(number, leave)


def _on_signal(_number: int, _frame: FrameType | None) -> None:
    now, before = time.monotonic(), _record.received_at
    if _record.ended or (before is not None and now - before < SAME_REQUEST_SECONDS):
        return
    _record.received_at = now
    if before is None and _record.deferred:
        return
    raise KeyboardInterrupt
