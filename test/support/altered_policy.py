"""
Runs the policy node with slow loading, a slow text encoder, or a clock that a test steps.

LINGBOT_VA_TEST_LOADING_FILE: a checkpoint is loaded when this file exists.
LINGBOT_VA_TEST_TEXT_SECONDS: seconds that the text encoder takes for a text that is not empty.
LINGBOT_VA_TEST_CLOCK_FILE: a file with the seconds by which ROS time is off the system's clock.
"""

import os
from pathlib import Path
import time

from rclpy.clock import Clock
from rclpy.time import Time

from lingbot_va_ros.nodes.policy import node


def wait_to_load(file):
    make_engine = node.make_engine

    def slow(*arguments):
        while not file.exists():
            time.sleep(0.05)
        return make_engine(*arguments)

    node.make_engine = slow


def slow_down_text(seconds):
    from lingbot_va_ros.model.text_encoder import TextEncoder  # slow: with PyTorch

    encode = TextEncoder.encode

    def slow(self, instruction):
        if instruction:
            time.sleep(seconds)
        return encode(self, instruction)

    TextEncoder.encode = slow


def step_clock(file):
    now = Clock.now

    def stepped(self):
        offset = round(float(file.read_text() or 0) * 1e9)
        true = now(self)
        return Time(nanoseconds=true.nanoseconds + offset, clock_type=true.clock_type)

    Clock.now = stepped


if __name__ == '__main__':
    if 'LINGBOT_VA_TEST_TEXT_SECONDS' in os.environ:
        slow_down_text(float(os.environ['LINGBOT_VA_TEST_TEXT_SECONDS']))
    if 'LINGBOT_VA_TEST_LOADING_FILE' in os.environ:
        wait_to_load(Path(os.environ['LINGBOT_VA_TEST_LOADING_FILE']))
    if 'LINGBOT_VA_TEST_CLOCK_FILE' in os.environ:
        step_clock(Path(os.environ['LINGBOT_VA_TEST_CLOCK_FILE']))
    node.main()
