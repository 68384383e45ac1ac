"""The final messages of a node arrive before it leaves the graph."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest
import rclpy
from rclpy.node import Node
from std_msgs.msg import String

from lingbot_va_ros.nodes import qos, run
from lingbot_va_ros.nodes.run import wait_until_acknowledged

READER = """
import rclpy
from lingbot_va_ros.nodes import qos
from std_msgs.msg import String
rclpy.init()
node = rclpy.create_node('reader')
node.create_subscription(String, 'words', lambda message: print(message.data, flush=True),
                         qos.EVENTS)
rclpy.spin(node)
"""

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def writer():
    """A node of a context of its own with one publisher."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('writer', context=context)
    yield node, node.create_publisher(String, 'words', qos.COMMAND)
    if context.ok():
        node.destroy_node()
        context.shutdown()


@contextlib.contextmanager
def reader(publisher):
    with subprocess.Popen(
            [sys.executable, '-c', READER], stdout=subprocess.PIPE, text=True) as process:
        try:
            end = time.monotonic() + 30.0
            while not publisher.get_subscription_count():
                assert time.monotonic() < end, 'no reader'
                time.sleep(0.01)
            publisher.publish(String(data='first'))  # the way is open in both directions
            assert process.stdout.readline() == 'first\n'
            yield process
        finally:
            process.kill()


def test_shutdown_waits_for_undelivered_messages(writer):
    node, publisher = writer
    with reader(publisher) as process:
        process.send_signal(signal.SIGSTOP)
        publisher.publish(String(data='last'))
        assert not wait_until_acknowledged(node, 0.1)
        process.send_signal(signal.SIGCONT)
        assert wait_until_acknowledged(node, 20.0)
        node.destroy_node()
        assert process.stdout.readline() == 'last\n'


def test_a_reader_that_hangs_holds_the_end_up_for_no_longer_than_it_may(writer):
    node, publisher = writer
    with reader(publisher) as process:
        process.send_signal(signal.SIGSTOP)
        publisher.publish(String(data='last'))
        since = time.monotonic()
        assert not wait_until_acknowledged(node, 0.3)
        assert 0.3 <= time.monotonic() - since < 5.0


def test_shutdown_does_not_wait_without_readers(writer):
    node, publisher = writer
    publisher.publish(String(data='last'))
    assert wait_until_acknowledged(node, 0.0)


def test_a_context_that_others_have_shut_down_is_not_asked(writer):
    node, publisher = writer
    publisher.publish(String(data='last'))
    node.context.shutdown()
    assert not wait_until_acknowledged(node, 1.0)


def test_a_node_waits_for_its_last_words_between_its_close_and_its_end(own_signals, monkeypatch):
    order = []

    class Speaker(Node):
        def __init__(self):
            super().__init__('speaker')
            self.create_timer(0.01, lambda: os.kill(os.getpid(), signal.SIGINT))

        def close(self, asked_by):
            order.append(asked_by)
            return True

        def destroy_node(self):
            order.append('destroyed')
            super().destroy_node()

    monkeypatch.setattr(
        run, 'wait_until_acknowledged',
        lambda _node, seconds: order.append(f'waited {seconds:g} s'))
    assert run.run_node(Speaker) == 0
    assert order == [signal.SIGINT, 'waited 0.5 s', 'destroyed']
