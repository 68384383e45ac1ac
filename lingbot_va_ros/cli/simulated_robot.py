"""The simulated robot, the mux and the policy as processes, and a node that talks to them."""

import json
import os
import time
from contextlib import contextmanager
from typing import Any, Iterator, List, Mapping, Tuple

import rclpy
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from lingbot_va_ros.cli.checkpoint import Checkpoint
from lingbot_va_ros.cli.processes import (
    DemoFailed, NodeProcess, NodeProcesses, last_match, node_command)
from lingbot_va_ros.cli.progress import Progress
from lingbot_va_ros.cli.steering import Operator
from lingbot_va_ros.robot.embodiment import load_embodiment

EMBODIMENT = 'sim_left'
CONTROL_RATE = 50.0  # Hz
POLICY, MUX, ROBOT = 'lingbot_va_policy', 'command_mux', 'sim_robot'
DISCOVERY_SECONDS = 2.5  # after which processes know each other


def start_processes(
    processes: NodeProcesses, checkpoint: Checkpoint, policy: Mapping[str, Any] = {},
    robot: Mapping[str, Any] = {},
) -> NodeProcess:
    """
    Start sim_robot, command_mux and policy_node, and return the last, which is not configured.

    :param policy: parameters of policy_node beside checkpoint, embodiment and control rate;
        `robot` those of sim_robot.
    """
    processes.start(ROBOT, [*node_command(ROBOT), '--ros-args', *_parameters(robot)])
    processes.start(MUX, [
        *node_command(MUX), '--ros-args', *_parameters({'embodiment': EMBODIMENT}),
        '-r', f'policy/joint_trajectory:={POLICY}/joint_trajectory'])
    return processes.start('policy_node', [
        *node_command('policy_node'), '--ros-args', '-r', f'control_mode:={MUX}/mode',
        *_parameters({
            'checkpoint': str(checkpoint.folder), 'embodiment': EMBODIMENT,
            'control_rate': CONTROL_RATE, **policy})])


def _parameters(values: Mapping[str, Any]) -> List[str]:
    """Return the words that set parameters; JSON is YAML, in which rcl reads the values."""
    words: List[str] = []
    for name, value in values.items():
        words += ['-p', f'{name}:={json.dumps(value, ensure_ascii=False)}']
    return words


def bring_up(operator: Operator, policy: NodeProcess) -> None:
    """
    Configure and activate the policy.

    :raises DemoFailed: it cannot be; with its reason where it is known.
    """
    if not operator.configure(POLICY):
        reason = last_match(policy.log, r'configure failed: (.*)')
        raise DemoFailed(
            f'policy_node cannot be configured: {reason or "see its log"}', policy.log)
    if not operator.activate(POLICY):
        raise DemoFailed('policy_node cannot be activated', policy.log)


@contextmanager
def ros_node(name: str) -> Iterator[Tuple[Node, Executor]]:
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


def refuse_company(progress: Progress) -> None:
    """
    Refuse to start where the user's ROS domain has a robot already: we would move it.

    :raises DemoFailed: it names what is there.
    """
    domain = os.environ['ROS_DOMAIN_ID']
    progress.show(phase=f'looking whether a robot is in ROS domain {domain}')
    progress.refresh(now=True)
    controllers = [controller.topic for controller in load_embodiment(EMBODIMENT).controllers]
    deadline = time.monotonic() + DISCOVERY_SECONDS
    with ros_node('lingbot_va_look') as (node, _):
        while time.monotonic() < deadline:
            there = set(node.get_node_names()) & {POLICY, MUX, ROBOT}
            there |= {topic for topic in controllers if node.count_subscribers(topic)}
            there |= {topic for topic in ('joint_states',) if node.count_publishers(topic)}
            if there:
                raise DemoFailed(
                    f'a robot is in ROS domain {domain} already ({", ".join(sorted(there))}); '
                    'unset ROS_DOMAIN_ID, or set it to a free one')
            time.sleep(0.1)
