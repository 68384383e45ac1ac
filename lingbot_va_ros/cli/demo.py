"""
Drive the simulated robot over ROS 2 with a LingBot-VA network.

Starts sim_robot, command_mux and policy_node as three processes, configures and activates the
policy, gives it the arm for a number of chunks, and leaves summary.json, report.png, episode.mp4
and the logs in the output folder.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import List, Tuple

from lingbot_va_ros.cli.checkpoint import Checkpoint, choose_checkpoint
from lingbot_va_ros.cli.episode import Episode, summarise
from lingbot_va_ros.cli.interrupts import INTERRUPTED, signals_interrupt
from lingbot_va_ros.cli.processes import DemoFailed, NodeProcesses, ros_environment
from lingbot_va_ros.cli.progress import Progress
from lingbot_va_ros.cli.recording import Recorder
from lingbot_va_ros.cli.simulated_robot import (
    CONTROL_RATE, EMBODIMENT, MUX, POLICY, bring_up, refuse_company, ros_node, start_processes)
from lingbot_va_ros.cli.steering import START_SECONDS, Operator
from lingbot_va_ros.msg import ControlMode, PolicyStatus
from lingbot_va_ros.policy.progress import Mode as PolicyMode
from lingbot_va_ros.robot.embodiment import load_embodiment
from lingbot_va_ros.robot.mode import Mode as ArmMode

INSTRUCTION = 'put the cube on the brick'
HAND_OVER_SECONDS = 15.0
CHUNK_SECONDS = 60.0  # without a new chunk for so long, the policy counts as stuck
MAX_HOLDS = 3  # of the mux in one episode that are forgiven
LATE = ('silent for', 'too old')  # what the mux says where a message came too late


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the demo."""
    parser.add_argument(
        '--chunks', type=_count, default=12, metavar='N',
        help='action chunks to execute (default: %(default)s)')
    parser.add_argument(
        '--checkpoint', type=Path, metavar='FOLDER',
        help='checkpoint folder in the public layout with a policy.yaml (default: an untrained '
             'one, which is made once)')
    parser.add_argument(
        '--instruction', default=INSTRUCTION, metavar='TEXT',
        help='the task in words (default: "%(default)s")')
    parser.add_argument(
        '--output', type=Path, default=Path('demo_output'), metavar='FOLDER',
        help='where the results go (default: %(default)s)')


