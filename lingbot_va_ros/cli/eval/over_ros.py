"""Run the episodes of a row over ROS: one set of processes, one `run_task` for each episode."""

from collections.abc import Callable, Sequence
from pathlib import Path
import time
from typing import Any

from rclpy.action import ActionClient
from rclpy.executors import Executor
from rclpy.node import Node

from lingbot_va_ros.action import RunTask
from lingbot_va_ros.cli.common.checkpoint import Checkpoint
from lingbot_va_ros.cli.common.failure import CommandFailed
from lingbot_va_ros.cli.common.operator_client import OperatorClient, START_SECONDS
from lingbot_va_ros.cli.common.processes import NodeProcesses
from lingbot_va_ros.cli.common.progress import ProgressDisplay
from lingbot_va_ros.cli.common.simulated_robot import (
    configure_and_activate,
    give_arm_to_policy,
    LATE,
    MODE_CHANGE_SECONDS,
    MUX,
    POLICY,
    reset_scene,
    ros_node,
    start_processes,
)
from lingbot_va_ros.cli.eval.listener import EpisodeListener
from lingbot_va_ros.cli.eval.rows import Condition, EpisodeOutcome
from lingbot_va_ros.evaluation.tasks import chunk_limit_of, instruction_of, midway_of
from lingbot_va_ros.msg import ControlMode, PolicyStatus
from lingbot_va_ros.mux.modes import MuxMode
from lingbot_va_ros.srv import ResetMemory

CHUNK_SECONDS = 30.0  # for a prediction, in addition to the padded latency
MODE_SECONDS = 3.0  # between a goal that ends because the mode changed, and the mux's report
READ_SECONDS = 600.0  # for a full-size text encoder from a slow disk
END_SECONDS = 30.0  # for a goal to end after its cancellation or time limit
MAX_TRIES = 6  # of an episode that the mux aborts because a message came too late
ENDED_BY = {
    RunTask.Result.TIMEOUT: 'time limit', RunTask.Result.CHUNK_LIMIT: 'chunk limit',
    RunTask.Result.CANCELED: 'cancelled'}


def run_row(
    environment: dict[str, str], logs: Path, checkpoint: Checkpoint, condition: Condition,
    seeds: Sequence[int], max_chunks: int, time_limit: float, policy: dict[str, Any],
    progress: ProgressDisplay, each: Callable[[EpisodeOutcome], None], speed: float = 1.0,
) -> list[str]:
    """
    Run one episode for each seed and pass its outcome to `each`.

    :param environment: environment of the processes.
    :param logs: folder for their log files.
    :param max_chunks: 0 for the limit of the task.
    :param time_limit: s, 0 for none.
    :param policy: further parameters of policy_node.
    :param speed: the speed scale, above 0 and at most 1.
    :returns: a line for each process that did not end normally.
    :raises CommandFailed: a process fails, or something is not ready in time.
    """
    sizes = {'camera_width': checkpoint.policy.width, 'camera_height': checkpoint.policy.height}
    with NodeProcesses(environment, logs) as processes:
        progress.show(phase='starting sim_robot, command_mux and policy_node')
        progress.refresh(now=True)
        node_of_policy = start_processes(
            processes, checkpoint,
            {**policy, 'schedule': condition.schedule,
             'padded_latency': condition.latency_chunks * checkpoint.chunk_seconds,
             'memory_ablation': 'last_chunk' if condition.memory == 'last_chunk' else 'none'},
            {'task': condition.task, 'seed': seeds[0], **sizes}, {'speed_scale': speed})
        with ros_node('lingbot_va_eval') as (node, executor):
            run = _Row(node, executor, checkpoint, condition, processes, progress, speed)
            run.configure_and_activate(node_of_policy)
            for seed in seeds:
                each(run.episode(seed, max_chunks, time_limit))
            run.deactivate_and_clean_up()
        return processes.end()


class _EpisodeAborted(Exception):
    """The mux held the arm during an episode; the message is its reason."""


