"""What tests of nodes in this process share."""

import signal

import pytest


@pytest.fixture
def own_signals():
    """Put back the handlers that `run_node` takes the place of."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
