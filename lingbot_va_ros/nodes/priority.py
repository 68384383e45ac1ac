"""Real-time priorities of threads, if the system grants them."""

from collections.abc import Iterable
import os


def threads_of_process() -> list[int]:
    """Return the ids of all threads of this process, including those of DDS (Linux)."""
    return [int(name) for name in os.listdir('/proc/self/task')]


def set_realtime_priority(threads: Iterable[int], priority: int, inherited: bool) -> None:
    """
    Schedule threads under SCHED_FIFO.

    :param threads: thread ids; 0 is the calling thread.
    :param priority: 1 … 98.
    :param inherited: whether threads that they start inherit it.
    :raises OSError: the system does not grant it.
    :raises AttributeError: the system has no such scheduler.
    """
    policy = os.SCHED_FIFO if inherited else os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    for thread in threads:
        try:
            os.sched_setscheduler(thread, policy, os.sched_param(priority))
        except ProcessLookupError:
            pass  # the thread has ended
