"""
Check a running ROS graph for everything that policy_node and command_mux need.

Nothing is published, no mode is changed and nothing moves.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
import os
import time
from typing import Any

from lifecycle_msgs.srv import GetState
import rclpy
from rclpy.context import Context
from rclpy.exceptions import InvalidNamespaceException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, JointState

from lingbot_va_ros.cli.check.controllers import (
    controller_findings,
    manager_findings,
    MuxFigures,
    read_parameters,
    unbraked_finding,
)
from lingbot_va_ros.cli.check.finding import error, Finding, warning
from lingbot_va_ros.cli.check.graph import (
    action_findings,
    controller_topic_findings,
    duplicate_findings,
    input_findings,
    join_nodes,
    sole_publisher_findings,
    TopicInput,
    wiring_findings,
)
from lingbot_va_ros.cli.check.streams import CameraStream, JointStateStream
from lingbot_va_ros.msg import ControlMode, PolicyStatus
from lingbot_va_ros.mux.following_error import following_error_limits
from lingbot_va_ros.mux.settings import MuxSettings
from lingbot_va_ros.nodes import qos
from lingbot_va_ros.nodes.images.camera_watch import info_topic
from lingbot_va_ros.nodes.images.conversion import AUTO, choose_converter, ImageConverter
from lingbot_va_ros.nodes.images.transports import TRANSPORTS
from lingbot_va_ros.nodes.joint_state_watch import with_message_info
from lingbot_va_ros.resources import shared_file
from lingbot_va_ros.specs.embodiment import CameraSource, Embodiment
from lingbot_va_ros.specs.joint_state_topics import JointStateTopic
from lingbot_va_ros.specs.policy_file import PolicyFile

POLICY, MUX = 'lingbot_va_policy', 'command_mux'
MAX_AGE = 0.5  # s, the policy's own default for cameras and joints
# Discovery is complete after LEAST_DISCOVERY s if nothing new came for QUIET s. DDS discovers a
# process at once or, if its announcement is lost, by the next: Fast DDS sends one every 3 s.
LEAST_DISCOVERY, QUIET, LONGEST_DISCOVERY = 4.5, 1.0, 10.0
COMMAND_RATE = 100.0  # Hz, the default of command_mux
FIRST_MESSAGE = 2.0  # s, for new subscriptions to be matched
ANSWER_SECONDS = 3.0
TRAJECTORY_ACTION = 'control_msgs/action/FollowJointTrajectory'
MEASURING_DEPTH = 20  # no message of a burst may be lost
PROFILES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')


class GraphProbe:
    """A node in its own context that inspects the graph, subscribes and calls services."""

    def __init__(self, namespace: str):
        # Without this profile large images get lost, and every rate seems too low.
        if not any(os.environ.get(name) for name in PROFILES):
            profile = str(shared_file('config', 'fastdds_images.xml'))
            os.environ.update(dict.fromkeys(PROFILES, profile))
        self._context = Context()
        rclpy.init(args=[], context=self._context)
        try:
            self.node = Node(
                f'lingbot_va_check_{os.getpid()}', namespace=namespace, context=self._context,
                use_global_arguments=False, start_parameter_services=False)
        except BaseException:
            self._context.shutdown()
            raise
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
        self._context.shutdown()

    def spin(self, seconds: float, done: Callable[[], bool] = lambda: False) -> None:
        """Process messages for this time, s, or until `done`."""
        end = time.monotonic() + seconds
        while not done() and (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=min(left, 0.1))

    def resolve(self, topic: str) -> str:
        """Return the full name of a relative topic or node in the probed namespace."""
        return topic if topic.startswith('/') else (
            f'{self.node.get_namespace().rstrip("/")}/{topic}')

    def nodes(self) -> list[str]:
        """Return the full names of all other nodes, with duplicates."""
        return sorted(
            f'{namespace.rstrip("/")}/{name}'
            for name, namespace in self.node.get_node_names_and_namespaces()
            if not name.startswith('lingbot_va_check_') and not name.startswith('_ros2cli'))

    def wait_for_graph(self) -> None:
        """Wait until discovery is complete."""
        def known():
            return self.nodes(), sorted(
                (name, self.node.count_publishers(name), self.node.count_subscribers(name))
                for name, _ in self.node.get_topic_names_and_types())

        begin = since = time.monotonic()
        before = known()
        while (now := time.monotonic()) - begin < LONGEST_DISCOVERY:
            # A busy machine may see nothing at all for a while.
            if before[0] and now - begin >= LEAST_DISCOVERY and now - since >= QUIET:
                return
            self.spin(0.1)
            if known() != before:
                before, since = known(), time.monotonic()

    def call(self, kind, service: str, request):
        """Call a service; return its response, or None if none comes in time."""
        client = self.node.create_client(kind, service)
        try:
            self.spin(ANSWER_SECONDS, client.service_is_ready)
            if not client.service_is_ready():
                return None
            future = client.call_async(request)
            self.spin(ANSWER_SECONDS, future.done)
            return future.result() if future.done() else None
        finally:
            self.node.destroy_client(client)

    def listen(self, kind, topic: str, callback, profile: QoSProfile) -> None:
        """Subscribe a callback to a topic."""
        self.node.create_subscription(kind, topic, callback, profile)


def graph_findings(
    policy: PolicyFile | None, embodiment: Embodiment, namespace: str, seconds: float,
) -> list[Finding]:
    """
    Return the errors and warnings about the graph of this ROS domain.

    :param policy: requires its cameras and its rate; None: the cameras of the embodiment.
    :param namespace: namespace of policy_node and command_mux; empty for none.
    :param seconds: measuring time of rates and stamps, s.
    """
    try:
        probe = GraphProbe(namespace)
    except InvalidNamespaceException as fault:
        return [error('--namespace', ' '.join(str(fault).split()))]
    try:
        probe.wait_for_graph()
        nodes = probe.nodes()
        if not nodes:
            domain = os.environ.get('ROS_DOMAIN_ID', '0')
            return [error('graph', f'no node is visible in ROS domain {domain}: is ROS_DOMAIN_ID '
                                   'that of the robot, and does its network reach this machine?')]
        return _probe_graph(probe, nodes, policy, embodiment, seconds)
    finally:
        probe.close()


def _probe_graph(
    probe: GraphProbe, nodes: list[str], policy: PolicyFile | None, embodiment: Embodiment,
    seconds: float,
) -> list[Finding]:
    mux_name, policy_name = probe.resolve(MUX), probe.resolve(POLICY)
    found = duplicate_findings(nodes, (mux_name, policy_name))
    roles = policy.cameras if policy else tuple(embodiment.cameras)
    settings = {
        name: _settings_of(probe, name, roles, found) if name in nodes else {}
        for name in (mux_name, policy_name)}
    simulated = _sim_time(probe, settings, found)
    _compare_embodiments(settings, embodiment, found)

    cameras = {role: _camera_source(role, embodiment, settings[policy_name]) for role in roles}
    inputs = _inputs(
        probe, embodiment, cameras, settings[policy_name], policy_name in nodes)
    for entry in inputs:
        found += input_findings(probe.node, entry)
    if mux_name not in nodes:
        found.append(error(mux_name, 'does not run: no commands reach the arm'))
    if policy_name not in nodes:
        found.append(warning(policy_name, 'does not run and was not checked'))
    else:
        found += _lifecycle_findings(probe, policy_name)
        found += wiring_findings(probe.node, policy_name, mux_name)
    for topic in ('executed', f'{MUX}/mode', f'{POLICY}/status', 'policy/joint_trajectory'):
        found += sole_publisher_findings(probe.node, probe.resolve(topic))
    found += _all_controllers(probe, embodiment, mux_name, settings[mux_name])
    converter = _converter(policy_name, settings[policy_name], found)
    found += _listen(
        probe, policy, embodiment, cameras, settings[mux_name], simulated, seconds, converter)
    return found


def _converter(policy_name: str, settings: dict, found: list[Finding]) -> ImageConverter:
    """Return the converter of images that the policy has, or would have."""
    try:
        return choose_converter(str(settings.get('image_converter') or AUTO))[0]
    except ValueError as fault:
        found.append(error(policy_name, str(fault)))
        return ImageConverter()


def _settings_of(probe: GraphProbe, node: str, roles, found: list[Finding]) -> dict[str, object]:
    names = ['use_sim_time', 'embodiment', 'executed_source', 'joint_state_timeout',
             'max_following_error', 'command_rate', 'image_converter']
    names += [f'cameras.{role}.{key}' for role in roles for key in ('topic', 'transport')]
    values = read_parameters(probe, node, names)
    if values is None:
        found.append(warning(node, 'does not return its parameters'))
    return values or {}


def _sim_time(probe: GraphProbe, settings: dict[str, dict], found: list[Finding]) -> bool:
    """Return whether the graph uses /clock, and use that clock for this node too."""
    clock = bool(probe.node.get_publishers_info_by_topic('/clock'))
    told = {name: values['use_sim_time'] for name, values in settings.items()
            if 'use_sim_time' in values}
    for name, simulated in told.items():
        if simulated and not clock:
            found.append(error(name, 'use_sim_time is true, but /clock has no publisher'))
        elif clock and not simulated:
            found.append(error(name, f'use_sim_time is false, but /clock is published by '
                               f'{join_nodes(probe.node.get_publishers_info_by_topic("/clock"))}'))
    simulated = clock and (any(told.values()) or not told)
    if simulated:
        probe.node.set_parameters([Parameter('use_sim_time', value=True)])
        probe.spin(ANSWER_SECONDS, lambda: probe.node.get_clock().now().nanoseconds > 0)
        if probe.node.get_clock().now().nanoseconds == 0:
            found.append(error('/clock', f'silent, or it stands at 0 for {ANSWER_SECONDS:g} s'))
    return simulated


def _compare_embodiments(
    settings: dict[str, dict], embodiment: Embodiment, found: list[Finding],
) -> None:
    for name, values in settings.items():
        own = str(values.get('embodiment', embodiment.name))
        stem = own.rsplit('/', 1)[-1].rsplit('.', 1)[0]
        if stem != embodiment.name:
            found.append(warning(
                name, f'runs with the embodiment {own}, but {embodiment.name} is checked'))


def _camera_source(role: str, embodiment: Embodiment, settings: dict) -> CameraSource:
    """Return the source of a camera: the policy's parameters take precedence."""
    source = embodiment.cameras.get(role, CameraSource(role, f'camera/{role}/image_raw'))
    return replace(
        source, topic=settings.get(f'cameras.{role}.topic', source.topic),
        transport=settings.get(f'cameras.{role}.transport', source.transport))


