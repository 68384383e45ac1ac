"""The states of controllers by their controller_manager, which tells each change at once."""

from collections.abc import Callable
import time
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

ACTIVE = 3  # lifecycle_msgs/State.PRIMARY_STATE_ACTIVE
# A controller that was inactive for a moment counts as inactive for so long, s: a tick of the mux
# must see it.
MEMORY_SECONDS = 0.3
# A deactivation and the activation after it may come in one burst: none may be dropped.
_CHANGES = QoSProfile(
    depth=20, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def activity_type() -> Any:
    """Return the message type of controller_manager's activity; None: there is none here."""
    try:
        from controller_manager_msgs.msg import ControllerManagerActivity
    except ImportError:  # not installed, or older than the topic
        return None
    return ControllerManagerActivity


class ControllerActivity:
    """
    Tells whether a controller is active, by `controller_manager/activity` beside it.

    A controller that its manager never named is not judged: it may be a program of another kind.
    One that is deactivated and activated again has left the commanded motion, and would leap onto
    it; so a moment of inactivity counts.

    :param topic: any topic or action of the controller, fully resolved: `/arm/commands` belongs to
        the controller `arm` of `/controller_manager`.
    """

    def __init__(self, topic: str) -> None:
        controller, _, _ = topic.rpartition('/')
        namespace, _, self.name = controller.rpartition('/')
        self.manager = f'{namespace}/controller_manager'
        self._state = ''  # the label of the state, while it is not active
        self._is_known = False
        self._inactive_at: float | None = None  # when it was last not active, steady s

    def subscribe(self, node: Node, message_type: Any, on_change: Callable[[], None]) -> None:
        """
        Listen to the controller's manager.

        :param message_type: controller_manager_msgs' ControllerManagerActivity.
        :param on_change: called at once when the controller is no longer active.
        """
        def take(message: Any) -> None:
            if self.take(message, time.monotonic()):
                on_change()

        node.create_subscription(message_type, f'{self.manager}/activity', take, _CHANGES)

    def take(self, message: Any, now_s: float) -> bool:
        """Take the states of the manager's controllers; return whether this one is inactive."""
        states = {each.name: each.state for each in message.controllers}
        state = states.get(self.name)
        if state is None and not self._is_known:
            return False
        self._is_known = True
        if state is not None and state.id == ACTIVE:
            self._state = ''
            return False
        self._state = 'unloaded' if state is None else state.label
        self._inactive_at = now_s
        return True

    def fault(self, now_s: float) -> str:
        """Return in one line that the controller is or was inactive, or an empty text."""
        if self._state:
            return f'an active controller ({self.manager} has {self.name} as {self._state})'
        if self._inactive_at is not None and now_s - self._inactive_at < MEMORY_SECONDS:
            return f'an active controller ({self.name} was inactive a moment ago)'
        return ''
