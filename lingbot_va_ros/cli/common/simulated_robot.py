"""Start sim_robot, command_mux and policy_node as processes, and control them over ROS."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
import json
import os
import time
from typing import Any

from rcl_interfaces.srv import SetParameters
import rclpy
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from rclpy.time import Time
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from lingbot_va_ros.cli.common.checkpoint import Checkpoint
from lingbot_va_ros.cli.common.failure import CommandFailed
from lingbot_va_ros.cli.common.operator_client import OperatorClient
from lingbot_va_ros.cli.common.processes import (
    last_match,
    node_command,
    NodeProcess,
    NodeProcesses,
)
from lingbot_va_ros.cli.common.progress import ProgressDisplay
from lingbot_va_ros.msg import ControlMode
from lingbot_va_ros.specs.embodiment import load_embodiment

EMBODIMENT = 'sim_left'
CONTROL_RATE = 50.0  # Hz
POLICY, MUX, ROBOT = 'lingbot_va_policy', 'command_mux', 'sim_robot'
RESETS, RESET_SECONDS = 4, 7.5  # attempts until the arm is at home, and the time of each
DISCOVERY_SECONDS = 2.5  # until processes have discovered each other
MODE_CHANGE_SECONDS = 15.0
MODE_SECONDS = 30.0  # for the mux to report a requested mode
AT_HOME = 0.02  # rad or m
# In the reason of the mux if a message came too late. Nothing blocks the simulated arm: where it
# seems to stand still, its joint states come late.
LATE = ('silent for', 'too old', 'stands still')


def start_processes(
    processes: NodeProcesses, checkpoint: Checkpoint, policy: Mapping[str, Any] = {},
    robot: Mapping[str, Any] = {}, mux: Mapping[str, Any] = {},
) -> NodeProcess:
    """
    Start sim_robot, command_mux and policy_node; return policy_node, which is unconfigured.

    :param policy: parameters of policy_node besides checkpoint, embodiment and control rate.
    :param robot: parameters of sim_robot.
    :param mux: parameters of command_mux besides the embodiment.
    """
    processes.start(ROBOT, [*node_command(ROBOT), '--ros-args', *_parameters(robot)])
    processes.start(MUX, [
        *node_command(MUX), '--ros-args', *_parameters({'embodiment': EMBODIMENT, **mux}),
        '-r', f'policy/joint_trajectory:={POLICY}/joint_trajectory'])
    return processes.start('policy_node', [
        *node_command('policy_node'), '--ros-args', '-r', f'control_mode:={MUX}/mode',
        '-r', f'speed_scale:={MUX}/speed_scale',
        *_parameters({
            'checkpoint': str(checkpoint.folder), 'embodiment': EMBODIMENT,
            'control_rate': CONTROL_RATE, **policy})])


def _parameters(values: Mapping[str, Any]) -> list[str]:
    """Return command-line arguments that set parameters; rcl reads the JSON values as YAML."""
    words: list[str] = []
    for name, value in values.items():
        words += ['-p', f'{name}:={json.dumps(value, ensure_ascii=False)}']
    return words


def configure_and_activate(operator: OperatorClient, policy: NodeProcess) -> None:
    """
    Configure and activate policy_node.

    :raises CommandFailed: a transition fails; the message has its reason if it is known.
    """
    if not operator.configure(POLICY):
        reason = last_match(policy.log, r'configure failed: (.*)')
        raise CommandFailed(
            f'policy_node cannot be configured: {reason or "see its log"}', policy.log)
    if not operator.activate(POLICY):
        raise CommandFailed('policy_node cannot be activated', policy.log)


def reset_scene(
    operator: OperatorClient, newest: Callable[[], tuple[int, JointState]], **values: Any,
) -> None:
    """
    Set parameters of sim_robot (`task`, `seed`) and reset it: a new scene, the arm at home.

    The mux must hold the arm. A stop of the mux that arrives after the reset may move the arm away
    from home; the reset is then repeated.

    :param newest: returns the number of received task states, and the newest joint states.
    :raises CommandFailed: a parameter is refused, the reset fails, or the arm leaves its home.
    """
    parameters = [Parameter(name, value=value) for name, value in values.items()]
    answers = operator.call(
        SetParameters, f'{ROBOT}/set_parameters', SetParameters.Request(
            parameters=[parameter.to_parameter_msg() for parameter in parameters]),
        may_repeat=True).results
    for (name, value), answer in zip(values.items(), answers):
        if not answer.successful:
            raise CommandFailed(f'{ROBOT} refuses the {name} {value}: {answer.reason}')
    for _ in range(RESETS):
        answer = operator.call(
            Trigger, f'{ROBOT}/reset', Trigger.Request(), may_repeat=True)
        if not answer.success:
            raise CommandFailed(f'{ROBOT} cannot be reset: {answer.message}')
        heard, until = newest()[0], time.monotonic() + RESET_SECONDS

        def at_home() -> bool:
            # The first message may have been sent before the reset.
            return newest()[0] > heard + 1 and distance_from_home(newest()[1]) < AT_HOME

        operator.wait_until(
            lambda: at_home() or time.monotonic() > until, 2 * RESET_SECONDS, f'{ROBOT}')
        if at_home():
            return
    raise CommandFailed(f'the arm is not at home after {RESETS} resets')


def distance_from_home(joints: JointState) -> float:
    """Return the largest distance of a joint from its home position, rad or m."""
    home = _home()
    return max((abs(position - home[name])
                for name, position in zip(joints.name, joints.position) if name in home),
               default=float('inf'))


@lru_cache
def _home() -> dict[str, float]:
    embodiment = load_embodiment(EMBODIMENT)
    return dict(zip(embodiment.joints, embodiment.home))


def give_arm_to_policy(
    operator: OperatorClient, newest_mode: Callable[[], ControlMode | None],
) -> None:
    """
    Set the mode POLICY, and wait until the mux reports it.

    If the mux leaves POLICY at once, only the later report may arrive; it ends the wait too.

    :param newest_mode: returns the newest report of the mux.
    :raises CommandFailed: the mux refuses the mode.
    """
    asked_ns = operator.now_ns()
    operator.set_mode(MUX, ControlMode.POLICY, MODE_CHANGE_SECONDS)

    def is_reported() -> bool:
        newest = newest_mode()
        return newest is not None and (
            newest.mode == ControlMode.POLICY
            or Time.from_msg(newest.header.stamp).nanoseconds > asked_ns)
    operator.wait_until(is_reported, MODE_SECONDS, f'{MUX} to report its mode')


@contextmanager
def ros_node(name: str) -> Iterator[tuple[Node, Executor]]:
    """Yield a node and its executor; rclpy is shut down afterwards."""
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = rclpy.create_node(name)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        try:
            yield node, executor
        finally:
            executor.shutdown(timeout_sec=1.0)
            node.destroy_node()
    finally:
        rclpy.try_shutdown()


def require_no_robot(progress: ProgressDisplay) -> None:
    """
    Check that the user's ROS domain has no robot, whose arm would move too.

    :raises CommandFailed: the domain has a robot; the message names its nodes and topics.
    """
    domain = os.environ['ROS_DOMAIN_ID']
    progress.show(phase=f'checking that ROS domain {domain} has no robot')
    progress.refresh(now=True)
    controllers = [controller.topic for controller in load_embodiment(EMBODIMENT).controllers]
    deadline = time.monotonic() + DISCOVERY_SECONDS
    with ros_node('lingbot_va_look') as (node, _):
        while time.monotonic() < deadline:
            there = set(node.get_node_names()) & {POLICY, MUX, ROBOT}
            there |= {topic for topic in controllers if node.count_subscribers(topic)}
            there |= {topic for topic in ('joint_states',) if node.count_publishers(topic)}
            if there:
                raise CommandFailed(
                    f'ROS domain {domain} already has a robot ({", ".join(sorted(there))}); '
                    'unset ROS_DOMAIN_ID, or set it to a free one')
            time.sleep(0.1)
