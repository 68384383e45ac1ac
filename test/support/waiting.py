"""Waits for a condition, in place of a fixed time."""

import contextlib
from pathlib import Path
import time

DEADLINE = 120.0  # seconds; long, because only a test that fails waits for all of it


def wait_for(condition, what, deadline=DEADLINE):
    """
    Return the first true value of `condition()`, asked every 10 ms.

    :param what: names the event in the error.
    :raises AssertionError: it did not become true within `deadline` seconds.
    """
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f'{what} did not happen within {deadline} s')


def wait_for_end(process, seconds):
    """
    Return the exit code of a process that ends within so many seconds.

    The time that its threads wait for a core, while other processes have them, does not count.

    :raises AssertionError: it does not end in time.
    """
    begin, waited = time.monotonic(), _waited(process.pid)
    late = 0.0
    while process.poll() is None:
        late = max(late, _waited(process.pid) - waited)
        assert time.monotonic() - begin - late < seconds, f'runs on after {seconds} s'
        time.sleep(0.01)
    return process.returncode


def _waited(pid):
    """Return how long the threads of a process have waited for a core, s."""
    total = 0
    try:
        for thread in Path(f'/proc/{pid}/task').glob('*/schedstat'):
            with contextlib.suppress(OSError):  # it has ended
                total += int(thread.read_text().split()[1])
    except OSError:  # so has the process
        pass
    return total * 1e-9
