"""Node of the scripted operator; it publishes trajectories as a jogging program does."""

import argparse
from collections.abc import Sequence
import json
import sys

import numpy as np
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from lingbot_va_ros.cli.common.simulated_robot import MUX, ROBOT
from lingbot_va_ros.cli.demo.scripted_operator import Phase, ScriptedOperator
from lingbot_va_ros.msg import ControlMode
from lingbot_va_ros.mux.modes import MuxMode
from lingbot_va_ros.nodes import qos
from lingbot_va_ros.nodes.policy.messages import trajectory_message
from lingbot_va_ros.nodes.run import run_node
from lingbot_va_ros.sim.simulation import Simulation
from lingbot_va_ros.srv import SetControlMode

TASK = 'wipe_plate'
TOPIC = 'teleop/joint_trajectory'
RATE = 50.0  # Hz


class ScriptedOperatorNode(Node):
    """Passes messages to a ScriptedOperator, publishes its plans and requests its modes."""

    def __init__(self, seed: int, after: int):
        super().__init__('scripted_operator')
        simulation = Simulation(task=TASK, seed=seed)
        self._operator = ScriptedOperator(simulation, after)
        self._joints = simulation.joints
        self._said = Phase.WATCHING
        self._asked: Future | None = None
        self.create_subscription(
            String, f'{ROBOT}/task_state', self._on_task_state, qos.LATCHED)
        self.create_subscription(ControlMode, f'{MUX}/mode', self._on_mode, qos.LATCHED)
        self.create_subscription(JointState, 'joint_states', self._on_joints, qos.SENSOR)
        self._set_mode = self.create_client(SetControlMode, f'{MUX}/set_mode')
        # Last: this publisher signals that the node is ready.
        self._commands = self.create_publisher(JointTrajectory, TOPIC, qos.COMMAND)
        self.create_timer(1.0 / RATE, self._step)

    def close(self, _asked_by: int | None = None) -> bool:
        """Return that no thread is left; the mux holds when the trajectories stop."""
        return True

    def _on_task_state(self, message: String) -> None:
        self._operator.strokes = json.loads(message.data)['counts'].get('strokes', 0)

    def _on_mode(self, message: ControlMode) -> None:
        self._operator.mode = MuxMode(message.mode)

    def _on_joints(self, message: JointState) -> None:
        place = {name: index for index, name in enumerate(message.name)}
        order = [place[name] for name in self._joints]
        self._operator.measured(
            np.array(message.position)[order], np.array(message.velocity)[order])

    def _step(self) -> None:
        now_ns = self.get_clock().now().nanoseconds
        plan, mode = self._operator.step(now_ns)
        if self._operator.doing != self._said:
            self._said = self._operator.doing
            self.get_logger().info(self._said.value)
        if plan is not None:
            # Planning takes some milliseconds.
            now_ns = self.get_clock().now().nanoseconds
            self._commands.publish(trajectory_message(
                now_ns, self._joints, *plan.remainder(now_ns, 1.0 / RATE)))
        if mode is not None and (self._asked is None or self._asked.done()):
            self._asked = self._set_mode.call_async(SetControlMode.Request(mode=int(mode)))


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seed', type=int, default=0, help="random seed of the robot's scene")
    parser.add_argument(
        '--after', type=int, default=2, help='strokes of the policy before the takeover')
    options = parser.parse_args(args)
    return run_node(lambda: ScriptedOperatorNode(options.seed, options.after), [])


if __name__ == '__main__':
    sys.exit(main())
