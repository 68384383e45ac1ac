"""Record the ROS messages of one episode, and compute its statistics."""

from collections.abc import Sequence
import json
from typing import Any

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from lingbot_va_ros.cli.common.simulated_robot import EMBODIMENT, MUX, POLICY, ROBOT
from lingbot_va_ros.evaluation.smoothness import measure_smoothness, seams_of, Smoothness
from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.msg import ActionChunk, ControlMode, PolicyStatus
from lingbot_va_ros.nodes import qos
from lingbot_va_ros.specs.embodiment import load_embodiment


class EpisodeListener:
    """
    Subscriptions of a node: the newest messages, and the history since `begin_episode`.

    `task_states` counts the messages about the task, `action_period` is in seconds.
    """

    def __init__(self, node: Node, action_period: float):
        self.status: Any = None  # PolicyStatus, None before the first message
        self.mode: Any = None  # ControlMode, None before the first message
        self.joints: JointState | None = None
        self.task_state: dict = {}
        self.task_states = 0
        self.chunks: list[ActionChunk] = []
        self._node = node
        self._period = action_period
        self._executed: list[JointTrajectory] = []
        self._embodiment = load_embodiment(EMBODIMENT)
        # A long history where no message may be lost: this process may be late.
        for kind, topic, callback, profile in (
                (PolicyStatus, f'{POLICY}/status', self._on_status, qos.LATCHED),
                (ControlMode, f'{MUX}/mode', self._on_mode, qos.LATCHED),
                (String, f'{ROBOT}/task_state', self._on_task_state, qos.LATCHED),
                (JointState, 'joint_states', self._on_joints, qos.JOINT_STATES),
                (ActionChunk, f'{POLICY}/action_chunk', self._on_chunk, qos.EVENTS),
                (JointTrajectory, 'executed', self._on_executed, qos.EXECUTED)):
            node.create_subscription(kind, topic, callback, profile)

    def _on_status(self, message: PolicyStatus) -> None:
        self.status = message

    def _on_mode(self, message: ControlMode) -> None:
        self.mode = message

    def _on_joints(self, message: JointState) -> None:
        self.joints = message

    def _on_task_state(self, message: String) -> None:
        self.task_state = json.loads(message.data)
        self.task_states += 1

    def _on_chunk(self, message: ActionChunk) -> None:
        self.chunks.append(message)

    def _on_executed(self, message: JointTrajectory) -> None:
        self._executed.append(message)

    def begin_episode(self) -> None:
        """Discard chunks and executed commands: an episode begins."""
        self.chunks, self._executed = [], []

    def chunks_executed(self) -> int:
        """Return the number of chunks whose last action is due by now."""
        now = self._node.get_clock().now().nanoseconds
        return sum(_span(chunk)[1] <= now for chunk in self.chunks)

    def inference_seconds(self) -> tuple[float, ...]:
        """Return the inference time of each chunk, s."""
        return tuple(chunk.inference_seconds for chunk in self.chunks)

    def seams(self) -> Smoothness:
        """Return the largest step and acceleration at seams between chunks of one epoch."""
        worst = Smoothness()
        for epoch in {chunk.epoch for chunk in self.chunks}:
            first, last = zip(*(_span(chunk) for chunk in self.chunks if chunk.epoch == epoch))
            worst = worst.worst(self._smoothness(seams_of(
                (np.array(first) / NANOSECONDS).tolist(), (np.array(last) / NANOSECONDS).tolist(),
                self._period)))
        return worst

    def motion(self) -> Smoothness:
        """Return the largest step and acceleration from the first chunk to the last one."""
        if not self.chunks:
            return Smoothness()
        begin, end = _span(self.chunks[0])[0], _span(self.chunks[-1])[1]
        return self._smoothness([(begin / NANOSECONDS - self._period, end / NANOSECONDS)])

    def _smoothness(self, spans: Sequence[tuple[float, float]]) -> Smoothness:
        """Return the largest values during time spans, s; grippers are not in rad and left out."""
        if not self._executed:
            return Smoothness()
        grippers = {arm.gripper.joint for arm in self._embodiment.arms if arm.gripper}
        columns = [index for index, name in enumerate(self._executed[0].joint_names)
                   if name not in grippers]
        origin = _ns(self._executed[0].header.stamp)
        stamps_ns = np.array([_ns(message.header.stamp) for message in self._executed])
        times = (stamps_ns - origin) / NANOSECONDS
        positions = np.array([message.points[0].positions for message in self._executed])
        return measure_smoothness(times, positions[:, columns], [
            (begin - origin / NANOSECONDS, end - origin / NANOSECONDS) for begin, end in spans])


def _ns(time) -> int:
    return time.sec * NANOSECONDS + time.nanosec


def _span(chunk: ActionChunk) -> tuple[int, int]:
    """Return the due times of a chunk's first and last action, ns of ROS time."""
    first = _ns(chunk.header.stamp)
    return first, first + _ns(chunk.trajectory.points[-1].time_from_start)
