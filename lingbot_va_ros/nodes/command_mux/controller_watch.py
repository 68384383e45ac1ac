"""The watch of trajectory controllers and of the driver's status: who listens, and may it move."""

from collections.abc import Callable, Mapping, Sequence
import functools
import importlib
import math
import operator
import time
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.serialization import deserialize_message
from trajectory_msgs.msg import JointTrajectory

from lingbot_va_ros.mux.mux import Mux
from lingbot_va_ros.nodes.command_mux.controller_activity import activity_type, ControllerActivity
from lingbot_va_ros.nodes.qos import LATCHED, SENSOR
from lingbot_va_ros.nodes.run import CannotStart
from lingbot_va_ros.nodes.stamps import nanoseconds_of
from lingbot_va_ros.specs.embodiment import Embodiment, StatusInput

WATCH_SECONDS = 0.05
# A controller that published its state and is silent for longer than this is not active, s.
STATE_SECONDS = 0.3
# The references of a controller are read at most so often, s: 1000 a second would take a third of
# a core, and the ticks compare what is read. No multiple or whole share of a tick, so that they
# come from all over it.
READ_SECONDS = 0.013


class ControllerWatch:
    """
    Tells the mux which controllers do not listen, and which status of the driver is not good.

    :param publishers: the commands' publishers; controllers of trajectories publish a state.
    :param more_faults: returns what else is wrong, a line each.
    :raises CannotStart: a status input's message type or field does not exist.
    """

    def __init__(
        self, node: Node, embodiment: Embodiment, publishers: Sequence[Publisher], mux: Mux,
        more_faults: Callable[[], list[str]] = list,
    ) -> None:
        self._mux = mux
        self._publishers = publishers
        self._more_faults = more_faults
        state_type = _controller_state_type()
        names = {name: joint for controller in embodiment.controllers
                 for joint, name in controller.names.items()}
        self._states = [] if state_type is None else [
            ControllerState(node, publisher.topic_name, state_type, mux, names)
            for publisher in publishers if publisher.msg_type is JointTrajectory]
        self._status = [StatusWatch(node, given) for given in embodiment.status_inputs]
        self._activities = _activities(node, embodiment, self._update)
        self._update()
        node.create_timer(
            WATCH_SECONDS, self._update, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _update(self) -> None:
        faults = [
            f'a controller on {publisher.topic_name} (none listens)'
            for publisher in self._publishers if not publisher.get_subscription_count()]
        faults += self._more_faults()
        now_s = time.monotonic()
        of_activity = [activity.fault(now_s) for activity in self._activities]
        # Where the manager says that a controller is inactive, its silence says no more.
        faults += of_activity if any(of_activity) else [state.fault() for state in self._states]
        faults += [status.fault() for status in self._status]
        self._mux.take_controller_faults('controllers', tuple(filter(None, faults)))


def _activities(
    node: Node, embodiment: Embodiment, on_change: Callable[[], None],
) -> list[ControllerActivity]:
    """Return the activity of each controller, where controller_manager_msgs is installed."""
    message_type = activity_type()
    if message_type is None:
        return []
    activities = [
        ControllerActivity(node.resolve_topic_name(controller.topic))
        for controller in embodiment.controllers if controller.topic]
    for activity in activities:
        activity.subscribe(node, message_type, on_change)
    return activities


def _controller_state_type() -> Any:
    """Return the message type of a trajectory controller's state; None: it is not installed."""
    try:
        from control_msgs.msg import JointTrajectoryControllerState
    except ImportError:
        return None
    return JointTrajectoryControllerState


class ControllerState:
    """
    The state that an active joint_trajectory_controller publishes beside its command topic.

    A controller that never published any is not judged: it may be a program of another kind.

    :param joints: our names of joints, by the driver's; the others have the same.
    """

    def __init__(
        self, node: Node, command_topic: str, message_type: Any, mux: Mux,
        joints: Mapping[str, str],
    ) -> None:
        folder, _, _ = command_topic.rpartition('/')
        self._topic = f'{folder}/controller_state' if folder else 'controller_state'
        self._heard: float | None = None
        self._silent_since: float | None = None  # when it was first seen to be silent, steady s
        self._mux = mux
        self._joints = joints
        self._message_type = message_type
        self._read = -math.inf  # when a state was last read, steady s
        node.create_subscription(message_type, self._topic, self._on_state, SENSOR, raw=True)

    def _on_state(self, data: bytes) -> None:
        self._heard = time.monotonic()
        if self._heard - self._read < READ_SECONDS:
            return
        self._read = self._heard
        message = deserialize_message(data, self._message_type)
        reference = getattr(message, 'reference', None) or message.desired  # Humble's name
        self._mux.take_controller_reference(
            [self._joints.get(name, name) for name in message.joint_names],
            reference.positions, nanoseconds_of(message.header.stamp))

    def fault(self) -> str:
        """Return in one line that the controller is no longer active, or an empty text."""
        now_s = time.monotonic()
        if self._heard is None or now_s - self._heard <= STATE_SECONDS:
            self._silent_since = None
            return ''
        # Where this process itself stood still, the states that came meanwhile are read next.
        if self._silent_since is None:
            self._silent_since = now_s
        if now_s - self._silent_since < WATCH_SECONDS / 2:
            return ''
        return f'an active controller ({self._topic} is silent for {STATE_SECONDS:g} s)'


class StatusWatch:
    """
    One status input of the driver.

    :raises CannotStart: its message type is not installed, or has no such field.
    """

    def __init__(self, node: Node, given: StatusInput) -> None:
        self._node = node
        self._given = given
        self._value: Any = None
        self._heard: float | None = None
        message_type = _message_type(given)
        self._read = functools.partial(_field, names=given.field.split('.'))
        try:
            self._read(message_type())
        except AttributeError:
            raise CannotStart(
                f"status input {given.topic}: {given.message_type} has no field '{given.field}'"
            ) from None
        node.create_subscription(
            message_type, given.topic, self._on_message, LATCHED if given.latched else SENSOR)

    def _on_message(self, message: Any) -> None:
        self._value, self._heard = self._read(message), time.monotonic()

    def fault(self) -> str:
        """Return in one line why the arm may not move, or an empty text."""
        given = self._given
        offered = offered_types(self._node, given.topic)
        if self._heard is None or given.message_type not in offered:
            return f'{given.topic} ({self._why_unheard(offered)})'
        if given.timeout and time.monotonic() - self._heard > given.timeout:
            return f'{given.topic} (silent for more than {given.timeout:g} s)'
        if not any(_is_same(self._value, good) for good in given.good):
            expected = ' or '.join(map(str, given.good))
            return f'{given.topic} ({given.field} is {self._value}, expected {expected})'
        return ''

    def _why_unheard(self, offered: set[str]) -> str:
        expected = self._given.message_type
        if offered and expected not in offered:
            return f'is {", ".join(sorted(offered))}, expected {expected}'
        return 'never heard' if self._heard is None else 'nobody publishes it any more'


def offered_types(node: Node, topic: str) -> set[str]:
    """Return the message types with which a topic is published."""
    return {end.topic_type for end in node.get_publishers_info_by_topic(
        node.resolve_topic_name(topic))}


def _is_same(value: Any, good: bool | float | str) -> bool:
    """Return whether a field has a good value; True is not 1 here."""
    if isinstance(value, bytes) and len(value) == 1:  # a field of the type byte
        value = value[0]
    return isinstance(value, bool) == isinstance(good, bool) and bool(value == good)


def _field(message: Any, names: list[str]) -> Any:
    return functools.reduce(lambda part, name: operator.attrgetter(name)(part), names, message)


def _message_type(given: StatusInput) -> Any:
    package, _, name = given.message_type.partition('/msg/')
    try:
        return getattr(importlib.import_module(f'{package}.msg'), name)
    except ImportError as error:
        raise CannotStart(
            f'status input {given.topic} needs the package {package} ({error}): '
            f'apt install ros-$ROS_DISTRO-{package.replace("_", "-")}') from None
    except AttributeError:
        raise CannotStart(
            f"status input {given.topic}: the package {package} has no message '{name}'"
        ) from None