def _camera_topic(probe: GraphProbe, source: CameraSource) -> tuple[str, type, str]:
    transport = TRANSPORTS[source.transport]
    return probe.resolve(source.topic + transport.suffix), transport.kind, transport.type_name


def _inputs(
    probe: GraphProbe, embodiment: Embodiment, cameras: dict[str, CameraSource], settings: dict,
    policy_runs: bool,
) -> list[TopicInput]:
    entries = [
        TopicInput(probe.resolve(topic), 'sensor_msgs/msg/JointState', qos.JOINT_STATES, POLICY)
        for topic in sorted({topic.topic for topic in embodiment.joint_states})]
    for source in cameras.values():
        topic, _, kind = _camera_topic(probe, source)
        entries.append(TopicInput(topic, kind, qos.SENSOR, POLICY))
    trajectory, mode = 'trajectory_msgs/msg/JointTrajectory', 'lingbot_va_ros/msg/ControlMode'
    from_topic = settings.get('executed_source', 'topic') == 'topic'
    for topic, kind, profile, reader, required in (
            ('executed', trajectory, qos.EXECUTED, POLICY, from_topic),
            (f'{MUX}/mode', mode, qos.LATCHED, POLICY, True),
            ('control_mode', mode, qos.LATCHED, POLICY, False),
            (f'{POLICY}/joint_trajectory', trajectory, qos.COMMAND, MUX, False),
            ('policy/joint_trajectory', trajectory, qos.COMMAND, MUX, False),
            ('teleop/joint_trajectory', trajectory, qos.COMMAND, MUX, False),
            ('teleop/joint_states', 'sensor_msgs/msg/JointState', qos.SENSOR, MUX, False),
            ('joy', 'sensor_msgs/msg/Joy', qos.SENSOR, MUX, False),
            ('emergency_stop', 'std_msgs/msg/Bool', qos.EVENTS, MUX, False),
            (f'{POLICY}/status', 'lingbot_va_ros/msg/PolicyStatus', qos.LATCHED,
             'lingbot_va check', policy_runs)):
        entries.append(TopicInput(probe.resolve(topic), kind, profile, reader, required))
    return entries


