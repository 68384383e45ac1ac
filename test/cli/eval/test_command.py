"""`lingbot_va eval`: in process and over ROS, and the errors of invalid options."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from support.ros_domain import claim_domain
import yaml

from lingbot_va_ros.cli.main import main

PROMISED = {
    'task', 'schedule', 'memory', 'latency_chunks', 'episodes', 'successes', 'episode_seconds',
    'max_seam_step', 'starved_ticks', 'inference_p95', 'chunk_seconds', 'success_low',
    'success_high', 'speed'}


@pytest.fixture(scope='module')
def quick_checkpoint(untrained_checkpoint, tmp_path_factory):
    """Return a checkpoint that predicts with one denoising step."""
    folder = tmp_path_factory.mktemp('quick') / 'checkpoint'
    shutil.copytree(untrained_checkpoint, folder)
    policy = yaml.safe_load((folder / 'policy.yaml').read_text())
    policy['video']['steps'] = policy['action']['steps'] = 1
    (folder / 'policy.yaml').write_text(yaml.safe_dump(policy))
    return folder


@pytest.fixture(scope='module')
def evaluated(quick_checkpoint, tmp_path_factory):
    """Return the folder in which a small evaluation in process has left its files."""
    folder = tmp_path_factory.mktemp('eval')
    code = main([
        'eval', '--in-process', '--checkpoint', str(quick_checkpoint), '--task', 'table',
        '--episodes', '2', '--seed', '7', '--max-chunks', '2', '--schedule', 'sync',
        '--schedule', 'async,sync', '--latency-chunks', '1.2', '0', '--json',
        str(folder / 'new' / 'rows.json'), '--plot', str(folder / 'rows.png'), '--output',
        str(folder / 'output')])
    assert code == 0
    return folder


def test_there_is_a_row_for_every_combination(evaluated):
    rows = json.loads((evaluated / 'new' / 'rows.json').read_text())['rows']
    assert [(row['schedule'], row['latency_chunks']) for row in rows] == [
        ('sync', 0.0), ('sync', 1.2), ('async', 0.0), ('async', 1.2)]
    for row in rows:
        assert set(row) >= PROMISED
        assert (row['task'], row['memory'], row['episodes']) == ('table', 'full', 2)
        assert (row['successes'], row['success_low']) == (0, 0.0)
        assert row['chunk_seconds'] == pytest.approx(1.6)
        assert row['max_seam_step'] > 0 and row['inference_p95'] > 0
        assert [result['seed'] for result in row['results']] == [7, 8]


def test_latency_takes_time_and_starves_the_asynchronous_schedule_alone(evaluated):
    rows = json.loads((evaluated / 'new' / 'rows.json').read_text())['rows']
    seconds = {(row['schedule'], row['latency_chunks']): row['episode_seconds'] for row in rows}
    starved = {(row['schedule'], row['latency_chunks']): row['starved_ticks'] for row in rows}
    assert seconds['sync', 1.2] - seconds['sync', 0.0] == pytest.approx(2 * 1.2 * 1.6, abs=0.1)
    assert starved['async', 1.2] > 0
    assert sum(starved.values()) == starved['async', 1.2]


def test_the_plot_is_drawn(evaluated):
    assert (evaluated / 'rows.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize('words, named', [
    (['--task', 'dance'], "--task 'dance' is unknown"),
    (['--task', ','], "--task '' is unknown"),
    (['--schedule', 'later'], "'later': expected one or several of sync"),
    (['--memory', 'full,none'], "'none': expected one or several of full"),
    (['--latency-chunks', '0', 'fast'], "'fast' is not a number"),
    (['--latency-chunks', '-1'], 'not a number'),
    (['--episodes', '0'], "'0' is not a whole number"),
    (['--seed', '2147483647'], 'the last seed is'),
    (['--plot', 'rows.txt'], "'rows.txt' does not end in"),
    (['--checkpoint', 'nowhere'], 'checkpoint nowhere is not a folder'),
    (['--json', '/proc/nowhere/rows.json'], 'nowhere'),
    (['--max-chunks', 'many'], "'many' is not a whole number"),
    (['--speed', '0'], "'0' is not a number of 0.001 to 1"),
    (['--speed', '1.5'], "'1.5' is not a number of 0.001 to 1"),
    (['--speed', 'nan'], "'nan' is not a number of 0.001 to 1"),
])
def test_what_cannot_be_is_told_in_one_line(words, named, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(['eval', '--in-process', *words])
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr().err.strip()
    assert code in (1, 2)
    assert named in said
    assert len(said.splitlines()) == 1


def test_a_file_is_not_touched_before_there_is_something_to_write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'rows.json').write_text('of another day')
    assert main(['eval', '--in-process', '--task', 'table', '--json', 'rows.json',
                 '--checkpoint', 'nowhere']) == 1
    assert (tmp_path / 'rows.json').read_text() == 'of another day'


@pytest.mark.timeout(180)
def test_the_same_over_ros(quick_checkpoint, tmp_path):
    """Two short episodes with a reset of the scene between them; a process set of its own."""
    environment = {**os.environ, 'ROS_DOMAIN_ID': str(claim_domain())}
    done = subprocess.run(
        [sys.executable, '-m', 'lingbot_va_ros.cli.main', 'eval', '--checkpoint',
         str(quick_checkpoint), '--task', 'table', '--episodes', '2', '--max-chunks', '2',
         '--schedule', 'async', '--latency-chunks', '0.3', '--json', str(tmp_path / 'rows.json'),
         '--output', str(tmp_path / 'output')],
        env=environment, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    row, = json.loads((tmp_path / 'rows.json').read_text())['rows']
    assert set(row) >= PROMISED
    assert (row['episodes'], row['chunks'], row['in_process']) == (2, 2.0, False)
    # Half a chunk, a whole one, and the latency before the first.
    assert row['episode_seconds'] > 1.5 * 1.6 + 0.3 * 1.6 - 0.2
    assert 0 < row['max_seam_step'] < 0.1
    assert 'UNTRAINED' in done.stdout
