"""
Drive the simulated robot over ROS 2 in real time with a LingBot-VA network.

Starts sim_robot, command_mux and policy_node as three processes and runs one episode of each task.
Prints the result of each episode, and writes summary.json, report.png, episode.mp4 and the logs to
the output folder. A trained checkpoint runs the two tasks that need memory. An untrained
checkpoint runs a scene without a goal.
"""

import argparse
from collections.abc import Sequence
import json
import os
from pathlib import Path

from lingbot_va_ros.atomic_files import atomic_files
from lingbot_va_ros.cli.common.checkpoint import Checkpoint, choose_checkpoint
from lingbot_va_ros.cli.common.engine_options import add_checkpoint_argument
from lingbot_va_ros.cli.common.failure import CommandFailed
from lingbot_va_ros.cli.common.processes import NodeProcesses, ros_environment
from lingbot_va_ros.cli.common.progress import ProgressDisplay
from lingbot_va_ros.cli.common.sampling_options import number
from lingbot_va_ros.cli.common.simulated_robot import CONTROL_RATE, require_no_robot
from lingbot_va_ros.cli.demo.episode import RecordedEpisode, summarize
from lingbot_va_ros.cli.demo.episodes import EpisodeSpec, run_episodes
from lingbot_va_ros.evaluation.tasks import chunk_limit_of, instruction_of, INSTRUCTIONS
from lingbot_va_ros.mux.speed_scale import LEAST_SCALE

