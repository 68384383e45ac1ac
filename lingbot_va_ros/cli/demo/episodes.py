"""Run the episodes of the demo over ROS, one after the other, with one set of processes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
import sys
from typing import Any

from rclpy.node import Node

from lingbot_va_ros.cli.common.checkpoint import Checkpoint
from lingbot_va_ros.cli.common.failure import CommandFailed
from lingbot_va_ros.cli.common.operator_client import OperatorClient, START_SECONDS
from lingbot_va_ros.cli.common.processes import NodeProcesses
from lingbot_va_ros.cli.common.progress import ProgressDisplay
from lingbot_va_ros.cli.common.simulated_robot import (
    configure_and_activate,
    CONTROL_RATE,
    EMBODIMENT,
    give_arm_to_policy,
    LATE,
    MODE_CHANGE_SECONDS,
    MUX,
    POLICY,
    reset_scene,
    ros_node,
    start_processes,
)
from lingbot_va_ros.cli.demo.episode import format_counts, OVERVIEW, RecordedEpisode
from lingbot_va_ros.cli.demo.recording import EpisodeRecorder
from lingbot_va_ros.msg import ControlMode, PolicyStatus
from lingbot_va_ros.mux.modes import MuxMode
from lingbot_va_ros.policy.runtime.status import PolicyMode
from lingbot_va_ros.resources import PACKAGE
from lingbot_va_ros.specs.embodiment import load_embodiment
from lingbot_va_ros.srv import ResetMemory

CHUNK_SECONDS = 60.0  # without a new chunk, beyond its length, after which the episode fails
OPERATOR_TOPIC = 'teleop/joint_trajectory'
READ_SECONDS = 600.0  # for a full-size text encoder from a slow disk
MAX_HOLDS = 20  # of the mux in one episode after which the policy gets the arm again
# s: timeout of cameras and joint states, longer than for a real arm: the simulated arm cannot do
# harm, and the load of this machine may delay messages.
PATIENCE = 1.0
PATIENT_ERROR = 0.7  # rad; a late joint state is behind by the motion since then
FORGIVEN = (*LATE, 'following error')
OVERVIEW_RATE = 10.0  # Hz, as the video


@dataclass(frozen=True)
class EpisodeSpec:
    """
    Specification of an episode.

    :param task: name of the scene.
    :param seed: random seed of the scene.
    :param instruction: instruction to the policy.
    :param chunks: number of chunks after which the episode ends.
    :param takeover: whether a scripted operator takes over.
    """

    task: str
    seed: int
    instruction: str
    chunks: int
    takeover: bool = False


def run_episodes(
    plans: Sequence[EpisodeSpec], checkpoint: Checkpoint, robot: dict[str, Any],
    processes: NodeProcesses, progress: ProgressDisplay, speed: float = 1.0,
) -> tuple[list[RecordedEpisode], list[str]]:
    """
    Start the three processes, run the episodes, and return them with warnings.

    No episode is run after one that ended early.

    :param robot: further parameters of sim_robot.
    :param speed: the speed scale, above 0 and at most 1.
    :raises CommandFailed: a process fails, or something is not ready in time.
    """
    cameras = {
        OVERVIEW: f'camera/{OVERVIEW}/image_raw',
        **{name: source.topic for name, source in load_embodiment(EMBODIMENT).cameras.items()}}
    progress.show(phase='starting sim_robot, command_mux and policy_node')
    progress.refresh(now=True)
    policy = start_processes(
        processes, checkpoint, {
            'publish_predicted_video': True, 'max_camera_age': PATIENCE,
            'max_joint_age': PATIENCE},
        {'task': plans[0].task, 'seed': plans[0].seed, 'overview_rate': OVERVIEW_RATE, **robot},
        {'source_timeout': PATIENCE, 'joint_state_timeout': PATIENCE,
         'max_following_error': PATIENT_ERROR, 'max_tracking_delay': PATIENCE,
         'speed_scale': speed})
    episodes: list[RecordedEpisode] = []
    with ros_node('lingbot_va_demo') as (node, executor):
        recorder = EpisodeRecorder(node, cameras)
        shown = _EpisodeProgress(recorder, progress)

        def watch() -> None:
            processes.check()
            shown.update()

        operator = OperatorClient(node, executor, watch)
        operator.wait_until(
            lambda: recorder.joints and recorder.cameras_heard == len(cameras),
            START_SECONDS, 'joint states and images of sim_robot')
        progress.show(phase='configuring')
        operator.wait_until(lambda: recorder.status, START_SECONDS, 'the status of policy_node')
        configure_and_activate(operator, policy)
        for plan in plans:
            if plan.takeover:
                _start_scripted_operator(plan, processes, operator, node)
        for number, plan in enumerate(plans, 1):
            progress.show(
                episode=f'{number}/{len(plans)} {plan.task}, seed {plan.seed}: '
                f'"{plan.instruction}"')
            _begin_episode(plan, operator, recorder, progress)
            shown.begin(plan.chunks)
            progress.show(phase='running')
            patience = CHUNK_SECONDS + checkpoint.chunk_seconds / speed
            episodes.append(_run(plan, operator, recorder, progress, patience))
            if episodes[-1].stopped_by:
                return episodes, []
        progress.show(phase='stopping')
        if operator.deactivate_and_clean_up(POLICY):
            return episodes, []
    return episodes, ['policy_node refused to be deactivated and cleaned up']


def _start_scripted_operator(
    plan: EpisodeSpec, processes: NodeProcesses, operator: OperatorClient, node: Node,
) -> None:
    """Start the process of the scripted operator, and wait until it is ready."""
    processes.start('scripted_operator', [
        sys.executable, '-m', f'{PACKAGE}.cli.demo.scripted_operator_node',
        '--seed', str(plan.seed)])
    operator.wait_until(
        lambda: node.count_publishers(OPERATOR_TOPIC), START_SECONDS,
        'the scripted operator to be ready')


def _begin_episode(
    plan: EpisodeSpec, operator: OperatorClient, recorder: EpisodeRecorder,
    progress: ProgressDisplay,
) -> None:
    """Reset the scene, move the arm home, and give the policy its instruction, memory empty."""
    progress.show(phase='resetting the scene')
    operator.set_mode(MUX, ControlMode.HOLD, MODE_CHANGE_SECONDS)
    reset_scene(operator, lambda: (recorder.task_states, recorder.joints), task=plan.task,
            seed=plan.seed)
    answer = operator.call(
        ResetMemory, f'{POLICY}/reset_memory', ResetMemory.Request(instruction=plan.instruction),
        READ_SECONDS)
    if not answer.success:
        raise CommandFailed(f'{POLICY}/reset_memory fails: {answer.message}')
    recorder.begin_episode(answer.epoch)


def _run(
    plan: EpisodeSpec, operator: OperatorClient, recorder: EpisodeRecorder,
    progress: ProgressDisplay, patience: float,
) -> RecordedEpisode:
    """Give the arm to the policy until the task is done or the chunk limit is reached."""
    give_arm_to_policy(operator, lambda: recorder.mode)
    start = recorder.now()
    holds, stopped_by = _execute(plan, operator, recorder, progress, patience)
    end = recorder.now()
    state = recorder.task_state
    if not stopped_by:
        operator.set_mode(MUX, ControlMode.HOLD)
        progress.show(counts=f'{_words(state)}{state.get("detail", "")}')
    return replace(
        recorder.episode(start, end, 1.0 / CONTROL_RATE, holds, stopped_by),
        seed=plan.seed, chunk_limit=plan.chunks, takeover=plan.takeover)


def _execute(
    plan: EpisodeSpec, operator: OperatorClient, recorder: EpisodeRecorder,
    progress: ProgressDisplay, patience: float,
) -> tuple[list[str], str]:
    """
    Wait until the episode is over.

    If the mux holds because a message came too late, as on a busy machine, the arm is given to the
    policy again, at most MAX_HOLDS times; the policy continues with its memory. Any other hold
    ends the episode.

    :param patience: seconds without a new chunk after which the episode fails.
    :returns: the reasons of the holds, and why the episode ended early (or an empty string).
    """
    holds: list[str] = []
    newest = (0, recorder.now())

    def over() -> bool:
        return bool(recorder.task_state.get('done')) or (
            len(recorder.chunks) >= plan.chunks
            and recorder.now() > recorder.chunk_end(plan.chunks - 1))

    def taken_away() -> bool:
        return recorder.mode.mode != ControlMode.POLICY and not (
            plan.takeover and recorder.mode.mode == ControlMode.TELEOP)

    def stuck() -> str:
        nonlocal newest
        status = recorder.status
        if status.mode == PolicyStatus.FAULT:
            return f'policy_node failed: {status.reason}'
        if len(recorder.chunks) != newest[0]:
            newest = (len(recorder.chunks), recorder.now())
        if recorder.now() - newest[1] > patience:
            return (f'no chunk for {patience:g} s; policy_node is '
                    f'{PolicyMode(status.mode).name}: {status.reason}')
        return ''

    while True:
        operator.wait_until(
            lambda: over() or taken_away() or stuck(), (plan.chunks + 1) * patience,
            'the chunks')
        if over():
            return holds, ''
        if stuck():
            return holds, stuck()
        mode, reason = MuxMode(recorder.mode.mode), recorder.mode.reason
        if (mode != MuxMode.HOLD or len(holds) == MAX_HOLDS
                or not any(words in reason for words in FORGIVEN)):
            return holds, f'{MUX} went to {mode.name}: {reason}'
        holds.append(reason)
        progress.say(f'{MUX} went to HOLD: {reason}; giving the arm to the policy again')
        give_arm_to_policy(operator, lambda: recorder.mode)


def _words(state: dict[str, Any]) -> str:
    return f'{format_counts(state["counts"])}; ' if state.get('counts') else ''


class _EpisodeProgress:
    """Shows the newest messages about policy and arm in the progress display."""

    def __init__(self, recorder: EpisodeRecorder, progress: ProgressDisplay):
        self._recorder = recorder
        self._progress = progress
        self._chunks: int | None = None
        self._seen: tuple = ()

    def begin(self, chunks: int) -> None:
        """Begin an episode with this limit of chunks."""
        self._chunks = chunks

    def update(self) -> None:
        """Show new messages, and draw."""
        recorder = self._recorder
        counts = format_counts(recorder.task_state.get('counts', {}))
        seen = (recorder.status, recorder.mode, len(recorder.chunks), counts)
        if seen != self._seen:
            self._seen = seen
            self._show(*seen)
        self._progress.refresh()

    def _show(self, status, mode, chunks: int, counts: str) -> None:
        fields = {}
        if status is not None:
            name = PolicyMode(status.mode).name
            fields['policy'] = f'{name}: {status.reason}' if status.reason else name
        if mode is not None:
            fields['arm'] = MuxMode(mode.mode).name
        if chunks and self._chunks:
            fields['chunk'] = f'{chunks}/{self._chunks}'
            fields['latency'] = f'{self._recorder.chunks[-1].inference_seconds:.3f} s'
        if counts and self._chunks:
            fields['counts'] = counts
        self._progress.show(**fields)
