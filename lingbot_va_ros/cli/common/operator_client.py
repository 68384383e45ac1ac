"""Client of the ROS services that an operator calls: configure, activate, set the mode."""

from collections.abc import Callable
import time
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import Executor
from rclpy.node import Node

from lingbot_va_ros.cli.common.failure import CommandFailed
from lingbot_va_ros.srv import SetControlMode

START_SECONDS = 30.0  # for a fresh process to import, start and be discovered
ANSWER_SECONDS = 30.0
REPEAT_SECONDS = 5.0
CONFIGURE_SECONDS = 600.0  # a full-size checkpoint from a slow disk


class OperatorClient:
    """
    Calls services and waits for answers, spinning a node in the calling thread.

    :param watch: called after each spin while waiting; an exception from it ends the wait.
    """

    def __init__(self, node: Node, executor: Executor, watch: Callable[[], None]):
        self._node = node
        self._executor = executor
        self._watch = watch
        self._clients: dict[str, Any] = {}

    def now_ns(self) -> int:
        """Return ROS time in nanoseconds."""
        return self._node.get_clock().now().nanoseconds

    def wait_until(self, condition: Callable[[], Any], seconds: float, what: str) -> None:
        """
        Spin until the condition holds.

        :param what: name of the awaited thing, for the error message.
        :raises CommandFailed: the condition does not hold within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise CommandFailed(f'waited {seconds:g} s for {what}')
            self._executor.spin_once(timeout_sec=0.05)
            self._watch()

    def call(
        self, kind: Any, name: str, request: Any, seconds: float = ANSWER_SECONDS,
        may_repeat: bool = False,
    ) -> Any:
        """
        Call a service and return its answer.

        A server drops its answer to a client that it has not discovered yet, which happens to new
        clients on a busy machine. So clients are kept.

        :param may_repeat: the request is sent again where no answer comes for REPEAT_SECONDS: it
            may be served twice.
        :raises CommandFailed: the service does not appear or does not answer in time.
        """
        if name not in self._clients:
            self._clients[name] = self._node.create_client(kind, name)
        client = self._clients[name]
        self.wait_until(client.service_is_ready, START_SECONDS, f'the service {name}')
        futures = [client.call_async(request)]
        asked = time.monotonic()

        def answered() -> Any:
            nonlocal asked
            if may_repeat and time.monotonic() - asked > REPEAT_SECONDS:
                asked = time.monotonic()
                futures.append(client.call_async(request))
            return next((future for future in futures if future.done()), None)

        try:
            self.wait_until(answered, seconds, f'an answer of {name}')
            return answered().result()
        finally:
            for future in futures:
                client.remove_pending_request(future)

    def change_state(self, node: str, transition: int, seconds: float = ANSWER_SECONDS) -> bool:
        """Request a transition of a lifecycle node and return whether it succeeded."""
        request = ChangeState.Request()
        request.transition.id = transition
        return self.call(ChangeState, f'{node}/change_state', request, seconds).success

    def configure(self, node: str) -> bool:
        """Configure a lifecycle node; this may take minutes."""
        return self.change_state(node, Transition.TRANSITION_CONFIGURE, CONFIGURE_SECONDS)

    def activate(self, node: str) -> bool:
        """Activate a lifecycle node."""
        return self.change_state(node, Transition.TRANSITION_ACTIVATE)

    def deactivate_and_clean_up(self, node: str) -> bool:
        """Deactivate a lifecycle node and clean it up."""
        return (self.change_state(node, Transition.TRANSITION_DEACTIVATE)
                and self.change_state(node, Transition.TRANSITION_CLEANUP))

    def set_mode(self, mux: str, mode: int, seconds: float = 0.0) -> None:
        """
        Set the mode of the mux; retry for `seconds` while the mux refuses.

        :raises CommandFailed: the mux still refuses; the message has its reason.
        """
        deadline = time.monotonic() + seconds
        while True:
            answer = self.call(
                SetControlMode, f'{mux}/set_mode', SetControlMode.Request(mode=mode),
                may_repeat=True)
            if answer.success:
                return
            if time.monotonic() > deadline:
                raise CommandFailed(f'{mux} refuses the mode: {answer.message}')
            pause = time.monotonic() + 0.2
            self.wait_until(lambda: time.monotonic() > pause, 1.0, 'the pause')
