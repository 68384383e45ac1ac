"""Configures and activates the policy whenever its process has started."""

import asyncio

from launch import EventHandler, LaunchContext
from launch.action import Action
from launch.actions import OpaqueCoroutine, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessStart
from launch.events import matches_action
from launch.logging import get_logger
from launch_ros.actions import LifecycleNode
from launch_ros.events.lifecycle import ChangeState, StateTransition
from launch_ros.ros_adapters import get_ros_node
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import GetState

_ANSWER_SECONDS = 1.0
_PAUSE_SECONDS = 0.5


class Autostart:
    """
    Brings one lifecycle node from unconfigured to active, once for each start of its process.

    A node that the user configures later is not activated.
    """

    def __init__(self, node: LifecycleNode):
        self._node = node
        self._configuring = False

    def actions(self) -> list[Action]:
        """Return the event handlers to register before the node is started."""
        return [
            RegisterEventHandler(OnProcessStart(
                target_action=self._node,
                on_start=[OpaqueCoroutine(coroutine=self._configure)])),
            RegisterEventHandler(EventHandler(
                matcher=self._ends_configuring,
                entities=[OpaqueFunction(function=self._activate)]))]

    async def _configure(self, context: LaunchContext) -> None:
        """
        Ask the node to configure, as soon as it answers.

        A request to a node that does not run yet is lost, and DDS lists the services of a crashed
        process for some seconds. An available service is therefore no proof; the state of the
        node is requested until it answers.
        """
        self._configuring = False
        ros_node = get_ros_node(context)
        client = ros_node.create_client(GetState, f'{self._node.node_name}/get_state')
        try:
            state = None
            while state is None:
                await asyncio.sleep(_PAUSE_SECONDS)
                state = await _ask(client)
        finally:
            ros_node.destroy_client(client)
        if state == State.PRIMARY_STATE_UNCONFIGURED:
            self._configuring = True
            await context.emit_event(self._change(Transition.TRANSITION_CONFIGURE))

    def _ends_configuring(self, event) -> bool:
        return (
            self._configuring and isinstance(event, StateTransition)
            and event.action is self._node and event.start_state == 'configuring')

    def _activate(self, context: LaunchContext) -> None:
        self._configuring = False
        if context.locals.event.goal_state == 'inactive':
            context.emit_event_sync(self._change(Transition.TRANSITION_ACTIVATE))
        else:
            get_logger('lingbot_va_ros').error(
                f'{self._node.node_name} could not be configured, its log above gives the '
                'reason; fix it and launch again, or: ros2 lifecycle set '
                f'{self._node.node_name} configure')

    def _change(self, transition: int) -> ChangeState:
        return ChangeState(
            lifecycle_node_matcher=matches_action(self._node), transition_id=transition)


async def _ask(client) -> int | None:
    """Return the id of the node's state, or None if it did not answer in time."""
    if not client.service_is_ready():
        return None
    answered = asyncio.Event()
    loop = asyncio.get_running_loop()
    future = client.call_async(GetState.Request())
    future.add_done_callback(lambda _future: loop.call_soon_threadsafe(answered.set))
    try:
        await asyncio.wait_for(answered.wait(), _ANSWER_SECONDS)
    except asyncio.TimeoutError:
        client.remove_pending_request(future)
        return None
    return future.result().current_state.id
