"""Runs one node as a process: signals, logged exceptions, an orderly shutdown."""

from collections.abc import Callable, Sequence
import os
import signal
import sys
import time
import traceback
from typing import Any

import rclpy
from rclpy.duration import Duration
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from lingbot_va_ros.nodes.parameters import WrongParameter

# Longest wait at shutdown for readers to acknowledge the final messages; a reader that hangs
# never acknowledges.
ACKNOWLEDGE_SECONDS = 0.5


class CannotStart(Exception):
    """The node cannot start for a reason that the user can fix; the message is one line."""


# Errors whose message is enough for the user. The two of rclpy concern the parameters that it
# declares in every node, such as use_sim_time.
_MENDABLE = (CannotStart, WrongParameter, InvalidParameterTypeException,
             InvalidParameterValueException)


def run_node(
    make_node: Callable[[], Any],
    args: Sequence[str] | None = None,
    make_executor: Callable[[Any], Executor] = lambda node: SingleThreadedExecutor(),
) -> int:
    """
    Create a node, spin it until SIGINT or SIGTERM, close it, and return the exit code.

    rclpy's signal handlers shut the context down at once, after which a node cannot publish a
    stop. Here a signal only ends the loop, and `node.close` still has a valid context. If a thread
    of the node has not ended (for instance while a checkpoint is loading), the process exits
    without waiting for it. Before the node is destroyed, readers acknowledge the final messages,
    such as a stop, because DDS drops undelivered messages of a destroyed writer.

    An exception in a callback is logged with its traceback, and the node continues; rclpy would
    end the process and with it the commands.

    :param make_node: returns an rclpy node with a method `close(asked_by) -> bool`, which
        publishes the final messages and ends the node's threads. `asked_by` is the number of the
        signal, or None if the context was shut down. It returns whether every thread has ended.
    :param args: as of the command line; None takes sys.argv.
    :param make_executor: returns the executor of the node that it is given.
    :returns: 0; 1 where the node cannot start (a wrong parameter or CannotStart: one line on
        stderr; any other exception: a line and its traceback) or has set its attribute `failed`.
    """
    signals: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _frame: signals.append(number))
    signal.signal(signal.SIGTERM, lambda number, _frame: signals.append(number))
    try:
        rclpy.init(
            args=None if args is None else list(args),
            signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # arguments that rcl cannot parse; its exceptions are not public
        print(f'cannot start: {_one_line(error)}', file=sys.stderr)
        return 1
    try:
        node = make_node()
    except Exception as error:
        print(f'cannot start: {_one_line(error)}', file=sys.stderr)
        if not isinstance(error, _MENDABLE):
            traceback.print_exc()
        rclpy.try_shutdown()
        return 1
    executor = make_executor(node)
    executor.add_node(node)
    while not signals:
        try:
            executor.spin_once(timeout_sec=0.1)
        except ExternalShutdownException:
            break
        except Exception:
            node.get_logger().error(f'exception in a callback:\n{traceback.format_exc()}')
    all_ended = node.close(signals[0] if signals else None)
    wait_until_acknowledged(node, ACKNOWLEDGE_SECONDS)
    executor.shutdown(timeout_sec=1.0)
    node.destroy_node()  # so that it leaves the graph at once
    rclpy.try_shutdown()
    code = int(getattr(node, 'failed', False))
    if not all_ended:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def wait_until_acknowledged(node: Node, seconds: float) -> bool:
    """
    Wait until all reliable readers have received what the node has published.

    :param seconds: longest wait, for all publishers together.
    :returns: whether all of them have acknowledged it.
    """
    if not node.context.ok():  # after shutdown nothing is delivered
        return False
    deadline = time.monotonic() + seconds
    acknowledged = True
    for publisher in node.publishers:
        left = Duration(seconds=max(0.0, deadline - time.monotonic()))
        try:
            acknowledged &= publisher.wait_for_all_acked(left)
        except RuntimeError:  # not supported by the middleware; the shutdown must not block
            acknowledged = False
    return acknowledged


def _one_line(error: Exception) -> str:
    if isinstance(error, (InvalidParameterTypeException, InvalidParameterValueException)):
        return str(error.args[0])  # rclpy appends the name, which the text has already
    return ' '.join(str(error).split())