TASKS = ('wipe_plate', 'open_boxes')  # default for a trained checkpoint
NO_GOAL = 'table'
TAKEOVER = 'wipe_plate'  # the scripted operator makes one of its strokes
CHUNKS_WITHOUT_GOAL = 12
LARGEST_SEED = 2 ** 31 - 1
RESULTS = ('summary.json', 'report.png', 'episode.mp4')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the demo."""
    parser.add_argument(
        '--task', type=_tasks, metavar='TASK',
        help=f'{", ".join(INSTRUCTIONS)}: one task, or several with commas; one episode each '
             f'(default: {",".join(TASKS)}; untrained checkpoint: {NO_GOAL}, which has no goal)')
    parser.add_argument(
        '--takeover', action='store_true',
        help=f'run {TAKEOVER} only; a scripted operator takes over the arm, makes the third '
             'of the six strokes and gives the arm back')
    parser.add_argument(
        '--seed', type=number(int, 0, LARGEST_SEED), default=0, metavar='N',
        help='random seed of the scene (default: %(default)s)')
    parser.add_argument(
        '--chunks', type=_count, metavar='N',
        help='action chunks after which an unfinished episode ends (default: twice the time of '
             f'the scripted expert; {CHUNKS_WITHOUT_GOAL} for a scene without a goal)')
    parser.add_argument(
        '--speed', type=number(float, LEAST_SCALE, 1.0), default=1.0, metavar='S',
        help='speed scale of the whole path (default: %(default)g, full speed)')
    add_checkpoint_argument(
        parser, 'checkpoint folder in the public layout with a policy.yaml (default: the shipped '
        f'one; for {NO_GOAL} an untrained one, which is created once)')
    parser.add_argument(
        '--instruction', metavar='TEXT',
        help='instruction to the policy (default: that of the task)')
    parser.add_argument(
        '--output', type=Path, default=Path('demo_output'), metavar='FOLDER',
        help='folder for the results (default: %(default)s)')


def run(arguments: argparse.Namespace) -> int:
    """
    Run the demo and write its results.

    :raises CommandFailed: a process fails, or an episode ends early.
    """
    if arguments.takeover and arguments.task not in (None, (TAKEOVER,)):
        raise CommandFailed(
            f'--takeover is only for {TAKEOVER}, not for {", ".join(arguments.task)}')
    output, logs = arguments.output, arguments.output / 'logs'
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandFailed(f'the output folder cannot be created: {error}') from error
    shared_domain = bool(os.environ.get('ROS_DOMAIN_ID'))
    environment = ros_environment(logs)
    checkpoint = choose_checkpoint(
        arguments.checkpoint, output / 'untrained', environment, print,
        shipped=arguments.task != (NO_GOAL,))
    plans = _plans(arguments, checkpoint)
    os.environ.update(environment)  # this process is a node too
    title = 'lingbot_va demo' + ('' if checkpoint.trained else ' · UNTRAINED network')
    with ProgressDisplay(title) as progress:
        progress.show(checkpoint=checkpoint.label)
        if shared_domain:
            require_no_robot(progress)
        with NodeProcesses(environment, logs) as processes:
            episodes, lines = run_episodes(
                plans, checkpoint, _pictures(plans, checkpoint), processes, progress,
                arguments.speed)
            lines += processes.end()
        progress.show(phase='drawing the report and the video')
        progress.refresh(now=True)
        summary = _write_results(output, episodes, checkpoint)
    for line in lines:
        print(f'warning: {line}')
    print('\n'.join(_closing_lines(output, summary, checkpoint)))
    if episodes[-1].stopped_by:
        raise CommandFailed(f'the episode ended early: {episodes[-1].stopped_by}')
    return 0


def _plans(arguments: argparse.Namespace, checkpoint: Checkpoint) -> tuple[EpisodeSpec, ...]:
    tasks = arguments.task or (TASKS if checkpoint.trained else (NO_GOAL,))
    if arguments.takeover:
        tasks = (TAKEOVER,)
    return tuple(
        EpisodeSpec(
            task, arguments.seed, arguments.instruction or instruction_of(task),
            arguments.chunks or (CHUNKS_WITHOUT_GOAL if task == NO_GOAL else chunk_limit_of(
                task, checkpoint.chunk_seconds)), arguments.takeover)
        for task in tasks)


def _pictures(plans: Sequence[EpisodeSpec], checkpoint: Checkpoint) -> dict:
    """Return the parameters of sim_robot for the size of its images."""
    if all(plan.task == NO_GOAL for plan in plans):
        return {}
    # As in training: an image that is rendered larger and scaled down differs.
    return {'camera_width': checkpoint.policy.width, 'camera_height': checkpoint.policy.height}


def _write_results(
    output: Path, episodes: Sequence[RecordedEpisode], checkpoint: Checkpoint,
) -> dict:
    # matplotlib and PyAV take a second to import, which the policy needs while it runs.
    from lingbot_va_ros.cli.demo.report import write_report
    from lingbot_va_ros.cli.demo.video import write_video
    summary = summarize(episodes, str(checkpoint.folder), checkpoint.trained)
    with atomic_files([output / name for name in RESULTS]) as (figures, report, video):
        write_report(report, episodes, checkpoint.label)
        write_video(video, episodes, checkpoint.trained)
        figures.write_text(json.dumps(summary, indent=2) + '\n')
    return summary


def _closing_lines(output: Path, summary: dict, checkpoint: Checkpoint) -> list[str]:
    """Return the summary that is printed at the end."""
    def figure(value, unit: str, digits: int) -> str:
        return 'unknown' if value is None else f'{value:.{digits}f} {unit}'

    jitter = summary['publish_jitter_ms']
    network = 'trained network' if checkpoint.trained else (
        'UNTRAINED network: its actions mean nothing')
    return [
        f'checkpoint {checkpoint.folder.name}: {network}',
        *(f'{episode["task"]}: {"SUCCESS" if episode["success"] else "no success"} '
          f'({episode["detail"]}), {episode["chunks"]} chunks in {episode["seconds"]:.1f} s'
          for episode in summary['episodes']),
        *(line for episode in summary['episodes'] for line in _takeover_lines(episode)),
        f'inference  p50 {figure(summary["inference_p50"], "s", 3)}, '
        f'p95 {figure(summary["inference_p95"], "s", 3)}; starved ticks '
        f'{summary["starved_ticks"]}',
        f'jitter     p50 {figure(jitter["p50"], "ms", 2)}, p99 {figure(jitter["p99"], "ms", 2)} '
        f'at {CONTROL_RATE:g} Hz; holds {len(summary["holds"])}',
        f'wrote      {output}/: {", ".join(RESULTS)}, logs/']


def _takeover_lines(episode: dict) -> list[str]:
    """Return the line about the takeover, or none."""
    if not episode['takeover']:
        return []
    if 'counts_by_person' not in episode:
        return ['takeover   the operator did not control the arm']
    theirs = episode['counts_by_person']
    words = ', '.join(
        f'{name}: {count} by the policy, {theirs[name]} by the operator, '
        f'{episode["counts"][name]} in all'
        for name, count in episode['counts_by_policy'].items())
    return [
        f'takeover   {words}; the operator controlled the arm for '
        f'{episode["seconds_by_person"]:.1f} s']


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number from 1')
    return int(text)


def _tasks(text: str) -> tuple[str, ...]:
    words = tuple(dict.fromkeys(word.strip() for word in text.split(',') if word.strip()))
    unknown = [word for word in words if word not in INSTRUCTIONS]
    if unknown or not words:
        raise argparse.ArgumentTypeError(
            f'{", ".join(map(repr, unknown)) or repr(text)}: expected one or several of '
            f'{", ".join(INSTRUCTIONS)}')
    return words
