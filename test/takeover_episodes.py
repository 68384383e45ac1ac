"""
Run whole episodes over ROS while a scripted person takes the arm every few seconds.

    python test/takeover_episodes.py CHECKPOINT [--task wipe_plate] [--episodes 2] [--seed 1]

The simulated robot, command_mux and policy_node run as processes. The person moves a leader arm
around where the arm is and gives it back. Prints a line for each episode; the exit code is 1 where
a takeover cost the episode: a fault, another epoch, a HOLD that nobody asked for, a command beyond
the limits, or a memory that did not grow under the person's hand.
"""

import argparse
import os
from pathlib import Path
import sys
import tempfile
import time

import numpy as np
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from lingbot_va_ros.cli.common.checkpoint import choose_checkpoint
from lingbot_va_ros.cli.common.operator_client import OperatorClient
from lingbot_va_ros.cli.common.processes import NodeProcesses, ros_environment
from lingbot_va_ros.cli.common.simulated_robot import (
    configure_and_activate,
    give_arm_to_policy,
    LATE,
    MUX,
    POLICY,
    reset_scene,
    ROBOT,
    ros_node,
    start_processes,
)
from lingbot_va_ros.evaluation.tasks import instruction_of
from lingbot_va_ros.msg import ControlMode, PolicyStatus
from lingbot_va_ros.nodes import qos
from lingbot_va_ros.specs.embodiment import load_embodiment
from lingbot_va_ros.srv import ResetMemory, SetInstruction

ARM = load_embodiment('sim_left')
REACH = np.array([0.06, 0.04, 0.04, 0.06, 0.06, 0.06, 0.0])  # of the person's motion, rad


class Person:
    """Listens to everybody, leads the arm, and judges what was executed."""

    def __init__(self, node):
        self.node = node
        self.status = self.mode = self.last = None
        self.state, self.wrong = '', []
        self.hand = None
        for kind, name, callback, profile in (
                (PolicyStatus, f'{POLICY}/status', self._on_status, qos.LATCHED),
                (ControlMode, f'{MUX}/mode', self._on_mode, qos.LATCHED),
                (String, f'{ROBOT}/task_state', self._on_state, qos.EVENTS),
                (JointTrajectory, 'executed', self._on_executed, qos.EXECUTED)):
            node.create_subscription(kind, name, callback, profile)
        self._leader = node.create_publisher(
            JointState, 'teleop/joint_states', qos.JOINT_STATES)
        node.create_timer(0.02, self._lead)

    def _on_status(self, message):
        self.status = message

    def _on_mode(self, message):
        self.mode = message

    def _on_state(self, message):
        self.state = message.data

    def _on_executed(self, message):
        point, limits = message.points[0], ARM.limits
        due = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
        q, v = np.array(point.positions), np.array(point.velocities)
        if (np.abs(v) > limits.velocity + 1e-9).any() or (
                (q < limits.lower - 1e-9) | (q > limits.upper + 1e-9)).any():
            self.wrong.append(f'{q} {v}')
        if self.last is not None and due - self.last[0] < 0.015 and (
                np.abs(v - self.last[2]) > limits.acceleration * 0.01 + 1e-7).any():
            self.wrong.append(f'acceleration from {self.last[2]} to {v}')
        self.last = (due, q, v)

    def _lead(self):
        if self.last is None:
            return
        q = self.last[1] if self.hand is None else self.hand(time.monotonic())
        message = JointState(name=list(ARM.joints), position=list(q))
        message.header.stamp = self.node.get_clock().now().to_msg()
        self._leader.publish(message)

    def take(self):
        begin, at = time.monotonic(), self.last[1]
        self.hand = lambda now: at + REACH * np.sin(2.0 * (now - begin))


def episode(operator, person, task, seed, rng):
    operator.set_mode(MUX, ControlMode.HOLD, 15.0)
    reset_scene(operator, seed=seed)
    operator.call(ResetMemory, f'{POLICY}/reset_memory', ResetMemory.Request())
    give_arm_to_policy(operator, lambda: person.mode)
    operator.call(SetInstruction, f'{POLICY}/set_instruction',
                  SetInstruction.Request(instruction=instruction_of(task)))
    running = PolicyStatus.RUNNING
    operator.wait_until(lambda: person.status.mode == running, 60.0, 'the first chunk')
    epoch, grown, takeovers, wrong, late = person.status.epoch, 0, 0, [], 0
    end = time.monotonic() + 90.0

    def pause(seconds):
        until = time.monotonic() + seconds
        operator.wait_until(lambda: time.monotonic() > until, seconds + 30.0, 'time')

    while time.monotonic() < end and '"done": true' not in person.state:
        pause(rng.uniform(1.0, 4.0))
        if person.mode.mode != ControlMode.POLICY:
            late += held(person, wrong)
            give_arm_to_policy(operator, lambda: person.mode)
        before = person.status.memory_frames
        person.take()
        operator.set_mode(MUX, ControlMode.TELEOP, 15.0)
        pause(rng.uniform(1.0, 3.0))
        if person.mode.mode != ControlMode.TELEOP:
            late += held(person, wrong)
        person.hand = None
        give_arm_to_policy(operator, lambda: person.mode)
        chunk = person.status.chunk_id
        operator.wait_until(
            lambda: person.status.mode == running and person.status.chunk_id > chunk
            or '"done": true' in person.state, 60.0, 'a chunk after the takeover')
        grown += person.status.memory_frames > before
        takeovers += 1
        if person.status.epoch != epoch:
            wrong.append(f'epoch {person.status.epoch}')
    operator.call(SetInstruction, f'{POLICY}/set_instruction', SetInstruction.Request())
    if takeovers and not grown:
        wrong.append('nothing was remembered')
    wrong += person.wrong[:3]
    person.wrong.clear()
    print(f'seed {seed}: {takeovers} takeovers, {grown} of them remembered at once, '
          f'{late} holds because this machine was late, {person.state}; '
          f'wrong: {wrong or "nothing"}', flush=True)
    return not wrong


def held(person, wrong):
    """Return whether the mux holds because a message came late; else it is wrong."""
    late = any(words in person.mode.reason for words in LATE)
    if not late:
        wrong.append(f'the mux holds: {person.mode.reason}')
    return late


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('--task', default='wipe_plate')
    parser.add_argument('--episodes', type=int, default=2)
    parser.add_argument('--seed', type=int, default=1)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder)
        environment = ros_environment(logs)
        os.environ.update(environment)
        checkpoint = choose_checkpoint(
            arguments.checkpoint, logs / 'untrained', environment, print)
        sizes = {'camera_width': checkpoint.policy.width,
                 'camera_height': checkpoint.policy.height}
        with NodeProcesses(environment, logs) as processes:
            policy = start_processes(processes, checkpoint, {'schedule': 'async'}, {
                'task': arguments.task, 'seed': arguments.seed, **sizes})
            with ros_node('person') as (node, executor):
                person = Person(node)
                operator = OperatorClient(node, executor, processes.check)
                operator.wait_until(
                    lambda: person.status and person.mode and person.state, 60.0, 'everybody')
                configure_and_activate(operator, policy)
                well = [episode(operator, person, arguments.task, arguments.seed + i, rng)
                        for i in range(arguments.episodes)]
        return 0 if all(well) else 1


if __name__ == '__main__':
    sys.exit(main())
