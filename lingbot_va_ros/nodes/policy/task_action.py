"""The action ~/run_task: runs one episode of a task."""

import time

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node

from lingbot_va_ros.action import RunTask
from lingbot_va_ros.nodes.policy.answers import answer_of
from lingbot_va_ros.nodes.policy.instruction import Instruction
from lingbot_va_ros.nodes.policy.phase import NodePhase
from lingbot_va_ros.policy.runtime.inference_thread import InferenceThread
from lingbot_va_ros.policy.runtime.task import normalize_instruction, Outcome, Task

FEEDBACK_SECONDS = 0.4  # minimum interval of feedback without a new chunk


class TaskAction:
    """
    The action server.

    Its callbacks are coroutines of the node's executor, which await the inference thread. A new
    goal replaces the running one.

    :param instruction: the node's; its parameter is set to that of the goal.
    """

    def __init__(
        self, node: Node, thread: InferenceThread, phase: NodePhase, instruction: Instruction,
        group: CallbackGroup,
    ):
        self._node = node
        self._thread = thread
        self._phase = phase
        self._instruction = instruction
        self._current: tuple[ServerGoalHandle, Task] | None = None
        self._notified = (0, 0.0)  # chunks and steady time of the newest feedback
        self._server = ActionServer(
            node, RunTask, '~/run_task', execute_callback=self._execute,
            goal_callback=self._on_goal, cancel_callback=self._on_cancel, callback_group=group)

    def notify(self, memory_frames: int) -> None:
        """Publish feedback for a new chunk, and at most every FEEDBACK_SECONDS without one."""
        current = self._current
        if current is None:
            return
        handle, task = current
        chunks, now = task.chunks, time.monotonic()
        if chunks == self._notified[0] and now < self._notified[1] + FEEDBACK_SECONDS:
            return
        self._notified = (chunks, now)
        if handle.is_active:
            handle.publish_feedback(RunTask.Feedback(
                chunks=chunks, seconds=task.seconds, memory_frames=memory_frames))

    def _on_goal(self, goal: RunTask.Goal) -> GoalResponse:
        rejection = self._rejection(goal)
        if rejection:
            self._node.get_logger().warning(f'run_task: goal rejected: {rejection}')
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _rejection(self, goal: RunTask.Goal) -> str:
        """Return the reason why a goal is rejected, or ''."""
        if not self._phase.active:
            return 'the policy is not active'
        if not (normalize_instruction(goal.instruction) or self._instruction.text):
            return 'its instruction is empty, and there is no current one'
        if not 0.0 <= goal.timeout_seconds < float('inf'):
            return f'timeout_seconds is {goal.timeout_seconds}; expected 0 (no limit) or more'
        return ''

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        current = self._current
        if current is not None and current[0].goal_id == handle.goal_id:
            self._cancel(current[1])
        return CancelResponse.ACCEPT

    def _cancel(self, task: Task) -> None:
        self._thread.ask(lambda scheduler: scheduler.cancel_task(task))

    async def _execute(self, handle: ServerGoalHandle) -> RunTask.Result:
        goal = handle.request
        task = Task(
            goal.instruction, goal.keep_memory, goal.timeout_seconds, goal.max_chunks)
        self._current, self._notified = (handle, task), (0, 0.0)
        try:
            await answer_of(self._node, self._thread.begin_task(task))
            if handle.is_cancel_requested:  # requested before the task began
                self._cancel(task)
            self._instruction.sync_parameter()
            outcome, message = await answer_of(self._node, task.result)
        except ValueError as error:  # deactivated in the meantime
            outcome, message = Outcome.STOPPED, str(error)
        if self._current is not None and self._current[1] is task:
            self._current = None
            self._instruction.sync_parameter()
        if outcome in (Outcome.TIMEOUT, Outcome.CHUNK_LIMIT):
            handle.succeed()
        elif outcome == Outcome.CANCELED:
            handle.canceled()
        else:
            handle.abort()
        self._node.get_logger().info(f'run_task {outcome.name}: {message}')
        return RunTask.Result(
            outcome=int(outcome), message=message, chunks=task.chunks, seconds=task.seconds)
