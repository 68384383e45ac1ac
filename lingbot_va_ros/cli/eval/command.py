"""
Measure success rate, episode time and smoothness of a checkpoint on the simulated tasks.

Runs episodes with consecutive seeds for every combination of task, schedule, memory and latency,
one row each. Episodes run over ROS 2 in real time, with sim_robot, command_mux and policy_node as
separate processes, or with --in-process in virtual time within this process. The columns are
explained in docs/reference/eval.md.
"""

import argparse
from collections.abc import Callable, Sequence
import json
import os
from pathlib import Path
from typing import Any

from rich.console import Console

from lingbot_va_ros.atomic_files import check_writable, write_text
from lingbot_va_ros.cli.common.checkpoint import Checkpoint, choose_checkpoint
from lingbot_va_ros.cli.common.engine_options import add_checkpoint_argument, add_device_arguments
from lingbot_va_ros.cli.common.processes import ros_environment
from lingbot_va_ros.cli.common.progress import ProgressDisplay
from lingbot_va_ros.cli.common.sampling_options import number
from lingbot_va_ros.cli.eval.rows import Condition, conditions_of, EpisodeOutcome, row_of, table_of
from lingbot_va_ros.evaluation.tasks import MEMORIES
from lingbot_va_ros.mux.speed_scale import LEAST_SCALE
from lingbot_va_ros.policy.runtime.schedules import SCHEDULES, SYNC

TASKS = ('wipe_plate', 'open_boxes')  # default
PICTURES = ('.png', '.pdf', '.svg')
LARGEST_SEED = 2 ** 31 - 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the evaluation."""
    parser.add_argument(
        '--task', type=_words, action='append', metavar='TASK', help='one task, or several '
        f'with commas; repeatable (default: {",".join(TASKS)})')
    parser.add_argument(
        '--episodes', type=number(int, 1), default=20, metavar='N',
        help='episodes per row (default: %(default)s)')
    parser.add_argument(
        '--seed', type=number(int, 0, LARGEST_SEED), default=0, metavar='N',
        help='random seed of the first scene; each further episode takes the next seed '
             '(default: %(default)s)')
    for name, known in (('--schedule', tuple(SCHEDULES)), ('--memory', MEMORIES)):
        parser.add_argument(
            name, type=_some_of(known), action='append', metavar='NAME',
            help=f'{", ".join(known)}: one, or several with commas; repeatable '
                 f'(default: {known[0]})')
    parser.add_argument(
        '--latency-chunks', type=_latencies, nargs='+', action='extend', metavar='L',
        help='inference latencies to which predictions are padded, in chunk lengths '
             '(default: 0)')
    parser.add_argument(
        '--max-chunks', type=number(int, 1), default=0, metavar='N',
        help='chunks after which an episode ends (default: the limit of the task, at least twice '
             'the time of the scripted expert)')
    parser.add_argument(
        '--time-limit', type=number(float, 0.1), default=0.0, metavar='S',
        help='seconds after which an episode ends, waiting included (default: no limit)')
    parser.add_argument(
        '--speed', type=number(float, LEAST_SCALE, 1.0), default=1.0, metavar='S',
        help='speed scale of the whole path (default: %(default)g, full speed)')
    parser.add_argument(
        '--in-process', action='store_true', help='run without ROS, in virtual time')
    add_checkpoint_argument(
        parser, 'checkpoint folder in the public layout with a policy.yaml (default: the shipped '
        'one, else an untrained one)')
    add_device_arguments(parser)
    parser.add_argument(
        '--noise-seed', type=number(int, 0, LARGEST_SEED), default=0, metavar='N',
        help='random seed of the initial noise of predictions (default: %(default)s)')
    parser.add_argument(
        '--json', type=Path, metavar='FILE', help='write the rows to this file, after every row')
    parser.add_argument(
        '--plot', type=_picture, metavar='FILE',
        help='plot the rows over the latency (.png, .pdf or .svg)')
    parser.add_argument(
        '--output', type=Path, default=Path('eval_output'), metavar='FOLDER',
        help='folder for logs and an untrained checkpoint (default: %(default)s)')


def run(arguments: argparse.Namespace) -> int:
    """
    Run the evaluation and print its rows, after a failure or an interrupt as well.

    :raises CommandFailed: a process fails.
    :raises ValueError: an option cannot be used.
    """
    rows: list[dict[str, Any]] = []
    try:
        _run(arguments, rows)
    finally:
        if rows:
            _console().print(table_of(rows))
    return 0


def _console() -> Console:
    """Return a console that is wide enough for the table if the output is a file."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=180)