def run(arguments: argparse.Namespace) -> int:
    """Run the demo and return the exit code: 0, 1 after a failure, 130 after Ctrl-C."""
    with signals_interrupt():
        try:
            return _run(arguments)
        except DemoFailed as failure:
            print(f'demo failed: {failure}', file=sys.stderr)
            if failure.log is not None:
                print(f'the end of {failure.log}:', file=sys.stderr)
                for line in failure.last_lines:
                    print(f'  {line}', file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print('interrupted; all processes have been ended', file=sys.stderr)
            return INTERRUPTED


def _run(arguments: argparse.Namespace) -> int:
    output, logs = arguments.output, arguments.output / 'logs'
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DemoFailed(f'the output folder cannot be made: {error}') from error
    shared_domain = bool(os.environ.get('ROS_DOMAIN_ID'))
    environment = ros_environment(logs)
    checkpoint = choose_checkpoint(
        arguments.checkpoint, output / 'untrained', environment, print, shipped=False)
    os.environ.update(environment)  # this process takes part
    title = 'lingbot_va demo' + ('' if checkpoint.trained else ' · UNTRAINED network')
    with Progress(title) as progress:
        if shared_domain:
            refuse_company(progress)
        with NodeProcesses(environment, logs) as processes:
            episode, lines = _drive(arguments, checkpoint, processes, progress)
            lines += processes.end()
        progress.show(phase='drawing the report and the video')
        progress.refresh(now=True)
        summary = _write_results(output, episode, checkpoint)
    for line in lines:
        print(f'warning: {line}')
    print('\n'.join(_closing_lines(output, summary, checkpoint)))
    if episode.stopped_by:
        raise DemoFailed(f'the episode ended early: {episode.stopped_by}')
    return 0


def _drive(
    arguments: argparse.Namespace, checkpoint: Checkpoint, processes: NodeProcesses,
    progress: Progress,
) -> Tuple[Episode, List[str]]:
    """Start the three processes, run one episode, and return it with what went wrong after it."""
    embodiment = load_embodiment(EMBODIMENT)
    progress.show(phase='starting sim_robot, command_mux and policy_node')
    progress.refresh(now=True)
    policy = start_processes(processes, checkpoint, {
        'instruction': arguments.instruction, 'publish_predicted_video': True})
    with ros_node('lingbot_va_demo') as (node, executor):
        cameras = {name: source.topic for name, source in embodiment.cameras.items()}
        recorder = Recorder(node, cameras)
        shown = _Shown(recorder, progress, arguments.chunks)

        def watch() -> None:
            processes.check()
            shown.update()

        operator = Operator(node, executor, watch)
        operator.wait_until(
            lambda: recorder.joint_states_heard and recorder.cameras_heard == len(cameras),
            START_SECONDS, 'joint states and images of sim_robot')
        progress.show(phase='configuring')
        operator.wait_until(lambda: recorder.status, START_SECONDS, 'the status of policy_node')
        bring_up(operator, policy)
        progress.show(phase='handing over the arm')
        _hand_over(operator, recorder)
        start = recorder.now()
        progress.show(phase='running', episode=f'1/1 "{arguments.instruction}"')
        holds, stopped_by = _execute(operator, recorder, arguments.chunks, progress)
        end = recorder.now()
        progress.show(phase='stopping')
        lines = []
        if not stopped_by:
            operator.choose_mode(MUX, ControlMode.HOLD)
            if not operator.put_away(POLICY):
                lines.append('policy_node refused to be deactivated and cleaned up')
        episode = recorder.episode(start, end, 1.0 / CONTROL_RATE, holds, stopped_by)
    return episode, lines


def _hand_over(operator: Operator, recorder: Recorder) -> None:
    operator.choose_mode(MUX, ControlMode.POLICY, HAND_OVER_SECONDS)
    operator.wait_until(
        lambda: recorder.mode and recorder.mode.mode == ControlMode.POLICY, 5.0,
        f'{MUX} to report the mode that it is in')


def _execute(
    operator: Operator, recorder: Recorder, chunks: int, progress: Progress,
) -> Tuple[List[str], str]:
    """
    Wait until so many chunks have been executed.

    Where the mux holds the arm because something came too late, as on a busy machine, it is handed
    over again, as an operator would, but not for ever. Any other hold ends the episode.

    :returns: why the mux held in between, and why the episode ended early (or nothing).
    """
    holds: List[str] = []
    newest = (0, recorder.now())

    def executed() -> bool:
        return (len(recorder.chunks) >= chunks
                and recorder.now() > recorder.chunk_end(chunks - 1))

    def taken_away() -> bool:
        return recorder.mode.mode != ControlMode.POLICY

    def stuck() -> str:
        nonlocal newest
        status = recorder.status
        if status.mode == PolicyStatus.FAULT:
            return f'policy_node failed: {status.reason}'
        if len(recorder.chunks) != newest[0]:
            newest = (len(recorder.chunks), recorder.now())
        if recorder.now() - newest[1] > CHUNK_SECONDS:
            return (f'no chunk for {CHUNK_SECONDS:g} s; policy_node is '
                    f'{PolicyMode(status.mode).name}: {status.reason}')
        return ''

    while True:
        operator.wait_until(
            lambda: executed() or taken_away() or stuck(), (chunks + 1) * CHUNK_SECONDS,
            'the chunks')
        if executed():
            return holds, ''
        if stuck():
            return holds, stuck()
        mode, reason = ArmMode(recorder.mode.mode), recorder.mode.reason
        if (mode != ArmMode.HOLD or len(holds) == MAX_HOLDS
                or not any(words in reason for words in LATE)):
            return holds, f'{MUX} went to {mode.name}: {reason}'
        holds.append(reason)
        progress.say(f'{MUX} went to HOLD: {reason}; handing the arm over again')
        _hand_over(operator, recorder)


class _Shown:
    """What the progress display says about the policy and the arm, from the newest messages."""

    def __init__(self, recorder: Recorder, progress: Progress, chunks: int):
        self._recorder = recorder
        self._progress = progress
        self._chunks = chunks
        self._seen: Tuple = ()

    def update(self) -> None:
        """Show what is new, and draw."""
        recorder = self._recorder
        seen = (recorder.status, recorder.mode, len(recorder.chunks))
        if seen != self._seen:
            self._seen = seen
            self._show(*seen)
        self._progress.refresh()

    def _show(self, status, mode, chunks: int) -> None:
        fields = {}
        if status is not None:
            name = PolicyMode(status.mode).name
            fields['policy'] = f'{name}: {status.reason}' if status.reason else name
        if mode is not None:
            fields['arm'] = ArmMode(mode.mode).name
        if chunks:
            newest = self._recorder.chunks[-1]
            fields['chunk'] = f'{chunks}/{self._chunks}'
            fields['latency'] = f'{newest.inference_seconds:.3f} s'
        self._progress.show(**fields)


def _write_results(output: Path, episode: Episode, checkpoint: Checkpoint) -> dict:
    # matplotlib and PyAV take a second to import: not while the policy needs the processor
    from lingbot_va_ros.cli.report import write_report
    from lingbot_va_ros.cli.video import write_video
    summary = summarise(episode, str(checkpoint.folder), checkpoint.trained)
    write_report(output / 'report.png', episode, checkpoint.label)
    write_video(output / 'episode.mp4', episode, checkpoint.trained)
    (output / 'summary.json').write_text(json.dumps(summary, indent=2) + '\n')
    return summary


def _closing_lines(output: Path, summary: dict, checkpoint: Checkpoint) -> List[str]:
    """Return the few lines that end the demo."""
    def figure(value, unit: str, digits: int) -> str:
        return 'unknown' if value is None else f'{value:.{digits}f} {unit}'

    episode, jitter = summary['episodes'][0], summary['publish_jitter_ms']
    network = 'a trained network' if checkpoint.trained else (
        'an UNTRAINED network: its actions mean nothing')
    files = ', '.join(('summary.json', 'report.png', 'episode.mp4'))
    return [
        f'{episode["chunks"]} chunks in {episode["seconds"]:.1f} s from {network}',
        f'task {episode["task"]}: {"success" if episode["success"] else "no success"} '
        f'({episode["detail"]})',
        f'inference  p50 {figure(summary["inference_p50"], "s", 3)}, '
        f'p95 {figure(summary["inference_p95"], "s", 3)}; starved ticks '
        f'{summary["starved_ticks"]}',
        f'jitter     p50 {figure(jitter["p50"], "ms", 2)}, p99 {figure(jitter["p99"], "ms", 2)} '
        f'at {CONTROL_RATE:g} Hz; the arm was held {len(summary["holds"])} times in between',
        f'wrote      {output}/: {files}, logs/']


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number from 1')
    return int(text)
