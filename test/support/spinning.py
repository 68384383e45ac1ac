"""Spins a node of a test in a separate thread."""

from contextlib import contextmanager
import threading

import rclpy
from rclpy.exceptions import InvalidHandle
from rclpy.executors import SingleThreadedExecutor


@contextmanager
def spinning(node):
    """Yield a node that spins until the block ends; it is destroyed then."""
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    ending = threading.Event()

    def spin():
        while not ending.is_set():
            try:
                executor.spin_once(timeout_sec=0.05)
            except InvalidHandle:  # the test has destroyed what the executor was about to wait for
                continue

    thread = threading.Thread(target=spin, name=f'spin {node.get_name()}', daemon=True)
    thread.start()
    try:
        yield node
    finally:
        ending.set()
        thread.join()
        executor.shutdown()
        for server in list(node.waitables):  # an action server leaves the graph only so
            server.destroy()
        node.destroy_node()


@contextmanager
def spinning_node(name):
    """Yield a node that spins, in the default context, which begins and ends with the block."""
    rclpy.init()
    try:
        with spinning(rclpy.create_node(name)) as node:
            yield node
    finally:
        rclpy.try_shutdown()
