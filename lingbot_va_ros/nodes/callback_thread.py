"""A thread of its own for some callbacks of a node, which wait for no others."""

import threading
import traceback

from rclpy.callback_groups import CallbackGroup
from rclpy.executors import ExternalShutdownException, ShutdownException, SingleThreadedExecutor
from rclpy.node import Node

# How often a thread looks whether it is to end, s.
LOOK_SECONDS = 0.1
# How long the end of the thread is waited for, s.
JOIN_SECONDS = 1.0


class ExecutorWithout(SingleThreadedExecutor):
    """Executes every callback but those of one group."""

    def __init__(self, group: CallbackGroup) -> None:
        super().__init__()
        self._group = group

    def can_execute(self, entity) -> bool:
        """Return whether a callback is this executor's, and may run now."""
        return entity.callback_group is not self._group and super().can_execute(entity)


class ExecutorOf(SingleThreadedExecutor):
    """
    Executes the callbacks of one group of a node that belongs to another executor.

    rclpy gives a whole node to one executor; this one asks for the node's entities itself.
    """

    def __init__(self, node: Node, group: CallbackGroup) -> None:
        super().__init__()
        self._node = node
        self._group = group

    def get_nodes(self) -> list[Node]:
        """Return the node."""
        return [self._node]

    def can_execute(self, entity) -> bool:
        """Return whether a callback is this executor's, and may run now."""
        return entity.callback_group is self._group and super().can_execute(entity)


class CallbackThread:
    """
    Runs the callbacks of a group until it is closed.

    The node's own executor must be an `ExecutorWithout` this group. All entities of the group are
    to be created before.
    """

    def __init__(self, node: Node, group: CallbackGroup, name: str) -> None:
        self._node = node
        self._executor = ExecutorOf(node, group)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self) -> bool:
        """End the thread; returns whether it has ended."""
        self._ending.set()
        self._executor.wake()
        self._thread.join(timeout=JOIN_SECONDS)
        if self._thread.is_alive():
            return False
        self._executor.shutdown(timeout_sec=0.0)
        return True

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                self._executor.spin_once(timeout_sec=LOOK_SECONDS)
            except (ExternalShutdownException, ShutdownException):
                return
            except Exception:
                self._node.get_logger().error(
                    f'exception in a callback:\n{traceback.format_exc()}')
