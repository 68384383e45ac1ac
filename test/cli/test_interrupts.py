"""After Ctrl-C a command ends with code 130 and one line, also if a library catches the signal."""

import os
from pathlib import Path
import signal
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from lingbot_va_ros.cli.common import interrupts
from lingbot_va_ros.cli.common.failure import CommandFailed
from lingbot_va_ros.cli.main import COMMANDS, INTERRUPTED, main


def interrupted(how, number=signal.SIGINT):
    """Return a function of a library that is interrupted and fails in its own way."""
    def function(*_arguments, **_keywords):
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            if how == 'interrupt':
                raise
            if how == 'exit':
                raise SystemExit(3) from None
            raise {'runtime error': RuntimeError, 'os error': OSError, 'value error': ValueError,
                   'system error': SystemError, 'failure': CommandFailed}[how](
                       'error in a callback') from None
        raise AssertionError('no signal came')
    return function


HOW = ('interrupt', 'runtime error', 'os error', 'value error', 'system error', 'failure', 'exit')
# Command: its phases, as the functions that are interrupted.
PHASES = {
    'demo': (
        'cli.demo.command.ros_environment', 'cli.demo.command.choose_checkpoint',
        'cli.demo.command.run_episodes', 'cli.demo.report.write_report',
        'cli.demo.video.write_video'),
    'eval': (
        'cli.eval.command.choose_checkpoint', 'cli.eval.in_process.load',
        'cli.eval.in_process.run_row', 'cli.eval.plot.write_plot', 'cli.eval.command.write_text'),
    'imagine': (
        'cli.imagine.command.read_images', 'cli.imagine.command.load_chosen_engine',
        'policy.inference.open_loop.imagine', 'policy.inference.engine.Engine.decode',
        'cli.common.mp4.write_mp4', 'cli.imagine.action_plot.draw_actions'),
    'serve': ('cli.serve._serve',),
    'train': (
        'training.settings.load_settings', 'training.process_group.join_process_group',
        'training.pipeline.TrainingRun.data', 'training.pipeline.TrainingRun.encoder'),
    'check': (
        'cli.check.command.find_policy_file', 'cli.check.command.load_embodiment',
        'cli.check.command.make_action_map', 'cli.check.command.write_text'),
    'bench': (
        'cli.bench.command.load_setting', 'cli.bench.engine.measure_setting',
        'cli.bench.ros_path.measure_ros', 'cli.bench.command.show'),
}


@pytest.fixture
def words_of(untrained_checkpoint, tmp_path, monkeypatch):
    """Return the words of a short run of each command; it may write below tmp_path / 'new'."""
    # All imports come before the first replacement: a module that is imported later would keep
    # what it imports by name replaced for the tests that follow.
    from lingbot_va_ros.cli.bench import command as bench
    from lingbot_va_ros.cli.bench import engine, roofline, ros_path
    from lingbot_va_ros.cli.demo import command, report, video
    from lingbot_va_ros.cli.eval import in_process
    from lingbot_va_ros.training import pipeline
    monkeypatch.chdir(tmp_path)
    still = tmp_path / 'still.png'
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(still)
    # Phases that are not interrupted take no time.
    monkeypatch.setattr(command, 'run_episodes', lambda *_: ([_Episode], []))
    monkeypatch.setattr(command, 'summarize', lambda *_: {})
    monkeypatch.setattr(report, 'write_report', lambda *_: None)
    monkeypatch.setattr(video, 'write_video', lambda *_: None)
    monkeypatch.setattr(in_process, 'load', lambda *_: None)
    monkeypatch.setattr(
        in_process, 'run_row',
        lambda engine, condition, seeds, chunks, limit, each, speed: each(_outcome()))
    monkeypatch.setattr(engine, 'measure_setting', lambda *_: [])
    monkeypatch.setattr(roofline, 'measure_rates', lambda *_: roofline.MachineRates(1.0, 1.0))
    monkeypatch.setattr(ros_path, 'measure_ros', lambda *_: {})
    monkeypatch.setattr(bench, 'show', lambda *_: None)
    for stage in ('data', 'encoder'):
        monkeypatch.setattr(pipeline.TrainingRun, stage, lambda *_: True)
    checkpoint = ['--checkpoint', str(untrained_checkpoint)]
    return {
        'demo': ['--output', 'new/demo', *checkpoint, '--task', 'table'],
        'eval': ['--in-process', '--task', 'table', '--episodes', '1', '--output', 'new/eval',
                 '--json', 'new/rows.json', '--plot', 'new/rows.png', *checkpoint],
        'imagine': [str(still), str(still), '--instruction', 'x', '--chunks', '1', '--output',
                    'new/imagined', '--json', 'new/report.json', '--device', 'cpu', *checkpoint],
        'serve': ['--port', '0', '--device', 'cpu', *checkpoint],
        'train': ['--out', 'new/train', '--stages', 'data,encoder'],
        'check': ['--policy', 'untrained', '--embodiment', 'sim_left', '--json',
                  'new/findings.json'],
        'bench': ['--setting', 'tiny', '--json', 'new/bench.json'],
    }