def _lifecycle_findings(probe: GraphProbe, policy_name: str) -> list[Finding]:
    reply = probe.call(GetState, f'{policy_name}/get_state', GetState.Request())
    if reply is None:
        return [error(policy_name, 'its lifecycle service get_state does not answer')]
    if reply.current_state.label == 'active':
        return []
    return [warning(policy_name, f'its lifecycle state is {reply.current_state.label}; it acts '
                                 'only while active')]


def _all_controllers(
    probe: GraphProbe, embodiment: Embodiment, mux_name: str, mux_settings: dict,
) -> list[Finding]:
    found, listening = [], []
    limits = following_error_limits(embodiment, float(mux_settings.get(
        'max_following_error', MuxSettings().max_following_error)))
    figures = MuxFigures(
        dict(zip(embodiment.joints, limits.tolist(), strict=True)),
        float(mux_settings.get('command_rate', COMMAND_RATE)))
    for controller in embodiment.controllers:
        where = probe.resolve(controller.topic)
        if controller.kind == 'gripper_action':
            found += action_findings(probe.node, where)
        elif controller.kind == 'trajectory_action':
            found += action_findings(probe.node, where, [TRAJECTORY_ACTION])
        if not controller.message_type:
            continue
        wrong, listeners = controller_topic_findings(
            probe.node, where, qos.COMMAND, mux_name, controller.message_type)
        found += wrong
        if controller.kind != 'trajectory':
            found.append(unbraked_finding(where, controller))
            continue
        found += controller_findings(probe, controller, listeners, figures)
        listening += listeners
    return found + manager_findings(probe, listening)


