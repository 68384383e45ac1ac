"""`lingbot_va train`: errors in one line, and a short run that resumes."""

import json
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

from lingbot_va_ros.training.settings import (
    load_settings,
    settings_from,
    settings_text,
    SettingsError,
)

CHECKOUT = Path(__file__).resolve().parents[3]


def command(*words):
    return [sys.executable, '-m', 'lingbot_va_ros.cli.main', 'train', '--threads', '1',
            *map(str, words)]


@pytest.mark.parametrize('words, line', [
    (['--stages', 'data,sleep'], '--stages: sleep unknown; expected some of data, encoder'),
    (['--minutes', '0'], '--minutes: 0; expected more than 0'),
    (['--device', 'tpu'], "device 'tpu'; expected cpu, cuda or cuda:<number>"),
    (['--config', 'huge'], "settings 'huge': expected a path or one of the shipped"),
    (['--stages', 'network'], 'policy.yaml does not exist: run the stage latents first'),
])
def test_impossible_options_are_rejected_in_one_line(words, line, tmp_path, capsys):
    from lingbot_va_ros.cli.main import main
    assert main(['train', '--out', str(tmp_path), *words]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith('lingbot_va train: ') and line in said and '\n' not in said


def test_shipped_settings_can_be_read_and_written_again():
    settings = load_settings('tiny')
    assert settings_from(yaml.safe_load(settings_text(settings)), 'again') == settings


def test_wrong_settings_are_named_all_at_once():
    raw = yaml.safe_load(settings_text(load_settings('tiny')))
    raw['codec']['steps'] = 'many'
    raw['training']['draw']['chunk_frames'] = [1]
    del raw['text']
    with pytest.raises(SettingsError) as error:
        settings_from(raw, 'file.yaml')
    text = str(error.value)
    assert 'codec.steps' in text and 'training.draw.chunk_frames' in text and "'text'" in text


def test_settings_that_make_no_sense_are_named():
    raw = yaml.safe_load(settings_text(load_settings('tiny')))
    raw['codec']['images'] = 8
    raw['network']['head_dim'] = 31
    raw['training']['batch'] = 0
    with pytest.raises(SettingsError) as error:
        settings_from(raw, 'file.yaml')
    assert [line.split(': ')[1] for line in str(error.value).splitlines()] == [
        'codec.images', 'network.head_dim', 'training.batch']


@pytest.mark.timeout(180)
def test_sigterm_saves_and_the_same_command_goes_on(
        encoded, small_settings, tmp_path, monkeypatch):
    folder = shutil.copytree(encoded, tmp_path / 'run')
    (tmp_path / 'small.yaml').write_text(settings_text(small_settings))
    words = command('--config', tmp_path / 'small.yaml', '--out', folder, '--stages', 'network')
    monkeypatch.setenv('PYTHONPATH', str(CHECKOUT))
    process = subprocess.Popen([*words, '--steps', '100000'])
    log = folder / 'log.jsonl'
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and '"network"' not in log.read_text():
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 130
    assert (folder / 'network.pt').is_file()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    reached = max(line['step'] for line in lines if line['stage'] == 'network')
    assert subprocess.run(
        [*words, '--steps', str(reached + 20), '--export', str(tmp_path / 'made')]).returncode == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert max(line['step'] for line in lines if line['stage'] == 'network') == reached + 20
    assert (tmp_path / 'made' / 'policy.yaml').is_file()


@pytest.mark.timeout(180)
def test_two_processes_train_one_network_that_one_goes_on_with(
        encoded, small_settings, make_run, tmp_path, monkeypatch):
    folder = shutil.copytree(encoded, tmp_path / 'run')
    (tmp_path / 'small.yaml').write_text(settings_text(small_settings))
    words = command('--config', tmp_path / 'small.yaml', '--out', folder, '--stages', 'network')
    monkeypatch.setenv('PYTHONPATH', str(CHECKOUT))
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2',
         *words[1:], '--steps', '4'], check=True, timeout=150)
    noted = []
    assert make_run(folder, noted, steps=10).network()
    lines = [json.loads(line) for line in (folder / 'log.jsonl').read_text().splitlines()]
    assert [line['step'] for line in lines if line['stage'] == 'network'] == [4, 10]
    assert [line['stage'] for line in noted].count('network') == 1
