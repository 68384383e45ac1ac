"""The instruction of the node."""

from rclpy.node import Node
from rclpy.parameter import Parameter

from lingbot_va_ros.nodes.policy.answers import wait_for_answer
from lingbot_va_ros.nodes.policy.phase import NodePhase
from lingbot_va_ros.policy.runtime.inference_thread import InferenceThread
from lingbot_va_ros.policy.runtime.task import normalize_instruction


class Instruction:
    """
    Owns the text of the instruction; scheduler and parameter are kept equal to it.

    An instruction of white space is an empty one.

    :param node: has the parameter `instruction`.
    """

    def __init__(self, node: Node, thread: InferenceThread, phase: NodePhase):
        self._node = node
        self._thread = thread
        self._phase = phase
        self._text = normalize_instruction(node.get_parameter('instruction').value)

    @property
    def text(self) -> str:
        """The current instruction, or that of the next activation."""
        return self._text

    def follow(self, text: str) -> None:
        """Adopt the instruction of the scheduler, and set the parameter to it."""
        self._text = normalize_instruction(text)
        if normalize_instruction(self._node.get_parameter('instruction').value) != self._text:
            self._node.set_parameters([Parameter('instruction', value=self._text)])

    def change(self, text: str) -> None:
        """
        Set an instruction from outside, after the scheduler has accepted it.

        The current text, as after `follow`, is no change.

        :raises Exception: of the scheduler, if it rejects the instruction.
        """
        text = normalize_instruction(text)
        if text == self._text:
            return
        if self._phase.configured:
            wait_for_answer(
                self._thread.ask(lambda scheduler: scheduler.set_instruction(text)), self._phase)
        self._text = text
