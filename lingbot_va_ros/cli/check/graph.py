"""Check publishers and subscribers of a running graph: missing, duplicate, types, QoS."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rclpy.node import Node, NodeNameNonExistentError
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo

from lingbot_va_ros.cli.check.finding import error, Finding, warning
from lingbot_va_ros.cli.check.streams import join_names
from lingbot_va_ros.motion.time import NANOSECONDS

TRAJECTORY = 'trajectory_msgs/msg/JointTrajectory'
GRIPPER_ACTIONS = (
    'control_msgs/action/GripperCommand', 'control_msgs/action/ParallelGripperCommand')


@dataclass(frozen=True)
class TopicInput:
    """A topic (full name) that a node of this package subscribes to, and its QoS profile."""

    topic: str
    kind: str
    profile: QoSProfile
    reader: str
    required: bool = True


def node_of(end: TopicEndpointInfo) -> str:
    """Return the full name of the node of a publisher or subscription."""
    return f'{end.node_namespace.rstrip("/")}/{end.node_name}'


def join_nodes(ends: Sequence[TopicEndpointInfo]) -> str:
    """Return the names of the nodes of several endpoints in one line."""
    return join_names(sorted({node_of(end) for end in ends}))


def input_findings(node: Node, entry: TopicInput) -> list[Finding]:
    """Return the findings about the publishers of a topic; an optional one may be missing."""
    publishers = node.get_publishers_info_by_topic(entry.topic)
    if not publishers:
        if not entry.required:
            return []
        others = sorted(topic for topic, kinds in node.get_topic_names_and_types()
                        if entry.kind in kinds and topic != entry.topic
                        and node.count_publishers(topic))
        hint = f'; {entry.kind} is published on {join_names(others)}' if others else ''
        return [error(entry.topic, f'no publisher, but {entry.reader} subscribes{hint}')]
    found = []
    for end in publishers:
        if end.topic_type != entry.kind:
            found.append(error(
                entry.topic, f'{node_of(end)} publishes {end.topic_type}; expected {entry.kind}'))
            continue
        for fault in qos_faults(end.qos_profile, entry.profile):
            found.append(error(
                entry.topic, f'QoS: {node_of(end)} offers {fault[0]}, {entry.reader} requests '
                f'{fault[1]}: no message arrives'))
    return found


def qos_faults(offered: QoSProfile, asked: QoSProfile) -> list[tuple[str, str]]:
    """Return pairs (offered QoS, requested QoS) that DDS does not connect."""
    found = []
    if (offered.reliability == ReliabilityPolicy.BEST_EFFORT
            and asked.reliability == ReliabilityPolicy.RELIABLE):
        found.append(('best effort', 'reliable'))
    if (offered.durability == DurabilityPolicy.VOLATILE
            and asked.durability == DurabilityPolicy.TRANSIENT_LOCAL):
        found.append(('volatile', 'transient local'))
    if 0 < asked.deadline.nanoseconds < offered.deadline.nanoseconds:
        found.append((f'a deadline of {offered.deadline.nanoseconds / NANOSECONDS:g} s',
                      f'{asked.deadline.nanoseconds / NANOSECONDS:g} s'))
    return found


def controller_topic_findings(
    node: Node, topic: str, profile: QoSProfile, mux: str, expected: str = TRAJECTORY,
) -> tuple[list[Finding], list[str]]:
    """
    Return the findings about a controller's topic, and the nodes that subscribe to it.

    :param expected: type of its messages.
    """
    found, listeners = [], []
    for end in node.get_subscriptions_info_by_topic(topic):
        if end.topic_type != expected:
            found.append(error(
                topic, f'{node_of(end)} subscribes to {end.topic_type}; expected {expected}'))
            continue
        listeners.append(node_of(end))
        for offered, asked in qos_faults(profile, end.qos_profile):
            found.append(error(
                topic, f'QoS: command_mux offers {offered}, {node_of(end)} requests {asked}: no '
                'command arrives'))
    if not listeners and not found:
        others = sorted(
            name for name, kinds in node.get_topic_names_and_types()
            if expected == TRAJECTORY in kinds and name != topic and node.count_subscribers(name)
            and name.endswith('controller/joint_trajectory'))
        hint = f'; a controller subscribes to {join_names(others)}' if others else ''
        found.append(error(topic, f'no controller subscribes{hint}'))
    strangers = [end for end in node.get_publishers_info_by_topic(topic) if node_of(end) != mux]
    for end in strangers:
        if end.topic_type != expected:
            found.append(error(
                topic, f'{node_of(end)} publishes {end.topic_type}; expected {expected}'))
    if strangers:
        found.append(error(
            topic, f'{join_nodes(strangers)} can command the arm past {mux}: its commands are not '
            'limited; command_mux must be the only publisher'))
    return found, sorted(set(listeners))


def action_findings(
    node: Node, action: str, kinds: Sequence[str] = GRIPPER_ACTIONS) -> list[Finding]:
    """
    Return the findings about the server of a controller's action (full name).

    :param kinds: types of actions, one of which it must be.
    """
    servers = node.get_publishers_info_by_topic(f'{action}/_action/feedback')
    expected = ' or '.join(kinds)
    if not servers:
        return [error(action, f'no action server; expected {expected}')]
    found = [
        error(action, f'{node_of(end)} serves {kind}; expected {expected}') for end in servers
        if (kind := end.topic_type.removesuffix('_FeedbackMessage')) not in kinds]
    if len(servers) > 1:
        found.append(error(action, f'served by {join_nodes(servers)}; expected one of them'))
    return found


def wiring_findings(node: Node, policy: str, mux: str) -> list[Finding]:
    """Return an error if the plan does not reach the mux, or the mode not the policy."""
    found = []
    out = _topics(node.get_publisher_names_and_types_by_node, policy, TRAJECTORY)
    taken = _topics(node.get_subscriber_names_and_types_by_node, mux, TRAJECTORY)
    if out and taken and not set(out) & set(taken):
        found.append(error(
            policy, f'its plan goes to {join_names(out)}, but {mux} subscribes to '
            f'{join_names(taken)}: remap one to the other'))
    kind = 'lingbot_va_ros/msg/ControlMode'
    published = _topics(node.get_publisher_names_and_types_by_node, mux, kind)
    heard = _topics(node.get_subscriber_names_and_types_by_node, policy, kind)
    if published and heard and not set(published) & set(heard):
        found.append(error(
            policy, f'it subscribes to the mode on {join_names(heard)}, but {mux} publishes it on '
            f'{join_names(published)}: remap control_mode'))
    return found


def _topics(ask, node: str, kind: str) -> list[str]:
    namespace, name = node.rsplit('/', 1)
    try:
        found = ask(name, namespace or '/')
    except NodeNameNonExistentError:  # not running, which is reported separately
        return []
    return sorted(topic for topic, kinds in found if kind in kinds)


def duplicate_findings(nodes: Sequence[str], ours: Sequence[str]) -> list[Finding]:
    """Return duplicate node names: errors for `ours`, warnings for others."""
    found = []
    for name, count in sorted(Counter(nodes).items()):
        if count > 1 and name in ours:
            found.append(error(name, f'{count} nodes of this name run; expected one'))
        elif count > 1:
            found.append(warning(name, f'{count} nodes of this name run'))
    return found


def sole_publisher_findings(node: Node, topic: str) -> list[Finding]:
    """Return an error if several nodes publish a topic that only one may publish."""
    publishers = node.get_publishers_info_by_topic(topic)
    if len({node_of(end) for end in publishers}) < 2:
        return []
    return [error(topic, f'published by {join_nodes(publishers)}; expected one of them')]
