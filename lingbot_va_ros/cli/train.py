"""
Train a small LingBot-VA from scratch: data, video VAE, transformer, and a checkpoint folder.

A run keeps all its files in one folder. Ctrl-C, SIGTERM and --minutes save and end the run, and
the same command resumes it. Stages, in order: data (record the scripted experts), encoder (train
the encoder of the video VAE), latents (encode the recordings once), network (train the
transformer), decoder (train the decoder of the VAE, for predicted video).

  lingbot_va train --out training_data/tiny --minutes 10
  torchrun --nproc-per-node 4 -m lingbot_va_ros.cli.main train --out … --device cuda --half
"""

import argparse
import os
from pathlib import Path
import shlex
import time
from typing import Any

from lingbot_va_ros.cli.common import interrupts
from lingbot_va_ros.cli.common.failure import CommandFailed, one_line
from lingbot_va_ros.cli.common.progress import ProgressDisplay

STAGES = ('data', 'encoder', 'latents', 'network', 'decoder')
HISTORIES = ('full', 'last_chunk')
SHOWN = ('total', 'dynamics', 'forward_dynamics', 'inverse', 'events', 'picture', 'places',
         'seconds_per_step')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the training."""
    parser.add_argument(
        '--config', default='tiny', metavar='NAME',
        help='settings file: a name in config/training or a path (default: %(default)s)')
    parser.add_argument(
        '--out', type=Path, required=True, metavar='FOLDER',
        help='folder of the run; it is created if missing')
    parser.add_argument(
        '--stages', default=','.join(STAGES), metavar='A,B',
        help=f'stages to run, of {", ".join(STAGES)} (default: all)')
    parser.add_argument(
        '--minutes', type=float, metavar='M', help='time limit: save and end (default: no limit)')
    parser.add_argument(
        '--steps', type=int, metavar='N',
        help='training steps of the transformer, instead of those of the settings')
    parser.add_argument(
        '--initial', type=Path, metavar='CHECKPOINT',
        help='start from the video VAE, text encoder and weights of this checkpoint, which must '
             'have the sizes of the settings')
    parser.add_argument(
        '--history', choices=HISTORIES, default='full',
        help='history from which a chunk is predicted; last_chunk trains the baseline without '
             'memory (default: %(default)s)')
    parser.add_argument(
        '--device', default='cpu', help='cpu, cuda or cuda:<number> (default: %(default)s)')
    parser.add_argument(
        '--half', action='store_true',
        help='matrix products in bfloat16 (CUDA, and CPUs with AVX512-BF16)')
    parser.add_argument(
        '--processes', type=int, default=1, metavar='N',
        help='processes that record data (default: %(default)s)')
    parser.add_argument(
        '--threads', type=int, metavar='N',
        help='CPU threads of PyTorch (default: one per core)')
    parser.add_argument(
        '--check-every', type=float, default=0.0, metavar='M',
        help='minutes between closed-loop checks while the transformer trains (default: 0, never)')
    parser.add_argument(
        '--check-episodes', type=int, default=4, metavar='N',
        help='episodes of each task in a closed-loop check (default: %(default)s)')
    parser.add_argument(
        '--export', type=Path, metavar='FOLDER',
        help='write a checkpoint with the EMA weights, at the end or when stopped')


def run(arguments: argparse.Namespace) -> int:
    """
    Run the stages; the first signal saves and ends, a second one ends at once.

    :raises CommandFailed: an option, a file or the device cannot be used.
    """
    stages = [name.strip() for name in arguments.stages.split(',') if name.strip()]
    unknown = [name for name in stages if name not in STAGES]
    if unknown:
        raise _refused(f'--stages: {", ".join(unknown)} unknown; expected some of '
                       f'{", ".join(STAGES)}')
    for name in ('minutes', 'steps', 'processes', 'threads', 'check_episodes'):
        value = getattr(arguments, name)
        if value is not None and value <= 0:
            raise _refused(f'--{name.replace("_", "-")}: {value:g}; expected more than 0')
    if arguments.check_every < 0:
        raise _refused(f'--check-every: {arguments.check_every:g}; expected 0 or more')
    if arguments.threads:
        # Before PyTorch is imported, which reads it once.
        os.environ['OMP_NUM_THREADS'] = str(arguments.threads)
    return _train(arguments, [name for name in STAGES if name in stages])


def _train(arguments: argparse.Namespace, stages: list[str]) -> int:
    import torch

    from lingbot_va_ros.sim.gl import NoRenderer
    from lingbot_va_ros.specs.errors import CheckpointError
    from lingbot_va_ros.training.pipeline import TrainingRun
    from lingbot_va_ros.training.process_group import join_process_group
    from lingbot_va_ros.training.settings import load_settings, with_steps

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    try:
        settings = with_steps(load_settings(arguments.config), arguments.steps)
        group = join_process_group(arguments.device)
    except ValueError as error:
        raise _refused(str(error)) from None
    end = None if arguments.minutes is None else time.monotonic() + 60 * arguments.minutes

    def stop() -> bool:
        return interrupts.received() or (end is not None and time.monotonic() > end)

    try:
        with interrupts.deferred(), ProgressDisplay(f'train {settings.name}') as progress:
            def note(figures: dict[str, Any]) -> None:
                if group.is_main:
                    progress.show(**_shown(figures))
                    progress.refresh()

            def say(line: str) -> None:
                if group.is_main:
                    progress.say(line)

            training = TrainingRun(
                arguments.out, settings, group, say, note, stop, arguments.history)
            if arguments.initial is not None and group.is_main:
                training.begin_from(arguments.initial)
            group.barrier()
            done = _run_stages(training, arguments, stages, group, say)
            if arguments.export is not None:
                _export(training, arguments, group, say)
            if not done:
                say('stopped; the same command resumes from here')
    except (ValueError, CheckpointError, NoRenderer) as error:
        raise _refused(str(error)) from None
    except OSError as error:
        raise _refused(
            f'{error.filename or arguments.out}: {error.strerror or error}') from None
    finally:
        group.close()
    return 0


def _run_stages(training, arguments, stages: list[str], group, say) -> bool:
    """Run the stages in order; return False if one was stopped."""
    from lingbot_va_ros.training.pipeline import ClosedLoopCheck

    for name in stages:
        if name != 'network' and not group.is_main:
            continue  # one process is enough; the others wait for it before the network
        say(f'stage {name}')
        if name == 'data':
            done = training.data(arguments.processes)
        elif name == 'network':
            group.barrier()
            check = ClosedLoopCheck(60 * arguments.check_every, arguments.check_episodes)
            done = training.network(check, arguments.half)
        else:
            done = getattr(training, name)()
        if not done:
            return False
    return True


def _export(training, arguments, group, say) -> None:
    trainer = training.trainer(arguments.half)
    weights = trainer.ema_weights()
    if group.is_main:
        size = training.write_checkpoint(
            arguments.export, weights, trainer.step, _command(arguments, trainer.settings))
        say(f'{arguments.export}: step {trainer.step}, {size / 2 ** 20:.1f} MiB')
    group.barrier()


def _command(arguments, settings) -> str:
    """Return the command that reproduces the training on any machine."""
    words = ['lingbot_va', 'train', '--config', Path(arguments.config).stem, '--out', 'FOLDER',
             '--steps', str(settings.training.steps), '--device', arguments.device]
    if arguments.history != 'full':
        words += ['--history', arguments.history]
    if arguments.initial is not None:
        words += ['--initial', arguments.initial.name]
    if arguments.half:
        words.append('--half')
    return shlex.join([*words, '--export', 'CHECKPOINT'])


def _shown(figures: dict[str, Any]) -> dict[str, str]:
    """Return the fields of the progress display for one entry of the log."""
    stage = figures['stage']
    if stage == 'check':
        return {f'{figures["task"]} in closed loop':
                f'{figures["successes"]} of {figures["episodes"]} at step {figures["step"]}'}
    if 'step' not in figures:
        return {}
    of = f' of {figures["steps"]}' if 'steps' in figures else ''
    task = f' ({figures["task"]})' if 'task' in figures else ''
    losses = {name.replace('_', ' '): f'{figures[name]:.4f}' for name in SHOWN if name in figures}
    return {stage: f'step {figures["step"]}{of}{task}', **losses}


def _refused(message: str) -> CommandFailed:
    return CommandFailed(one_line(message), exit_code=2)