def _publishes(probe: GraphProbe, topic: str, kind: str) -> str:
    """Return the nodes that publish a topic with the right type, or an empty string."""
    ends = [end for end in probe.node.get_publishers_info_by_topic(topic)
            if end.topic_type == kind]
    return join_nodes(ends) if ends else ''


def _listen(
    probe: GraphProbe, policy: PolicyFile | None, embodiment: Embodiment,
    cameras: dict[str, CameraSource], mux_settings: dict, simulated: bool, seconds: float,
    converter: ImageConverter,
) -> list[Finding]:
    def now_ns() -> int:
        return probe.node.get_clock().now().nanoseconds

    def measuring(profile: QoSProfile) -> QoSProfile:
        return QoSProfile(reliability=profile.reliability, durability=profile.durability,
                          history=profile.history, depth=MEASURING_DEPTH)

    heard = {}
    for role, source in cameras.items():
        topic, message, kind = _camera_topic(probe, source)
        publishers = _publishes(probe, topic, kind)
        if publishers:
            size = _size_of(policy, role) if policy else None
            heard[topic] = publishers, CameraStream(
                source, size, now_ns, simulated, converter)
            probe.listen(message, topic, heard[topic][1].take, measuring(qos.SENSOR))
            probe.listen(
                CameraInfo, info_topic(probe.resolve(source.topic)), heard[topic][1].announce,
                qos.SENSOR)
    joints = JointStateStream(embodiment, now_ns, simulated)
    publishers = _listen_to_joints(probe, embodiment, joints, measuring(qos.JOINT_STATES))
    newest: dict[str, Any] = {}
    for name, kind in ((f'{MUX}/mode', ControlMode), (f'{POLICY}/status', PolicyStatus)):
        probe.listen(kind, probe.resolve(name), lambda message, name=name: newest.update(
            {name: message}), qos.LATCHED)
    # Matching delays the first message; it does not count for the rate.
    probe.spin(FIRST_MESSAGE, lambda: all(each.stamps.arrivals for _, each in heard.values()) and (
        not publishers or bool(joints.arrivals)))
    probe.spin(seconds)

    rate = policy.action_rate / policy.images_every if policy else None
    found = []
    for where, (sender, camera) in heard.items():
        found += camera.findings(where, sender, rate, MAX_AGE, seconds)
    if publishers:
        timeout = float(mux_settings.get('joint_state_timeout', MuxSettings().joint_state_timeout))
        where = ', '.join(sorted(
            {probe.resolve(topic.topic) for topic in embodiment.joint_states}))
        found += joints.findings(where, publishers, timeout, MAX_AGE, seconds)
    return found + _mode_findings(probe, newest)


def _listen_to_joints(
    probe: GraphProbe, embodiment: Embodiment, joints: JointStateStream, profile: QoSProfile,
) -> str:
    """Listen to every topic of joint states; returns the nodes that publish on them."""
    def listener(topic: JointStateTopic) -> Callable[[JointState, Mapping[str, Any]], None]:
        def take(message: JointState, info: Mapping[str, Any]) -> None:
            joints.take(topic, message, info)

        return take

    publishers = []
    for topic in embodiment.joint_states:
        where = probe.resolve(topic.topic)
        ends = _publishes(probe, where, 'sensor_msgs/msg/JointState')
        if ends:
            publishers.append(ends)
            probe.listen(JointState, where, with_message_info(listener(topic)), profile)
    return ', '.join(dict.fromkeys(publishers))


def _size_of(policy: PolicyFile, role: str) -> tuple[int, int]:
    """Return height and width of a camera image in the policy, pixels."""
    if policy.layout == 'tshape' and role != policy.cameras[0]:
        return policy.height // 2, policy.width // 2
    return policy.height, policy.width


def _mode_findings(probe: GraphProbe, newest: dict[str, Any]) -> list[Finding]:
    found = []
    mode = newest.get(f'{MUX}/mode')
    if mode is not None and mode.mode == ControlMode.STOPPED:
        found.append(warning(
            probe.resolve(MUX), f'is STOPPED ({mode.reason}): call clear_stop before set_mode'))
    status = newest.get(f'{POLICY}/status')
    if status is not None and status.mode in (PolicyStatus.FAULT, PolicyStatus.HOLDING):
        fault = status.mode == PolicyStatus.FAULT
        found.append((error if fault else warning)(
            probe.resolve(POLICY), f'is {"in FAULT" if fault else "HOLDING"}: {status.reason}'))
    return found
