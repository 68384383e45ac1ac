"""Real-time priorities of threads, where the system grants them."""

from collections.abc import Iterable
import os


def threads_of_process() -> list[int]:
    """Return the ids of all threads of this process, those of DDS among them (Linux)."""
    return [int(name) for name in os.listdir('/proc/self/task')]


def run_first(threads: Iterable[int], priority: int, inherited: bool) -> None:
    """
    Put threads under SCHED_FIFO; the calling thread is 0.

    :param priority: 1 … 98.
    :param inherited: whether threads that they start begin so too.
    :raises OSError: the system does not grant it.
    :raises AttributeError: it has no such scheduler.
    """
    policy = os.SCHED_FIFO if inherited else os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    for thread in threads:
        try:
            os.sched_setscheduler(thread, policy, os.sched_param(priority))
        except ProcessLookupError:
            pass  # it has ended meanwhile
