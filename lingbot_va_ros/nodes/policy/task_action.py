"""The action ~/run_task: one episode of one task, followed from goal to result."""

from collections.abc import Awaitable, Callable
from concurrent.futures import Future
import time
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node

from lingbot_va_ros.action import RunTask
from lingbot_va_ros.policy.runtime.inference_thread import Worker
from lingbot_va_ros.policy.runtime.task import Outcome, Task

FEEDBACK_SECONDS = 0.4  # at least, between two that tell of no new chunk


class TaskAction:
    """
    The action server.

    Its callbacks are coroutines of the node's executor; what they wait for is done by the
    inference thread. A goal that comes while another is worked on takes its place.

    :param answer: awaits a future of another thread.
    :param is_active: whether the node is active.
    :param on_instruction: told the instruction when a goal has changed it.
    """

    def __init__(
        self, node: Node, worker: Worker, answer: Callable[[Future], Awaitable[Any]],
        is_active: Callable[[], bool], on_instruction: Callable[[str], None],
        group: CallbackGroup,
    ):
        self._node = node
        self._worker = worker
        self._answer = answer
        self._is_active = is_active
        self._on_instruction = on_instruction
        self._current: tuple[ServerGoalHandle, Task] | None = None
        self._told = (0, 0.0)  # chunks and steady time of the newest feedback
        self._server = ActionServer(
            node, RunTask, '~/run_task', execute_callback=self._execute,
            goal_callback=self._on_goal, cancel_callback=self._on_cancel, callback_group=group)

    def tell(self, memory_frames: int) -> None:
        """Publish feedback if there is a new chunk, or none was published lately."""
        current = self._current
        if current is None:
            return
        handle, task = current
        chunks, now = task.chunks, time.monotonic()
        if chunks == self._told[0] and now < self._told[1] + FEEDBACK_SECONDS:
            return
        self._told = (chunks, now)
        if handle.is_active:
            handle.publish_feedback(RunTask.Feedback(
                chunks=chunks, seconds=task.seconds, memory_frames=memory_frames))

    def _on_goal(self, goal: RunTask.Goal) -> GoalResponse:
        refusal = self._refusal(goal)
        if refusal:
            self._node.get_logger().warning(f'run_task: goal rejected: {refusal}')
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _refusal(self, goal: RunTask.Goal) -> str:
        """Return why a goal cannot be taken, or nothing."""
        if not self._is_active():
            return 'the policy is not active'
        if not goal.instruction and not self._worker.progress.instruction:
            return 'its instruction is empty, and there is none to go on with'
        if not 0.0 <= goal.timeout_seconds < float('inf'):
            return f'timeout_seconds is {goal.timeout_seconds}; expected 0 (no limit) or more'
        return ''

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        current = self._current
        if current is not None and current[0].goal_id == handle.goal_id:
            self._worker.cancel_task(current[1])
        return CancelResponse.ACCEPT

    async def _execute(self, handle: ServerGoalHandle) -> RunTask.Result:
        goal = handle.request
        task = Task(
            goal.instruction, goal.keep_memory, goal.timeout_seconds, goal.max_chunks)
        self._current, self._told = (handle, task), (0, 0.0)
        try:
            await self._answer(self._worker.begin_task(task))
            if handle.is_cancel_requested:  # it came before there was anything to cancel
                self._worker.cancel_task(task)
            if not task.result.done():
                self._on_instruction(task.instruction)
            outcome, message = await self._answer(task.result)
        except ValueError as error:  # deactivated meanwhile
            outcome, message = Outcome.STOPPED, str(error)
        if self._current is not None and self._current[1] is task:
            self._current = None
            self._on_instruction(self._worker.progress.instruction)
        if outcome in (Outcome.TIMEOUT, Outcome.CHUNK_LIMIT):
            handle.succeed()
        elif outcome == Outcome.CANCELED:
            handle.canceled()
        else:
            handle.abort()
        self._node.get_logger().info(f'run_task {outcome.name}: {message}')
        return RunTask.Result(
            outcome=int(outcome), message=message, chunks=task.chunks, seconds=task.seconds)
