"""A node of the test's own that spins in a thread of its own."""

from contextlib import contextmanager
import threading

import rclpy
from rclpy.executors import SingleThreadedExecutor


@contextmanager
def spinning_node(name, namespace=None, context=None):
    """Yield a node that spins until the block ends; rclpy must be initialised in the context."""
    node = rclpy.create_node(name, namespace=namespace, context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    ending = threading.Event()

    def spin():
        while not ending.is_set():
            executor.spin_once(timeout_sec=0.05)

    thread = threading.Thread(target=spin, name=f'spin {name}', daemon=True)
    thread.start()
    try:
        yield node
    finally:
        ending.set()
        thread.join()
        executor.shutdown()
        node.destroy_node()
