"""Lifecycle transitions in a separate thread, so that the executor is not blocked."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
import functools
import traceback
from typing import Any

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from lingbot_va_ros.nodes.policy.answers import answer_of, Closing
from lingbot_va_ros.nodes.policy.phase import NodePhase

Transition = Callable[[Any, LifecycleState], TransitionCallbackReturn]


def logged(transition: Transition) -> Transition:
    """Log the traceback of an exception in a transition, which rclpy would discard."""
    @functools.wraps(transition)
    def guarded(self: Any, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(self, state)
        except Closing:
            return TransitionCallbackReturn.FAILURE
        except Exception:
            self.get_logger().error(
                f'{transition.__name__} failed:\n{traceback.format_exc()}')
            return TransitionCallbackReturn.ERROR
    return guarded


class TransitionThread:
    """
    Runs the transitions of a lifecycle node sequentially, outside its executor.

    :param node: a lifecycle node; its service change_state is replaced.
    """

    def __init__(self, node: Any, phase: NodePhase):
        self._node = node
        self._phase = phase
        self._thread = ThreadPoolExecutor(1, 'transitions')
        self._change_state = node._service_change_state.callback
        node._service_change_state.callback = self._on_change_state

    def submit(self, transition: Callable[[], Any]) -> None:
        """Run a transition after the queued ones."""
        self._thread.submit(transition)

    def close(self, wait: bool) -> None:
        """End the thread."""
        self._thread.shutdown(wait=wait)

    async def _on_change_state(self, request: Any, response: Any) -> Any:
        return await answer_of(
            self._node, self._thread.submit(self._guarded_change, request, response))

    def _guarded_change(self, request: Any, response: Any) -> Any:
        """Answer an invalid transition, which would end the process in rclpy."""
        try:
            return self._change_state(request, response)
        except Exception as error:
            wanted = request.transition.label or request.transition.id
            self._node.get_logger().warning(
                f'transition {wanted} refused in state {self._phase.name}: {error}')
            response.success = False
            return response
