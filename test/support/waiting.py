"""Waits for a condition, in place of a fixed time."""

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
