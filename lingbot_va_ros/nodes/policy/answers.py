"""Waits for results of other threads, in the executor or in a thread that may block."""

from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
import time
from typing import Any, TypeVar

from rclpy.node import Node
from rclpy.task import Future as RosFuture

from lingbot_va_ros.nodes.policy.phase import NodePhase

# Longer than any text encoding, which nothing can interrupt; a lost thread must not hang.
ANSWER_SECONDS = 300.0

T = TypeVar('T')


class Closing(Exception):
    """The process is ending; waiting threads stop."""


async def answer_of(node: Node, future: 'Future[T]') -> T:
    """Await the result of another thread in the node's executor, without blocking it."""
    executor: Any = node.executor
    done = RosFuture(executor=executor)

    def wake(_future: Future) -> None:
        done.set_result(None)
        executor.wake()

    future.add_done_callback(wake)
    await done
    return future.result()


def wait_for_answer(future: 'Future[T]', phase: NodePhase, forever: bool = False) -> T:
    """
    Block until another thread has a result, at most until the process ends.

    :param forever: no timeout; else ANSWER_SECONDS.
    :raises Closing: the process is ending.
    :raises RuntimeError: there was no result within ANSWER_SECONDS.
    """
    deadline = time.monotonic() + ANSWER_SECONDS
    while not phase.closing:
        try:
            return future.result(timeout=0.1)
        except FutureTimeout:
            if future.done():  # the work itself timed out
                raise
            if not forever and time.monotonic() > deadline:
                raise RuntimeError(
                    f'the inference thread gave no answer in {ANSWER_SECONDS} s') from None
    raise Closing
