"""
The demo as a user starts it: three processes over real DDS, and what it leaves behind.

Once with the shipped checkpoint on the two tasks, briefly, and with the untrained one where the
demo ends early.
"""

import json
import os
import signal
import subprocess
import sys
import time

import av
import cv2
import numpy as np
import pytest
from support.ros_domain import claim_domain

from lingbot_va_ros.cli.demo.video import CAPTION, TILE
from lingbot_va_ros.cli.main import INTERRUPTED

CHUNKS = 4  # after which the arm has moved
CHUNK_SECONDS = 0.8  # of the shipped checkpoint
SEED = 3
STILL = 2.0  # s of video behind each episode
TRACKING = 0.1  # rad; a limp arm is off by more than that


def start_demo(output, *words):
    """Start the demo in a session of its own, as a terminal would."""
    environment = {**os.environ, 'ROS_DOMAIN_ID': str(claim_domain()),
                   'ROS_LOG_DIR': str(output / 'ros')}
    return subprocess.Popen(
        [sys.executable, '-m', 'lingbot_va_ros.cli.main', 'demo', '--output', str(output), *words],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True)


def processes_of(output):
    """Return the processes that have this demo's log folder in their environment."""
    mark = f'ROS_LOG_DIR={output / "ros"}'.encode()
    found = []
    for pid in filter(str.isdecimal, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/environ', 'rb') as environment:
                if mark in environment.read().split(b'\0'):
                    found.append(int(pid))
        except OSError:  # gone, or another user's
            continue
    return found


def read_until(demo, text, seconds=180.0):
    """Read what the demo prints up to a line that has `text` in it."""
    deadline, lines = time.monotonic() + seconds, []
    for line in demo.stdout:
        lines.append(line)
        if text in line:
            return lines
        assert time.monotonic() < deadline, ''.join(lines)
    raise AssertionError('the demo ended before: ' + ''.join(lines))


@pytest.fixture(scope='module')
def output(tmp_path_factory):
    return tmp_path_factory.mktemp('demo')


@pytest.fixture(scope='module')
def finished(output):
    """Begin each task with the shipped checkpoint; return (exit code, what was printed)."""
    demo = start_demo(output, '--chunks', str(CHUNKS), '--seed', str(SEED))
    try:
        printed, _ = demo.communicate(timeout=300)
    finally:
        demo.kill()
    return demo.returncode, printed


@pytest.fixture(scope='module')
def summary(finished, output):
    code, printed = finished
    assert code == 0, printed
    return json.loads((output / 'summary.json').read_text())


@pytest.mark.timeout(360)
def test_the_demo_ends_well_and_leaves_no_process(finished, output):
    code, printed = finished
    assert code == 0, printed
    assert 'warning' not in printed and 'UNTRAINED' not in printed
    assert processes_of(output) == []


def test_summary_has_the_promised_fields(summary):
    assert set(summary) >= {
        'episodes', 'inference_p50', 'inference_p95', 'publish_jitter_ms', 'starved_ticks',
        'checkpoint', 'trained'}
    for episode in summary['episodes']:
        assert set(episode) >= {'task', 'success', 'detail', 'chunks', 'seconds'}
    assert 0 < summary['inference_p50'] <= summary['inference_p95'] < 30
    assert 0 <= summary['publish_jitter_ms']['p50'] <= summary['publish_jitter_ms']['p99']
    assert summary['starved_ticks'] == 0


def test_the_shipped_checkpoint_is_given_an_episode_of_each_task(summary):
    assert [episode['task'] for episode in summary['episodes']] == ['wipe_plate', 'open_boxes']
    assert summary['trained'] is True
    assert summary['checkpoint'].endswith('lingbot-va-tiny')


def test_each_episode_ends_with_its_chunks_and_says_what_was_counted(summary, finished):
    for episode, counts in zip(summary['episodes'], ('strokes: 0', 'opened_a: 0')):
        assert episode['chunks'] >= CHUNKS
        # The first chunk lasts one half of the others.
        assert episode['seconds'] > (CHUNKS - 0.5) * CHUNK_SECONDS
        assert (episode['seed'], episode['chunk_limit']) == (SEED, CHUNKS)
        assert (episode['success'], episode['done']) == (False, False)
        assert episode['detail'].startswith(counts)
        assert f'{episode["task"]}: no success ({counts}' in finished[1]


def test_the_arm_moved_and_followed_its_commands(summary):
    assert summary['commanded_range'] > 0.02
    assert summary['max_tracking_error'] < TRACKING


def test_the_report_is_a_picture(summary, output):
    assert (output / 'report.png').read_bytes().startswith(b'\x89PNG')


def test_the_video_shows_the_episodes(summary, output):
    with av.open(str(output / 'episode.mp4')) as container:
        stream = container.streams.video[0]
        pictures = [frame.to_ndarray(format='rgb24') for frame in container.decode(stream)]
        assert stream.codec_context.pix_fmt == 'yuv420p'
        seconds = [episode['seconds'] + STILL for episode in summary['episodes']]
        assert len(pictures) / stream.average_rate == pytest.approx(sum(seconds), abs=0.6)
    first, *others = pictures[:round(seconds[0] * stream.average_rate):5]
    change = np.max([cv2.absdiff(first, other) for other in others], axis=0)
    change = change[3 * CAPTION + 4:]  # below the headline and the labels
    assert change[:, :-2 * TILE].max() > 50, 'the arm in the overview'
    assert change[-TILE:, -2 * TILE:].max() > 50, 'what was imagined'


@pytest.mark.timeout(300)
def test_ctrl_c_ends_every_process(tmp_path):
    demo = start_demo(tmp_path, '--task', 'table', '--chunks', '30')
    try:
        lines = read_until(demo, 'chunk 1/30')
        assert any('UNTRAINED' in line for line in lines), 'an untrained network is called so'
        assert (tmp_path / 'untrained' / 'policy.yaml').is_file()
        assert len(processes_of(tmp_path)) == 4
        os.killpg(demo.pid, signal.SIGINT)
        printed, _ = demo.communicate(timeout=60)
    finally:
        demo.kill()
    assert demo.returncode == 130, printed
    assert processes_of(tmp_path) == []
    assert printed.splitlines()[-1] == f'lingbot_va demo: {INTERRUPTED}'


@pytest.mark.timeout(300)
def test_a_process_that_dies_ends_the_demo(tmp_path):
    demo = start_demo(tmp_path, '--task', 'wipe_plate', '--chunks', '30')
    try:
        read_until(demo, 'phase configuring')
        victim, = [pid for pid in processes_of(tmp_path)
                   if b'sim_robot' in open(f'/proc/{pid}/cmdline', 'rb').read()]
        os.kill(victim, signal.SIGKILL)
        printed, _ = demo.communicate(timeout=60)
    finally:
        demo.kill()
    assert demo.returncode == 1, printed
    assert 'lingbot_va demo: sim_robot ended unexpectedly (signal SIGKILL)\n' in printed
    assert processes_of(tmp_path) == []