class _Row:
    """Controls the processes of a row through one episode after the other."""

    def __init__(
        self, node: Node, executor: Executor, checkpoint: Checkpoint, condition: Condition,
        processes: NodeProcesses, progress: ProgressDisplay, speed: float,
    ):
        self._speed = speed
        self._condition = condition
        self._progress = progress
        self._processes = processes
        self._chunk_seconds = checkpoint.chunk_seconds
        self._listener = EpisodeListener(node, checkpoint.policy.action_period)
        self._operator = OperatorClient(node, executor, self._watch)
        self._tasks = ActionClient(node, RunTask, f'{POLICY}/run_task')

    def _watch(self) -> None:
        self._processes.check()
        self._progress.refresh()

    def configure_and_activate(self, policy) -> None:
        """Wait for all nodes, configure and activate the policy."""
        listener = self._listener
        self._operator.wait_until(
            lambda: listener.joints and listener.task_states and listener.status and listener.mode,
            START_SECONDS, 'sim_robot, command_mux and policy_node')
        self._progress.show(phase='configuring')
        configure_and_activate(self._operator, policy)
        self._operator.wait_until(
            self._tasks.server_is_ready, START_SECONDS, f'the action {POLICY}/run_task')
        self._encode_instruction()

    def _encode_instruction(self) -> None:
        """
        Send a goal once while the arm is held, and cancel it.

        Encoding a new instruction may load a text encoder, which delays the policy's messages.
        """
        words = instruction_of(self._condition.task)
        goal = self._ask(0.0, 0)
        result = goal.get_result_async()
        self._operator.wait_until(
            lambda: result.done() or self._listener.status.instruction == words,
            READ_SECONDS, f'{POLICY} to take the instruction')
        self._end(goal, result)

    def _ask(self, time_limit: float, chunks: int):
        """Send a goal and return its handle."""
        asked = self._tasks.send_goal_async(RunTask.Goal(
            instruction=instruction_of(self._condition.task), timeout_seconds=time_limit,
            max_chunks=chunks))
        self._operator.wait_until(asked.done, START_SECONDS, f'an answer of {POLICY}/run_task')
        goal = asked.result()
        if not goal.accepted:
            raise CommandFailed(
                f'{POLICY}/run_task rejects the goal: {self._listener.status.reason}')
        return goal

    def _end(self, goal, result) -> None:
        """Cancel a goal that has not ended by itself, and wait for its result."""
        if not result.done():
            goal.cancel_goal_async()
            self._operator.wait_until(result.done, END_SECONDS, f'the end of {POLICY}/run_task')

    def deactivate_and_clean_up(self) -> None:
        """Hold the arm, deactivate the policy and clean it up."""
        self._operator.set_mode(MUX, ControlMode.HOLD)
        self._operator.deactivate_and_clean_up(POLICY)

    def episode(self, seed: int, max_chunks: int, time_limit: float) -> EpisodeOutcome:
        """Run an episode; repeat it if it was aborted because this machine was late."""
        holds: list[str] = []
        while True:
            self._begin_episode(seed)
            try:
                return self._run(seed, max_chunks, time_limit, holds)
            except _EpisodeAborted as hold:
                holds.append(str(hold))
                self._progress.say(f'seed {seed}: {hold}; the episode is repeated')

    def _begin_episode(self, seed: int) -> None:
        """Reset the scene to a seed, move the arm home, and give it to the policy."""
        operator, listener = self._operator, self._listener
        operator.set_mode(MUX, ControlMode.HOLD, MODE_CHANGE_SECONDS)
        reset_scene(operator, lambda: (listener.task_states, listener.joints), seed=seed)
        give_arm_to_policy(operator, lambda: listener.mode)

    def _run(
        self, seed: int, max_chunks: int, time_limit: float, holds: list[str],
    ) -> EpisodeOutcome:
        operator, listener, condition = self._operator, self._listener, self._condition
        chunks = max_chunks or chunk_limit_of(condition.task, self._chunk_seconds)
        patience = time_limit or chunks * (
            CHUNK_SECONDS + self._chunk_seconds * (1 / self._speed + condition.latency_chunks))
        listener.begin_episode()
        starved = listener.status.starved_ticks
        goal = self._ask(time_limit, chunks)
        began = time.monotonic()
        result = goal.get_result_async()
        reset_at = midway_of(condition.task) if condition.memory == 'reset_midway' else None
        while True:
            operator.wait_until(
                lambda: result.done() or self._task_done() or self._left_policy_mode() or (
                    reset_at and reset_at(self._counts(), listener.chunks_executed())),
                patience + END_SECONDS, 'the end of the episode')
            if result.done() or self._task_done() or self._left_policy_mode():
                break
            reset_at = None
            answer = operator.call(ResetMemory, f'{POLICY}/reset_memory', ResetMemory.Request())
            if not answer.success:
                raise CommandFailed(f'{POLICY}/reset_memory fails: {answer.message}')
        seconds = time.monotonic() - began
        if result.done() and result.result().result.outcome == RunTask.Result.STOPPED:
            heard_by = time.monotonic() + MODE_SECONDS  # the mode may be reported later
            operator.wait_until(
                lambda: self._left_policy_mode() or time.monotonic() > heard_by, 2 * MODE_SECONDS,
                f'the mode of {MUX}')
        done = self._task_done()
        held = '' if not self._left_policy_mode() else ' '.join((
            f'{MUX} went to {MuxMode(listener.mode.mode).name}: {listener.mode.reason}').split())
        self._end(goal, result)
        if listener.status.mode == PolicyStatus.FAULT:
            raise CommandFailed(f'policy_node failed: {listener.status.reason}')
        if held and not done and any(words in held for words in LATE) and (
                len(holds) + 1 < MAX_TRIES):
            raise _EpisodeAborted(held)
        return self._outcome(seed, seconds, done, starved, result.result().result, held, holds)

    def _outcome(
        self, seed: int, seconds: float, done: bool, starved: int, result: RunTask.Result,
        held: str, holds: list[str],
    ) -> EpisodeOutcome:
        listener, state, seams = self._listener, self._listener.task_state, self._listener.seams()
        motion = listener.motion()
        now = listener.status.starved_ticks
        ended_by = 'done' if done else held or ENDED_BY.get(result.outcome, result.message)
        return EpisodeOutcome(
            seed=seed, success=bool(state.get('success')), done=done, counts=self._counts(),
            ended_by=ended_by, chunks=len(listener.chunks), seconds=seconds,
            max_seam_step=seams.step, max_seam_acceleration=seams.acceleration,
            max_step=motion.step, max_acceleration=motion.acceleration,
            starved_ticks=now - starved if now >= starved else now,
            inference_seconds=listener.inference_seconds(), holds=tuple(holds))

    def _counts(self) -> dict[str, Any]:
        return self._listener.task_state.get('counts', {})

    def _task_done(self) -> bool:
        return bool(self._listener.task_state.get('done'))

    def _left_policy_mode(self) -> bool:
        return self._listener.mode.mode != ControlMode.POLICY
