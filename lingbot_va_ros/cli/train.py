"""
Train a small LingBot-VA from nothing: data, video codec, transformer, and a checkpoint folder.

Everything of a run lies in one folder, and the same command goes on where it was stopped: Ctrl-C,
SIGTERM and --minutes save and end. Stages, in order: data (record the scripted experts), encoder
(of the video codec), latents (encode the recordings once), network (the transformer), decoder (of
the codec, for imagined video).

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
from lingbot_va_ros.cli.common.progress import Progress

STAGES = ('data', 'encoder', 'latents', 'network', 'decoder')
HISTORIES = ('full', 'last_chunk')
SHOWN = ('total', 'dynamics', 'forward_dynamics', 'inverse', 'events', 'picture', 'places',
         'seconds_per_step')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `lingbot_va train`."""
    parser.add_argument(
        '--config', default='tiny', metavar='NAME',
        help='settings file: a name in config/training or a path (tiny)')
    parser.add_argument(
        '--out', type=Path, required=True, metavar='FOLDER', help='of the run; is made')
    parser.add_argument(
        '--stages', default=','.join(STAGES), metavar='A,B',
        help=f'only these of {", ".join(STAGES)}')
    parser.add_argument(
        '--minutes', type=float, metavar='M', help='save and end after so long (no limit)')
    parser.add_argument(
        '--steps', type=int, metavar='N', help="of the transformer, instead of the settings' own")
    parser.add_argument(
        '--initial', type=Path, metavar='CHECKPOINT',
        help='begin with its codec, text encoder and weights, of the sizes of the settings')
    parser.add_argument(
        '--history', choices=HISTORIES, default='full',
        help='what a chunk is predicted from; last_chunk trains the baseline without memory')
    parser.add_argument('--device', default='cpu', help='cpu, cuda or cuda:<number> (cpu)')
    parser.add_argument(
        '--half', action='store_true',
        help='matrix products in bfloat16 (CUDA, and CPUs that compute in it: AVX512-BF16)')
    parser.add_argument(
        '--processes', type=int, default=1, metavar='N', help='that record data (1)')
    parser.add_argument(
        '--threads', type=int, metavar='N', help='of PyTorch on the CPU (as many as cores)')
    parser.add_argument(
        '--check-every', type=float, default=0.0, metavar='M',
        help='minutes between two tries in closed loop while the transformer trains (0: never)')
    parser.add_argument(
        '--check-episodes', type=int, default=4, metavar='N', help='of each task in a try (4)')
    parser.add_argument(
        '--export', type=Path, metavar='FOLDER',
        help='write a checkpoint with the mean weights, at the end or when stopped')


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
    from lingbot_va_ros.training.pipeline import TrainingRun, with_steps
    from lingbot_va_ros.training.process_group import join_world
    from lingbot_va_ros.training.settings import load_settings

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    try:
        settings = with_steps(load_settings(arguments.config), arguments.steps)
        world = join_world(arguments.device)
    except ValueError as error:
        raise _refused(str(error)) from None
    end = None if arguments.minutes is None else time.monotonic() + 60 * arguments.minutes

    def stop() -> bool:
        return interrupts.received() or (end is not None and time.monotonic() > end)

    try:
        with interrupts.deferred(), Progress(f'train {settings.name}') as progress:
            def note(figures: dict[str, Any]) -> None:
                if world.first:
                    progress.show(**_shown(figures))
                    progress.refresh()

            def say(line: str) -> None:
                if world.first:
                    progress.say(line)

            training = TrainingRun(
                arguments.out, settings, world, say, note, stop, arguments.history)
            if arguments.initial is not None and world.first:
                training.begin_from(arguments.initial)
            world.wait()
            done = _run_stages(training, arguments, stages, world, say)
            if arguments.export is not None:
                _export(training, arguments, world, say)
            if not done:
                say('stopped; the same command goes on from here')
    except (ValueError, CheckpointError, NoRenderer) as error:
        raise _refused(str(error)) from None
    except OSError as error:
        raise _refused(
            f'{error.filename or arguments.out}: {error.strerror or error}') from None
    finally:
        world.leave()
    return 0


def _run_stages(training, arguments, stages: list[str], world, say) -> bool:
    """Run the stages in order; false where one was stopped."""
    from lingbot_va_ros.training.pipeline import Watching

    for name in stages:
        if name != 'network' and not world.first:
            continue  # one process is enough; the others meet it in the network
        say(f'stage {name}')
        if name == 'data':
            done = training.data(arguments.processes)
        elif name == 'network':
            world.wait()
            done = training.network(
                Watching(60 * arguments.check_every, arguments.check_episodes), arguments.half)
        else:
            done = getattr(training, name)()
        if not done:
            return False
    return True


def _export(training, arguments, world, say) -> None:
    trainer = training.trainer(arguments.half)
    weights = trainer.mean_weights()
    if world.first:
        size = training.write_checkpoint(
            arguments.export, weights, trainer.step, _command(arguments, trainer.settings))
        say(f'{arguments.export}: step {trainer.step}, {size / 2 ** 20:.1f} MiB')
    world.wait()


def _command(arguments, settings) -> str:
    """Return what trains the same, on any machine; how it was cut into pieces changes nothing."""
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
    """Return the fields of the display for a line of the log."""
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