class _Episode:
    stopped_by = ''


def _outcome():
    from lingbot_va_ros.cli.eval.rows import EpisodeOutcome
    return EpisodeOutcome(0, False, False, {}, 'chunk limit', 1, 1.0, 0.0, 0.0, 0.0, 0.0, 0, ())


def test_every_command_is_interrupted():
    assert set(PHASES) == set(COMMANDS)


def cases():
    """Return (command, phase, how): every phase two ways, the first of a command every way."""
    for command, phases in PHASES.items():
        for number, phase in enumerate(phases):
            for how in HOW if number == 0 else ('runtime error', HOW[number % len(HOW)]):
                yield command, phase, how


@pytest.mark.parametrize('command, phase, how', sorted(set(cases())))
def test_whatever_an_interrupt_turns_into_the_exit_code_is_130(
        command, phase, how, words_of, monkeypatch, capsys):
    # While a stage of training runs, a signal is only recorded.
    raises = not phase.startswith('training.pipeline')
    monkeypatch.setattr(f'lingbot_va_ros.{phase}', interrupted(how) if raises else (
        lambda *_: os.kill(os.getpid(), signal.SIGINT)))
    handlers = [signal.getsignal(number) for number in interrupts.SIGNALS]
    assert main([command, *words_of[command]]) == 130
    printed = capsys.readouterr().err
    assert printed.splitlines()[-1] == f'lingbot_va {command}: {INTERRUPTED}'
    assert 'Traceback' not in printed and printed.count(f'lingbot_va {command}: ') == 1
    left = [path for path in Path('new').rglob('*') if path.is_file()]
    assert not [path for path in left if path.name.startswith('.')], left
    # Complete before the last phase.
    finished = {'eval': {'rows.json'}, 'bench': {'bench.json'}}
    assert {path.name for path in left if 'logs' not in path.parts} <= finished.get(
        command, set())
    assert [signal.getsignal(number) for number in interrupts.SIGNALS] == handlers


@pytest.mark.parametrize('number', interrupts.SIGNALS)
def test_a_worker_that_dies_of_the_same_signal_is_no_failure_of_training(
        number, words_of, monkeypatch, capsys):
    def broken(*_):
        os.kill(os.getpid(), number)
        raise EOFError('a worker has died')
    monkeypatch.setattr('lingbot_va_ros.training.pipeline.TrainingRun.encoder', broken)
    assert main(['train', *words_of['train']]) == 130
    assert 'Traceback' not in capsys.readouterr().err


def test_without_an_interrupt_a_mistake_in_the_program_keeps_its_traceback(
        words_of, monkeypatch):
    def mistaken(*_arguments):
        raise KeyError('mistake')
    monkeypatch.setattr('lingbot_va_ros.cli.check.command.find_policy_file', mistaken)
    with pytest.raises(KeyError):
        main(['check', *words_of['check']])


def test_an_interrupt_that_a_library_has_lost_is_raised_again():
    with interrupts.recorded():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            pass
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
    interrupts.check()


def test_signals_of_the_same_moment_are_one_request(monkeypatch):
    now = [10.0]
    monkeypatch.setattr(interrupts.time, 'monotonic', lambda: now[0])
    with interrupts.recorded():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        now[0] += 1.0
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        now[0] += 1.0
        interrupts.end()
        os.kill(os.getpid(), signal.SIGINT)
        interrupts.check()


def test_deferred_signals_raise_at_the_second(monkeypatch):
    now = [10.0]
    monkeypatch.setattr(interrupts.time, 'monotonic', lambda: now[0])
    with interrupts.recorded(), interrupts.deferred():
        assert not interrupts.received()
        os.kill(os.getpid(), signal.SIGTERM)
        interrupts.check()
        assert interrupts.received()
        now[0] += 1.0
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


IN_A_CALLBACK = """
import ctypes, os, signal, sys
from lingbot_va_ros.cli.main import main

def find(*_):
    # A C function calls back; Python reports what the callback raises as ignored.
    callback = ctypes.CFUNCTYPE(None)(lambda: os.kill(os.getpid(), signal.SIGINT))
    callback()
    exec("import {module}")
    raise RuntimeError('the library failed')

import lingbot_va_ros.cli.check.command as command
command.find_policy_file = find
sys.argv[1:] = ['check', '--policy', 'untrained']
sys.exit(main())
"""


def test_a_callback_of_a_library_prints_no_traceback(tmp_path):
    (tmp_path / 'raises_interrupt.py').write_text('raise KeyboardInterrupt')
    done = subprocess.run(
        [sys.executable, '-c', IN_A_CALLBACK.format(module='raises_interrupt')], cwd=tmp_path,
        capture_output=True, text=True, timeout=50)
    assert done.returncode == 130
    assert done.stderr == f'lingbot_va check: {INTERRUPTED}\n'
