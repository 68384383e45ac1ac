"""Controllers that take a FollowJointTrajectory action: the commands as goals, not too many."""

import threading
import time
from typing import Any

from rclpy.action import ActionClient
from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.task import Future
from trajectory_msgs.msg import JointTrajectory

from lingbot_va_ros.mux.mux import Mux
from lingbot_va_ros.nodes.command_mux.row_controllers import columns_of
from lingbot_va_ros.nodes.run import CannotStart
from lingbot_va_ros.specs.controllers import Controller
from lingbot_va_ros.specs.embodiment import Embodiment

ACTION = 'control_msgs/action/FollowJointTrajectory'
# How often the action servers are looked for, s.
WATCH_SECONDS = 0.05
# How long the end of the node waits for the answer to a last goal, s.
FLUSH_SECONDS = 0.5


class TrajectoryActions:
    """
    All controllers of an embodiment of the kind trajectory_action, and a watch of their servers.

    :param group: callback group in whose thread goals are sent; others are not waited for.
    :raises CannotStart: the package control_msgs is missing.
    """

    def __init__(
        self, node: Node, embodiment: Embodiment, mux: Mux, group: CallbackGroup) -> None:
        controllers = [c for c in embodiment.controllers if c.kind == 'trajectory_action']
        self._mux = mux
        self._actions: list[tuple[TrajectoryAction, list[int]]] = []
        if not controllers:
            return
        try:
            from control_msgs.action import FollowJointTrajectory
        except ImportError as error:
            raise CannotStart(
                f"embodiment '{embodiment.name}': a trajectory_action controller needs the package"
                f' control_msgs ({error}): apt install ros-$ROS_DISTRO-control-msgs') from None
        column_of = columns_of(embodiment)
        self._actions = [
            (TrajectoryAction(node, controller, FollowJointTrajectory, mux, group),
             [column_of[name] for name in controller.joints]) for controller in controllers]
        self._update()
        node.create_timer(
            WATCH_SECONDS, self._update, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def __iter__(self) -> Any:
        """Return an iterator of the actions, each with the columns of its joints."""
        return iter(self._actions)

    def flush(self) -> None:
        """Wait until every goal was answered, but not for long. For the end of the node."""
        end = time.monotonic() + FLUSH_SECONDS
        while any(action.is_waiting for action, _ in self._actions) and time.monotonic() < end:
            time.sleep(0.005)

    def _update(self) -> None:
        faults = (action.fault() for action, _ in self._actions)
        self._mux.take_controller_faults('trajectory actions', tuple(filter(None, faults)))


class TrajectoryAction:
    """
    Sends one controller's commands to its action server as goals, at most `goal_rate` a second.

    A goal replaces the one before. A stop is sent at once.
    """

    def __init__(
        self, node: Node, controller: Controller, action: Any, mux: Mux, group: CallbackGroup,
    ) -> None:
        self.joint_names = controller.driver_names
        self._node = node
        self._mux = mux
        self._action = action
        self._name = node.resolve_topic_name(controller.topic)
        self._period = 1.0 / controller.goal_rate
        self._lock = threading.Lock()
        self._next: JointTrajectory | None = None  # to be sent as soon as its thread runs
        self._asked_at = -float('inf')
        self._end: list[float] = []  # positions at which the last goal ends
        self._number = 0  # of the newest goal that was sent
        self._unanswered = 0
        self._client = ActionClient(node, action, self._name, callback_group=group)
        self._guard = node.create_guard_condition(self._send, callback_group=group)

    @property
    def is_waiting(self) -> bool:
        """Whether a goal is to be sent, or is not answered yet, with a server there."""
        with self._lock:
            waits = self._next is not None or self._unanswered > 0
        return waits and bool(self._client.server_is_ready())

    def wants(self, is_stop: bool) -> bool:
        """Return whether a command of now is to be sent. For the thread of the ticks."""
        return is_stop or time.monotonic() - self._asked_at >= self._period

    def command(self, message: JointTrajectory) -> None:
        """Send a command as a goal. For the thread of the ticks."""
        end = list(message.points[-1].positions)
        rests = all(list(point.positions) == end for point in message.points)
        if rests and end == self._end:
            return  # the controller is there, or on its way
        with self._lock:
            self._next, self._end = message, end
        self._asked_at = time.monotonic()
        self._guard.trigger()

    def fault(self) -> str:
        """Return in one line why no goal can be sent, or an empty text."""
        if self._client.server_is_ready():
            return ''
        offered = {
            end.topic_type.removesuffix('_FeedbackMessage')
            for end in self._node.get_publishers_info_by_topic(f'{self._name}/_action/feedback')}
        if offered and ACTION not in offered:
            return f'action server {self._name} is {", ".join(sorted(offered))}; expected {ACTION}'
        return f'action server {self._name} (none is there)'

    def _send(self) -> None:
        with self._lock:
            message, self._next = self._next, None
            if message is None or not self._client.server_is_ready():
                return
            self._number += 1
            number = self._number
            self._unanswered += 1
        goal = self._action.Goal()
        goal.trajectory = message
        sent = self._client.send_goal_async(goal)
        sent.add_done_callback(lambda answer: self._on_answer(number, answer))

    def _on_answer(self, number: int, answer: Future) -> None:
        with self._lock:
            self._unanswered -= 1
        if answer.exception() is not None or not answer.result().accepted:
            with self._lock:
                self._end = []  # the controller is not on its way there
            self._hold('rejected a goal')
            return
        answer.result().get_result_async().add_done_callback(
            lambda result: self._on_result(number, result))

    def _on_result(self, number: int, result: Future) -> None:
        from action_msgs.msg import GoalStatus

        # A goal that another one has replaced may end in any way.
        if number != self._number or result.exception() is not None:
            return
        if result.result().status != GoalStatus.STATUS_SUCCEEDED:
            with self._lock:
                self._end = []
            outcome = result.result().result
            self._hold(f'aborted its goal (error {outcome.error_code}'
                       f'{": " if outcome.error_string else ""}{outcome.error_string})')

    def _hold(self, why: str) -> None:
        reason = f'{self._name} {why}'
        self._node.get_logger().error(reason, throttle_duration_sec=1.0)
        self._mux.take_fault(reason)
