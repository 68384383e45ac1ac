"""Watches the publishers of joint_states: several of one joint, and clocks that differ."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rclpy.node import Node
from rclpy.subscription import Subscription
from sensor_msgs.msg import JointState

from lingbot_va_ros.nodes.stamps import nanoseconds_of
from lingbot_va_ros.robot.clock_offset import ClockOffsets
from lingbot_va_ros.robot.joint_publishers import JointPublishers
from lingbot_va_ros.robot.joint_state_filter import JointStateReport
from lingbot_va_ros.specs.joint_state_topics import DEFAULT_TOPICS, JointStateTopic

# Humble hands no information about a message to its callback.
HAS_MESSAGE_INFO = hasattr(Subscription, 'CallbackType')
# What a middleware says that does not number the messages.
NOT_NUMBERED = 2 ** 64 - 1


def with_message_info(callback: Callable[[Any, Mapping[str, Any]], None]) -> Callable[..., None]:
    """Return a subscription's callback that gets a message's information where rclpy has it."""
    if HAS_MESSAGE_INFO:
        return lambda message, info: callback(message, info)
    return lambda message: callback(message, {})


def message_number(info: Mapping[str, Any]) -> int | None:
    """Return a message's number among those of its publisher, or None where it is not told."""
    number = info.get('publication_sequence_number')
    return None if number is None or number == NOT_NUMBERED else int(number)


class JointStateWatch:
    """
    Names two publishers of one joint, and the clock that is furthest from ours.

    It belongs to the executor's thread.

    :param joints: of the embodiment.
    :param topics: on which they come.
    """

    def __init__(
        self, node: Node, joints: Sequence[str],
        topics: Sequence[JointStateTopic] = DEFAULT_TOPICS,
    ) -> None:
        self.offsets = ClockOffsets()
        self._node = node
        self._joints = JointPublishers(joints)
        self._topics = sorted({topic.topic for topic in topics})

    def take(
        self, topic: JointStateTopic, message: JointState, info: Mapping[str, Any], now_ns: int,
        now_s: float,
    ) -> None:
        """
        Take a message of joint states.

        :param info: as rclpy gives it; empty where it gives none.
        """
        self.offsets.add(topic.topic, nanoseconds_of(message.header.stamp), now_ns, now_s)
        number = message_number(info)
        if number is not None:
            self._joints.update(topic.our_names(message.name), number, now_s)

    def publishers(self) -> list[str]:
        """Return the full names of the nodes that publish joint states."""
        return sorted(
            f'{end.node_namespace.rstrip("/")}/{end.node_name}'
            for topic in self._topics
            for end in self._node.get_publishers_info_by_topic(
                self._node.resolve_topic_name(topic)))

    def conflict(self, report: JointStateReport, now_s: float) -> str:
        """Return in one line which joints have several publishers, or an empty text."""
        return publisher_conflict(
            self._joints.doubled(now_s), report.contradictions, self.publishers())

    def values(self, report: JointStateReport, now_s: float) -> dict[str, str]:
        """Return the entries of /diagnostics."""
        topic, seconds = self.offsets.largest(now_s) or ('', None)
        return {
            'joint_state_publishers': ', '.join(self.publishers()),
            'joint_state_conflict': self.conflict(report, now_s),
            'clock_offset_ms': '' if seconds is None else f'{seconds * 1e3:.3f}',
            'clock_offset_of': topic,
        }

    def warnings(
        self, report: JointStateReport, now_s: float, is_simulated: bool) -> list[str]:
        """
        Return what is wrong with publishers and clocks, a line each.

        :param is_simulated: whether time is simulated; it advances in steps that are no offset.
        """
        lines = [self.conflict(report, now_s)]
        if not is_simulated:
            lines.append(self.offsets.warning(now_s))
        return [line for line in lines if line]


def publisher_conflict(
    doubled: Sequence[str], contradictions: Sequence[str], publishers: Sequence[str]) -> str:
    """
    Return in one line which joints have several publishers, or an empty text.

    :param doubled: joints, by the numbers of the messages.
    :param contradictions: lines about joints that are told to be at two places.
    :param publishers: nodes that publish joint_states.
    """
    if not doubled and not contradictions:
        return ''
    parts = []
    if doubled:
        parts.append(f'{", ".join(doubled)} come from several publishers')
    parts += contradictions
    return f'joint_states: {"; ".join(parts)} (published by {", ".join(publishers)})'
