"""Ctrl-C and its relatives, for commands that have something to put in order before they end."""

from collections.abc import Iterator
from contextlib import contextmanager
import signal

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Let SIGTERM and a closed terminal raise KeyboardInterrupt, as Ctrl-C does."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
