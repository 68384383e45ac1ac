"""Record the ROS messages that the report and the video of the demo need."""

from collections.abc import Sequence
from functools import partial
import json
from typing import Any

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from lingbot_va_ros.cli.demo.episode import (
    ChunkTiming,
    JointMotion,
    OVERVIEW,
    RecordedEpisode,
    RecordedImage,
)
from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.msg import ActionChunk, ControlMode, PolicyStatus
from lingbot_va_ros.mux.modes import MuxMode
from lingbot_va_ros.nodes import qos
from lingbot_va_ros.nodes.images.conversion import to_rgb
from lingbot_va_ros.nodes.stamps import nanoseconds_of

# Images of the robot's cameras come at 30 Hz; 10 Hz are enough for the video and save memory.
KEEP_EVERY = 3


class EpisodeRecorder:
    """
    Subscriptions of a node that record an episode and keep the newest message of each topic.

    `task_states` counts the messages about the task.

    :param cameras: role to image topic; the role `OVERVIEW` is the simulator's own camera.
    """

    def __init__(self, node: Node, cameras: dict[str, str]):
        self.status: Any = None  # PolicyStatus, None before the first message
        self.mode: Any = None  # ControlMode, None before the first message
        self.chunks: list[ActionChunk] = []
        self.task_state: dict = {}
        self.task_states = 0
        self.joints: JointState | None = None
        self._node = node
        self._epoch = self._starved_before = 0
        self._began_ns = node.get_clock().now().nanoseconds
        self._executed: list[JointTrajectory] = []
        self._joint_states: list[JointState] = []
        self._published_ns: list[int] = []
        self._images: dict[str, list[Image]] = {name: [] for name in cameras}
        self._seen = dict.fromkeys(cameras, 0)
        self._imagined: list[Image] = []
        self._counted: list[tuple[float, dict]] = []
        self._modes: list[tuple[float, MuxMode]] = []
        # A long history where no message may be lost: this process may be late.
        for kind, topic, callback, profile in (
                (PolicyStatus, 'lingbot_va_policy/status', self._on_status, qos.LATCHED),
                (ControlMode, 'command_mux/mode', self._on_mode, qos.LATCHED),
                (String, 'sim_robot/task_state', self._on_task_state, qos.LATCHED),
                (ActionChunk, 'lingbot_va_policy/action_chunk', self._on_chunk, qos.EVENTS),
                (JointTrajectory, 'lingbot_va_policy/joint_trajectory', self._on_published,
                 qos.EXECUTED),
                (JointTrajectory, 'executed', self._executed.append, qos.EXECUTED),
                (JointState, 'joint_states', self._on_joints, qos.JOINT_STATES),
                (Image, 'lingbot_va_policy/predicted_video', self._imagined.append, qos.EVENTS)):
            node.create_subscription(kind, topic, callback, profile)
        for name, topic in cameras.items():
            node.create_subscription(
                Image, topic, partial(self._on_image, name), qos.EVENTS)

    @property
    def cameras_heard(self) -> int:
        """Number of cameras that have sent an image."""
        return sum(count > 0 for count in self._seen.values())

    def _on_status(self, message: PolicyStatus) -> None:
        self.status = message

    def _on_mode(self, message: ControlMode) -> None:
        self.mode = message
        self._modes.append((self._seconds(message.header.stamp), MuxMode(message.mode)))

    def _on_task_state(self, message: String) -> None:
        self.task_state = json.loads(message.data)
        self.task_states += 1
        counts = self.task_state.get('counts', {})
        if not self._counted or self._counted[-1][1] != counts:
            self._counted.append((self.now(), counts))

    def _on_joints(self, message: JointState) -> None:
        self.joints = message
        self._joint_states.append(message)

    def _on_chunk(self, message: ActionChunk) -> None:
        if message.epoch >= self._epoch:
            self.chunks.append(message)

    def _on_published(self, message: JointTrajectory) -> None:
        self._published_ns.append(nanoseconds_of(message.header.stamp))

    def _on_image(self, camera: str, message: Image) -> None:
        if camera == OVERVIEW or self._seen[camera] % KEEP_EVERY == 0:
            self._images[camera].append(message)
        self._seen[camera] += 1

    def _seconds(self, stamp) -> float:
        return (nanoseconds_of(stamp) - self._began_ns) / NANOSECONDS

    def _pictures(self, messages: Sequence[Image]) -> tuple[RecordedImage, ...]:
        return tuple(
            RecordedImage(self._seconds(message.header.stamp), to_rgb(message))
            for message in messages)

    def _motion(self, joints: Sequence[str], rows: Sequence[tuple]) -> JointMotion:
        """Return rows (stamp, names, positions) as a motion, with NaN for what a row lacks."""
        place = {name: index for index, name in enumerate(joints)}
        positions = np.full((len(rows), len(joints)), np.nan)
        for index, (_, names, values) in enumerate(rows):
            for name, value in zip(names, values):
                if name in place:
                    positions[index, place[name]] = value
        return JointMotion(np.array([self._seconds(stamp) for stamp, _, _ in rows]), positions)

    def begin_episode(self, epoch: int) -> None:
        """Discard the recorded messages: an episode begins, in this epoch of the policy."""
        self._epoch = epoch
        self._starved_before = self.status.starved_ticks if self.status else 0
        for kept in (self.chunks, self._executed, self._joint_states, self._published_ns,
                     self._imagined, *self._images.values()):
            kept.clear()
        # The newest values hold from the beginning of the episode.
        del self._counted[:-1], self._modes[:-1]

    def now(self) -> float:
        """Return ROS time in seconds since the recording began."""
        return (self._node.get_clock().now().nanoseconds - self._began_ns) / NANOSECONDS

    def chunk_end(self, index: int) -> float:
        """Return the due time of the last action of chunk `index` (from 0), s."""
        return self._figures(self.chunks[index]).end

    def _figures(self, chunk: ActionChunk) -> ChunkTiming:
        start = self._seconds(chunk.header.stamp)
        last = chunk.trajectory.points[-1].time_from_start
        return ChunkTiming(
            chunk.chunk_id, start, start + nanoseconds_of(last) / NANOSECONDS,
            chunk.inference_seconds)

    def _starved_ticks(self) -> int:
        """Return the starved ticks of this episode; policy_node may have reset its counter."""
        ticks = self.status.starved_ticks if self.status else 0
        return ticks - self._starved_before if ticks >= self._starved_before else ticks

    def episode(
        self, start: float, end: float, control_period: float, holds: Sequence[str] = (),
        stopped_by: str = '',
    ) -> RecordedEpisode:
        """Return the recording between two times (see `now`); images may begin earlier."""
        joints = tuple(self._executed[0].joint_names if self._executed
                       else self._joint_states[0].name)
        return RecordedEpisode(
            joints=joints, start=start, end=end,
            commanded=self._motion(joints, [
                (message.header.stamp, message.joint_names, message.points[0].positions)
                for message in self._executed]),
            measured=self._motion(joints, [
                (message.header.stamp, message.name, message.position)
                for message in self._joint_states]),
            chunks=tuple(map(self._figures, self.chunks)),
            cameras={name: self._pictures(images) for name, images in self._images.items()},
            imagined=self._pictures(self._imagined),
            published=np.array([(ns - self._began_ns) / NANOSECONDS for ns in self._published_ns]),
            control_period=control_period,
            starved_ticks=self._starved_ticks(),
            task_state=self.task_state, holds=tuple(holds), stopped_by=stopped_by,
            counted=tuple(self._counted), modes=tuple(self._modes))
