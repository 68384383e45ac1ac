"""
The demo as a user starts it: three processes over real DDS, and what it leaves behind.

Once with the untrained checkpoint, once with the shipped one on the two tasks; both are short.
"""

import json
import os
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pytest
from support.ros_domain import claim_domain

from lingbot_va_ros.cli.demo.video import CAPTION, TILE
from lingbot_va_ros.cli.main import INTERRUPTED

CHUNKS = 3
TASK_CHUNKS = 2
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


def read_until(demo, text, seconds=60.0):
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
    """Run a whole demo and return (exit code, what it printed)."""
    return run_demo(output, '--task', 'table', '--chunks', str(CHUNKS))


def run_demo(output, *words):
    demo = start_demo(output, *words)
    try:
        printed, _ = demo.communicate(timeout=150)
    finally:
        demo.kill()
    return demo.returncode, printed


@pytest.fixture(scope='module')
def summary(finished, output):
    code, printed = finished
    assert code == 0, printed
    return json.loads((output / 'summary.json').read_text())


@pytest.mark.timeout(180)
def test_the_demo_ends_well_and_leaves_no_process(finished, output):
    code, printed = finished
    assert code == 0, printed
    assert 'warning' not in printed
    assert processes_of(output) == []


def test_summary_has_the_promised_fields(summary, output):
    assert set(summary) >= {
        'episodes', 'inference_p50', 'inference_p95', 'publish_jitter_ms', 'starved_ticks',
        'checkpoint', 'trained'}
    episode, = summary['episodes']
    assert set(episode) >= {'task', 'success', 'detail', 'chunks', 'seconds'}
    assert episode['task'] == 'table'
    assert episode['success'] is False
    assert 0 < summary['inference_p50'] <= summary['inference_p95'] < 30
    assert 0 <= summary['publish_jitter_ms']['p50'] <= summary['publish_jitter_ms']['p99']
    assert summary['starved_ticks'] == 0


def test_chunks_were_executed(summary):
    episode, = summary['episodes']
    assert episode['chunks'] >= CHUNKS
    # A chunk of this policy lasts 1.6 s, the first one half of that.
    assert episode['seconds'] > (CHUNKS - 0.5) * 1.6


def test_the_arm_moved_and_followed_its_commands(summary):
    assert summary['commanded_range'] > 0.02
    assert summary['max_tracking_error'] < TRACKING


def test_an_untrained_network_is_called_so(summary, finished, output):
    assert summary['checkpoint'] == str(output / 'untrained')
    assert summary['trained'] is False
    assert 'UNTRAINED' in finished[1]


def test_the_report_is_a_picture(summary, output):
    assert (output / 'report.png').read_bytes().startswith(b'\x89PNG')


def test_the_video_shows_the_episode(summary, output):
    with av.open(str(output / 'episode.mp4')) as container:
        stream = container.streams.video[0]
        pictures = [frame.to_ndarray(format='rgb24') for frame in container.decode(stream)]
        assert stream.codec_context.pix_fmt == 'yuv420p'
        assert len(pictures) / stream.average_rate == pytest.approx(
            summary['episodes'][0]['seconds'] + STILL, abs=0.3)
    first, last = pictures[0].astype(int), pictures[-1].astype(int)
    change = np.abs(first - last)[3 * CAPTION + 4:]  # below the headline and the labels
    assert change[:, :-2 * TILE].max() > 50, 'the arm in the overview'
    assert change[-TILE:, -2 * TILE:].max() > 50, 'what was imagined'


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Begin each task with the shipped checkpoint; return (summary, what was printed)."""
    output = tmp_path_factory.mktemp('trained')
    code, printed = run_demo(output, '--chunks', str(TASK_CHUNKS), '--seed', '3')
    assert code == 0, printed
    return json.loads((output / 'summary.json').read_text()), printed


@pytest.mark.timeout(180)
def test_the_shipped_checkpoint_is_given_an_episode_of_each_task(trained):
    summary, printed = trained
    assert [episode['task'] for episode in summary['episodes']] == ['wipe_plate', 'open_boxes']
    assert summary['trained'] is True
    assert summary['checkpoint'].endswith('lingbot-va-tiny')
    assert 'UNTRAINED' not in printed


def test_each_episode_ends_with_its_chunks_and_says_what_was_counted(trained):
    summary, printed = trained
    for episode, counts in zip(summary['episodes'], ('strokes: 0', 'opened_a: 0')):
        assert episode['chunks'] >= TASK_CHUNKS
        assert (episode['seed'], episode['chunk_limit']) == (3, TASK_CHUNKS)
        assert (episode['success'], episode['done']) == (False, False)
        assert episode['detail'].startswith(counts)
        assert f'{episode["task"]}: no success ({counts}' in printed


@pytest.mark.timeout(180)
def test_ctrl_c_ends_every_process(summary, output):
    demo = start_demo(output, '--task', 'table', '--chunks', '30')
    try:
        read_until(demo, 'chunk 1/30')
        assert len(processes_of(output)) == 4
        os.killpg(demo.pid, signal.SIGINT)
        printed, _ = demo.communicate(timeout=20)
    finally:
        demo.kill()
    assert demo.returncode == 130, printed
    assert processes_of(output) == []
    assert printed.splitlines()[-1] == f'lingbot_va demo: {INTERRUPTED}'


@pytest.mark.timeout(120)
def test_a_process_that_dies_ends_the_demo(output, summary):
    demo = start_demo(output, '--task', 'table', '--chunks', '30')
    try:
        read_until(demo, 'phase configuring')
        victim, = [pid for pid in processes_of(output)
                   if b'sim_robot' in open(f'/proc/{pid}/cmdline', 'rb').read()]
        os.kill(victim, signal.SIGKILL)
        printed, _ = demo.communicate(timeout=20)
    finally:
        demo.kill()
    assert demo.returncode == 1, printed
    assert 'lingbot_va demo: sim_robot ended unexpectedly (signal SIGKILL)\n' in printed
    assert processes_of(output) == []
