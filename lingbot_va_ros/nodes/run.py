"""Run one node as a process: own signal handling, logged exceptions, an orderly end."""

from collections.abc import Callable, Sequence
import os
import signal
import sys
import time
import traceback

import rclpy
from rclpy.duration import Duration
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

# Seconds that a node's end waits for its last messages to arrive; a reader that hangs never says.
LAST_WORDS = 0.5


class CannotStart(Exception):
    """The node cannot start for a reason that the user can mend; the message is all they need."""


def run_node(
    make_node: Callable[[], 'rclpy.node.Node'],
    args: Sequence[str] | None = None,
    make_executor: Callable[[], Executor] = SingleThreadedExecutor,
) -> int:
    """
    Make a node, spin it until SIGINT or SIGTERM, close it, and return the exit code.

    rclpy's own handlers would shut the context down at once, and a node could no longer publish
    its stop; here the signal only ends the loop. `node.close(number)` then has the live context,
    and the signal's number, or None where others have shut the context down. It returns whether
    every thread of the node has ended; where one has not (a checkpoint that is still loading), the
    process leaves without waiting for it. What it published last, a stop above all, has arrived at
    its readers before the graph forgets the node: DDS throws away what is still on the way from a
    writer that is gone.

    Where the node raises CannotStart, its message is printed and the exit code is 1.

    An exception in a callback is logged with its traceback and the node goes on: rclpy would end
    the process, and with it the stream of commands.
    """
    asked_to_stop = []
    signal.signal(signal.SIGINT, lambda number, _frame: asked_to_stop.append(number))
    signal.signal(signal.SIGTERM, lambda number, _frame: asked_to_stop.append(number))
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = make_node()
    except CannotStart as error:
        print(f'cannot start: {error}', file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    except Exception as error:
        print(f'cannot start: {error}', file=sys.stderr)
        traceback.print_exc()
        rclpy.try_shutdown()
        return 1
    executor = make_executor()
    executor.add_node(node)
    while not asked_to_stop:
        try:
            executor.spin_once(timeout_sec=0.1)
        except ExternalShutdownException:
            break
        except Exception:
            node.get_logger().error(f'exception in a callback:\n{traceback.format_exc()}')
    all_ended = node.close(asked_to_stop[0] if asked_to_stop else None)
    wait_until_read(node, LAST_WORDS)
    executor.shutdown(timeout_sec=1.0)
    node.destroy_node()  # so that the graph forgets it at once
    rclpy.try_shutdown()
    if not all_ended:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


def wait_until_read(node: 'rclpy.node.Node', seconds: float) -> bool:
    """
    Wait until all reliable readers have what the node has published; return whether they have.

    :param seconds: at most, for all publishers together.
    """
    if not node.context.ok():  # whoever has shut it down has closed the way as well
        return False
    deadline = time.monotonic() + seconds
    arrived = True
    for publisher in node.publishers:
        left = Duration(seconds=max(0.0, deadline - time.monotonic()))
        try:
            arrived &= publisher.wait_for_all_acked(left)
        except RuntimeError:  # a middleware that cannot tell; nothing must hold the end up
            arrived = False
    return arrived
