"""Services whose requests the simulation thread handles between two steps."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from rclpy.node import Node
from std_srvs.srv import Trigger

TIMEOUT = 10.0  # s of real time until a request fails


class Requests:
    """Services of type Trigger; their callbacks wait until the simulation thread has answered."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Callable[[], str], Future[str]]] = deque()

    def offer(self, node: Node, name: str, action: Callable[[], str]) -> None:
        """
        Create a service.

        :param action: called in the simulation thread; returns the message of the answer. If it
            raises, the service fails with the exception's message.
        """
        def answer(_request: Any, response: Any) -> Any:
            request: Future[str] = Future()
            self._waiting.append((action, request))
            try:
                response.message = request.result(timeout=TIMEOUT)
                response.success = True
            except Exception as error:
                response.success = False
                response.message = f'{type(error).__name__}: {error}'.rstrip(': ')
            return response

        node.create_service(Trigger, name, answer)

    def carry_out(self) -> None:
        """Handle the pending requests. For the simulation thread."""
        while self._waiting:
            action, request = self._waiting.popleft()
            try:
                request.set_result(action())
            except Exception as error:
                request.set_exception(error)
