"""`lingbot_va bench` measures the ROS path of the real policy_node."""

import os
import signal
import subprocess
import sys

import pytest

from lingbot_va_ros.cli.bench.conversions import measure_conversions
from lingbot_va_ros.cli.bench.images import ImageSetup, measure_images
from lingbot_va_ros.cli.bench.listener import HANDLINGS
from lingbot_va_ros.cli.bench.ros_path import measure_ros
from lingbot_va_ros.cli.common.failure import CommandFailed
from lingbot_va_ros.nodes.images.encodings import ENCODINGS

START = """
import sys
from lingbot_va_ros.cli.bench import {name}
from rclpy.executors import SingleThreadedExecutor
spin_once = SingleThreadedExecutor.spin_once
def spin(self, *args, **kwargs):
    print('spinning', flush=True)
    SingleThreadedExecutor.spin_once = spin_once
    spin_once(self, *args, **kwargs)
SingleThreadedExecutor.spin_once = spin
{name}.main()
"""


def test_the_ros_path_is_measured_and_leaves_nothing_behind():
    lines, before = [], dict(os.environ)
    ros = measure_ros(lines.append, stream_seconds=0.5, trials=2, control_rates=(50.0,))
    assert dict(os.environ) == before
    assert 0 <= ros['publish_jitter_ms']['p50'] <= ros['publish_jitter_ms']['p99']
    assert ros['publish_jitter_ms']['p99'] <= ros['publish_jitter_ms']['max']
    assert ros['publish_jitter_ms_by_rate']['50']['messages'] > 5
    assert ros['image_cpu_share'] < 1 and ros['images_per_second'] == pytest.approx(30, abs=20)
    assert 0 < ros['camera_to_chunk_extra_ms_p50'] <= ros['camera_to_chunk_extra_ms_p95']
    assert 0 < ros['cameras_sending_ms_p50'] <= ros['cameras_sending_ms_p95']
    assert 0 < ros['chunk_arrives_ms_p50'] <= ros['chunk_arrives_ms_p95']
    assert ros['camera_to_chunk_trials'] == 2
    assert 0 < ros['image_to_rgb_ms'] < ros['image_to_python_ms']
    assert any('jitter at 50 Hz' in line for line in lines)


def test_images_are_measured_one_way_and_leave_nothing_behind():
    before = dict(os.environ)
    row, = measure_images(
        lambda _line: None, 0.5, [ImageSetup(transport='compressed', handling='decoded')])
    assert dict(os.environ) == before
    assert (row['transport'], row['handling'], row['executor'], row['profile']) == (
        'compressed', 'decoded', 'single', True)
    assert row['images_per_second'] > 3 and 0 < row['age_ms_p50'] <= row['age_ms_p99']
    assert 0 <= row['cpu_share'] < 2


def test_the_conversion_of_every_encoding_is_measured():
    rows = {row['encoding']: row for row in measure_conversions(lambda _line: None)}
    assert set(rows) == {*ENCODINGS, 'jpeg', 'png'}
    assert all(row['ms'] > 0 for row in rows.values())
    assert rows['bgr8']['indexing_ms'] > rows['bgr8']['ms']
    assert rows['uyvy']['indexing_ms'] is None


def test_a_way_that_is_none_gets_one_line():
    assert ('raw', 'decoded') not in HANDLINGS
    with pytest.raises(CommandFailed, match='cannot start: raw images cannot be decoded'):
        measure_images(lambda _line: None, 0.5, [ImageSetup(handling='decoded')])


@pytest.mark.parametrize('words', [['cameras'], ['listener', 'single']])
def test_a_process_of_the_benchmark_ends_quietly(words):
    # A process that spins has its signal handlers already.
    with subprocess.Popen(
            [sys.executable, '-c', START.format(name=words[0]), *words[1:]],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == 'spinning\n'
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=10.0) == 0
            assert 'Traceback' not in process.stderr.read()
        finally:
            process.kill()
