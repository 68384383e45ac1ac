"""
Runs the policy node with loading or a text encoder that a test holds, or a clock that it steps.

LINGBOT_VA_TEST_LOADING_FILE: a checkpoint is loaded when this file exists.
LINGBOT_VA_TEST_TEXT_FILE: a text is not encoded while this file has a part of it as its content.
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


def hold_text(file):
    from lingbot_va_ros.model.text_encoder import TextEncoder  # slow: with PyTorch

    encode = TextEncoder.encode

    def slow(self, instruction):
        print(f'encoding {instruction!r}', flush=True)
        while (held := file.read_text()) and held in instruction:
            time.sleep(0.02)
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
    if 'LINGBOT_VA_TEST_TEXT_FILE' in os.environ:
        hold_text(Path(os.environ['LINGBOT_VA_TEST_TEXT_FILE']))
    if 'LINGBOT_VA_TEST_LOADING_FILE' in os.environ:
        wait_to_load(Path(os.environ['LINGBOT_VA_TEST_LOADING_FILE']))
    if 'LINGBOT_VA_TEST_CLOCK_FILE' in os.environ:
        step_clock(Path(os.environ['LINGBOT_VA_TEST_CLOCK_FILE']))
    node.main()
