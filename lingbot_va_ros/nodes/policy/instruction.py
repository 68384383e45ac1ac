"""The instruction of the node, kept in one place."""

from collections.abc import Callable
from concurrent.futures import Future
import threading
from typing import TypeVar

from rclpy.node import Node
from rclpy.parameter import Parameter

from lingbot_va_ros.policy.runtime.inference_thread import InferenceThread
from lingbot_va_ros.policy.runtime.scheduler import Scheduler
from lingbot_va_ros.policy.runtime.task import normalize_instruction

T = TypeVar('T')


class Instruction:
    """
    The text that parameter, services and status read.

    A text from outside holds from the moment it comes; the inference thread takes it when it can.
    A text that the scheduler sets by itself (a task began or ended, a snapshot was loaded, a text
    could not be encoded) is followed, unless one from outside is still on its way. Blanks and
    newlines alone are an empty instruction.

    :param node: has the parameter `instruction`.
    """

    def __init__(self, node: Node, thread: InferenceThread):
        self._node = node
        self._thread = thread
        self._lock = threading.Lock()
        self._text = normalize_instruction(node.get_parameter('instruction').value)
        self._on_their_way = 0  # texts from outside that the scheduler has not taken yet
        self._setting_parameter = False

    @property
    def text(self) -> str:
        """The current instruction, or that of the next activation."""
        return self._text

    def request(
        self, text: str, work: Callable[[Scheduler, str], T], new_epoch: bool = False,
    ) -> Future[tuple[T, Future[None]]]:
        """
        Take an instruction from outside, and have the scheduler do some work with it.

        :param work: called by the inference thread; changes the scheduler's instruction.
        :param new_epoch: see `InferenceThread.ask`.
        :returns: the result of the work, and a future that is done when the text is encoded.
        """
        text = normalize_instruction(text)
        with self._lock:
            self._text = text
            self._on_their_way += 1

        def take(scheduler: Scheduler) -> tuple[T, Future[None]]:
            with self._lock:
                self._on_their_way -= 1
            result = work(scheduler, text)
            encoded = scheduler.encoded()
            encoded.add_done_callback(self._log_failure)
            return result, encoded

        return self._thread.ask(take, new_epoch=new_epoch)

    def change(self, text: str) -> Future[tuple[None, Future[None]]]:
        """Take an instruction from outside; see `request`."""
        return self.request(text, lambda scheduler, text: scheduler.set_instruction(text))

    def take_parameter(self, text: str) -> None:
        """Take a new value of the parameter; waits for nothing."""
        if not self._setting_parameter and normalize_instruction(text) != self._text:
            self.change(text)

    def follow(self, text: str) -> None:
        """Take the instruction that the scheduler works on; called by the inference thread."""
        with self._lock:
            if not self._on_their_way:
                self._text = text

    def sync_parameter(self) -> None:
        """Set the parameter to the instruction; called by the executor's thread."""
        text = self._text
        if normalize_instruction(self._node.get_parameter('instruction').value) == text:
            return
        self._setting_parameter = True
        try:
            self._node.set_parameters([Parameter('instruction', value=text)])
        finally:
            self._setting_parameter = False

    def _log_failure(self, encoded: Future[None]) -> None:
        error = encoded.exception()
        if error is not None:
            self._node.get_logger().error(
                f'the instruction cannot be encoded, the one before holds: {error}')