def _run(arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    conditions = conditions_of(
        _known_tasks(arguments.task), _once(arguments.schedule or [[SYNC.name]]),
        _once(arguments.memory or [MEMORIES[:1]]),
        sorted(_once(arguments.latency_chunks or [(0.0,)])))
    seeds = _seeds(arguments)
    for path in filter(None, (arguments.json, arguments.plot)):
        check_writable(path.expanduser())
    logs = arguments.output / 'logs'
    logs.mkdir(parents=True, exist_ok=True)
    shared_domain = bool(os.environ.get('ROS_DOMAIN_ID'))
    environment = ros_environment(logs)
    checkpoint = choose_checkpoint(
        arguments.checkpoint, arguments.output / 'untrained', environment, print)
    title = 'lingbot_va eval' + ('' if checkpoint.trained else ' · UNTRAINED network')
    with ProgressDisplay(title) as progress:
        progress.show(checkpoint=checkpoint.label)
        if not arguments.in_process:
            os.environ.update(environment)  # this process is a node too
        run_row, chunk_seconds = _runner(arguments, checkpoint, environment, progress)
        if not arguments.in_process and shared_domain:
            from lingbot_va_ros.cli.common.simulated_robot import require_no_robot
            require_no_robot(progress)
        for place, condition in enumerate(conditions):
            outcomes: list[EpisodeOutcome] = []
            progress.show(row=f'{place + 1}/{len(conditions)}: {condition.words}')
            try:
                run_row(condition, seeds, _outcome_reporter(progress, outcomes, len(seeds)))
            finally:
                if outcomes:  # completed episodes count after a failure too
                    row = row_of(condition, outcomes, chunk_seconds, arguments.in_process)
                    rows.append({**row, 'speed': arguments.speed})
                    _write(arguments, rows, checkpoint)


def _outcome_reporter(
    progress: ProgressDisplay, outcomes: list[EpisodeOutcome], count: int,
) -> Callable[[EpisodeOutcome], None]:
    def tell(outcome: EpisodeOutcome) -> None:
        outcomes.append(outcome)
        counts = ', '.join(f'{name} {value}' for name, value in outcome.counts.items())
        progress.show(episode=(
            f'{len(outcomes)}/{count}, seed {outcome.seed}: '
            f'{"success" if outcome.success else "no success"}'
            f'{f" ({counts})" if counts else ""}, {outcome.ended_by} after {outcome.chunks} '
            f'chunks and {outcome.seconds:.1f} s'))
        progress.refresh(now=True)
    return tell


def _runner(
    arguments: argparse.Namespace, checkpoint: Checkpoint, environment: dict[str, str],
    progress: ProgressDisplay,
) -> tuple[Callable, float]:
    """Return the function that runs a row, and the length of a chunk in s."""
    if arguments.in_process:
        return _in_process(arguments, checkpoint, progress)
    from lingbot_va_ros.cli.eval import over_ros  # rclpy: only where it is needed

    def run_row(condition: Condition, seeds: Sequence[int], each) -> None:
        logs = arguments.output / 'logs' / '-'.join((
            condition.task, condition.schedule, condition.memory,
            f'{condition.latency_chunks:g}'))
        for line in over_ros.run_row(
                environment, logs, checkpoint, condition, seeds, arguments.max_chunks,
                arguments.time_limit,
                {'device': arguments.device, 'dtype': arguments.dtype,
                 'weights': arguments.weights, 'seed': arguments.noise_seed}, progress, each,
                arguments.speed):
            progress.say(f'warning: {line}')
    return run_row, checkpoint.chunk_seconds


def _in_process(
    arguments: argparse.Namespace, checkpoint: Checkpoint, progress: ProgressDisplay,
) -> tuple[Callable, float]:
    from lingbot_va_ros.cli.eval import in_process  # torch: only where it is needed

    def show(line: str) -> None:
        progress.show(phase=line)
        progress.refresh(now=True)

    engine = in_process.load(
        checkpoint, arguments.device, arguments.noise_seed, show, arguments.dtype,
        arguments.weights)

    def run_row(condition: Condition, seeds: Sequence[int], each) -> None:
        in_process.run_row(
            engine, condition, seeds, arguments.max_chunks, arguments.time_limit, each,
            arguments.speed)
    return run_row, checkpoint.chunk_seconds


def _write(
    arguments: argparse.Namespace, rows: Sequence[dict[str, Any]], checkpoint: Checkpoint,
) -> None:
    if arguments.json:
        write_text(arguments.json.expanduser(), json.dumps({
            'rows': rows, 'checkpoint': str(checkpoint.folder),
            'trained': checkpoint.trained}, indent=2) + '\n')
    if arguments.plot:
        from lingbot_va_ros.cli.eval.plot import write_plot  # matplotlib takes a second
        write_plot(arguments.plot.expanduser(), rows, checkpoint.label)


def _seeds(arguments: argparse.Namespace) -> range:
    """
    Return the seeds of the episodes.

    :raises ValueError: the last one is larger than sim_robot accepts.
    """
    last = arguments.seed + arguments.episodes - 1
    if last > LARGEST_SEED:
        raise ValueError(
            f'--seed {arguments.seed}: with {arguments.episodes} episodes the last seed is '
            f'{last}, more than {LARGEST_SEED}')
    return range(arguments.seed, last + 1)


def _known_tasks(asked) -> list[str]:
    """
    Return the tasks to evaluate, each once, in the order of the options.

    :raises ValueError: a task is unknown; the message names those that exist.
    """
    from lingbot_va_ros.sim.scenes import SCENES  # MuJoCo
    tasks = _once(asked or [TASKS])
    for task in tasks or ['']:
        if task not in SCENES:
            raise ValueError(
                f'--task {task!r} is unknown; expected one or several of {", ".join(SCENES)}')
    return tasks


def _once(groups: Sequence[Sequence]) -> list:
    """Return the values of a repeated option, each once, in order."""
    return list(dict.fromkeys(thing for group in groups for thing in group))


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(',') if word.strip())


def _some_of(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def read(text: str) -> tuple[str, ...]:
        words = _words(text)
        unknown = [word for word in words if word not in known]
        if unknown or not words:
            raise argparse.ArgumentTypeError(
                f'{", ".join(map(repr, unknown)) or repr(text)}: expected one or several of '
                f'{", ".join(known)}')
        return words
    return read


def _latencies(text: str) -> tuple[float, ...]:
    try:
        values = tuple(map(float, _words(text)))
    except ValueError:
        values = ()
    if not values or not all(0 <= value <= 10 for value in values):
        raise argparse.ArgumentTypeError(f'{text!r} is not a number of 0 to 10')
    return values


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in PICTURES:
        raise argparse.ArgumentTypeError(
            f'{text!r} does not end in {", ".join(PICTURES[:-1])} or {PICTURES[-1]}')
    return path
