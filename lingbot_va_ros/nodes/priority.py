"""Real-time priorities of threads, if the system grants them."""

from collections.abc import Iterable
import os

from rclpy.node import Node


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


def raise_priority(
    node: Node, threads: Iterable[int], priority: int, inherited: bool, what: str,
) -> None:
    """
    Schedule threads under SCHED_FIFO; where the system refuses, warn once and go on.

    :param threads: see `set_realtime_priority`, as `inherited`.
    :param priority: 1 … 98; 0 leaves the ordinary scheduler.
    :param what: the subject of the warning, in the plural: what may be late.
    """
    if priority == 0:
        return
    try:
        set_realtime_priority(threads, priority, inherited)
    except (AttributeError, OSError) as error:
        node.get_logger().warning(
            f'{what} run at ordinary priority and may be late on a busy machine: no real-time '
            f'priority {priority} ({error}); grant rtprio in /etc/security/limits.d, or set '
            'realtime_priority to 0', once=True)
