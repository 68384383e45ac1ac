"""The topics that the policy publishes: status, chunks, imagined video, diagnostics, markers."""

from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import Image
from visualization_msgs.msg import MarkerArray

from lingbot_va_ros.motion.plan_slot import PlanSlot
from lingbot_va_ros.motion.timeline import Timeline
from lingbot_va_ros.msg import ActionChunk, PolicyStatus
from lingbot_va_ros.nodes import qos
from lingbot_va_ros.nodes.images.conversion import from_rgb
from lingbot_va_ros.nodes.policy import messages as policy_messages
from lingbot_va_ros.nodes.policy.configuration import Configuration
from lingbot_va_ros.nodes.policy.markers import marker_array
from lingbot_va_ros.nodes.stamps import stamp_of
from lingbot_va_ros.policy.runtime.active_chunk import PublishedChunk
from lingbot_va_ros.policy.runtime.clock import Clock
from lingbot_va_ros.policy.runtime.status import RuntimeStatus

# Publishers and clocks in disorder are logged so often, s.
WARN_SECONDS = 10.0


class PolicyOutputs:
    """
    All publishers except that of the plan; receives the scheduler's events.

    :param timeline: between plan time and ROS time.
    :param status: returns the status to publish and the starved ticks.
    :param on_status: called with every published status.
    :param on_instruction: called with the scheduler's instruction, at every event of its status.
    :param on_fault: called with the traceback of an exception that stopped the policy.
    :param input_diagnostics: returns entries on the inputs, and what is wrong with them.
    """

    def __init__(
        self, node: Node, clock: Clock, slot: PlanSlot, timeline: Timeline,
        status: Callable[[], tuple[RuntimeStatus, int]],
        on_status: Callable[[RuntimeStatus], None], on_instruction: Callable[[str], None],
        on_fault: Callable[[str], None],
        input_diagnostics: Callable[[], tuple[dict[str, str], list[str]]],
    ):
        self._node = node
        self._clock = clock
        self._slot = slot
        self._timeline = timeline
        self._status = status
        self._on_status = on_status
        self._on_instruction = on_instruction
        self._on_fault = on_fault
        self._input_diagnostics = input_diagnostics
        self._closing = False
        self._configuration: Configuration | None = None
        self._newest_chunk: PublishedChunk | None = None
        self._chunks = node.create_publisher(ActionChunk, '~/action_chunk', qos.EVENTS)
        self._statuses = node.create_publisher(PolicyStatus, '~/status', qos.LATCHED)
        self._imagined = node.create_publisher(Image, '~/predicted_video', qos.COMMAND)
        self._markers = node.create_publisher(MarkerArray, '~/markers', qos.LATCHED)
        self._diagnostics = node.create_publisher(DiagnosticArray, '/diagnostics', qos.EVENTS)

    @property
    def last_chunk_ns(self) -> int:
        """ROS time when the first action of the newest chunk is due; 0 before the first."""
        chunk = self._newest_chunk
        return self._timeline.to_ros(chunk.first_due_ns) if chunk is not None else 0

    def configure(self, configuration: Configuration) -> None:
        """Set the robot and the policy of a configuration."""
        self._configuration = configuration

    def forget(self) -> None:
        """Stop publishing markers (cleanup)."""
        self._configuration = None

    def forget_chunk(self) -> None:
        """Discard the newest chunk (backward jump of the clock, or cleanup)."""
        self._newest_chunk = None

    def close(self) -> None:
        """Stop publishing the status."""
        self._closing = True

    # Events of the scheduler

    def status_changed(self, status: RuntimeStatus) -> None:
        """Publish the status, combined with the phase of the lifecycle."""
        self._on_instruction(status.instruction)
        self.publish_status()

    def chunk_begun(self, chunk: PublishedChunk) -> None:
        """Publish a chunk whose execution begins."""
        self._newest_chunk = chunk
        if self._configuration is not None:
            self._chunks.publish(policy_messages.chunk_message(
                chunk, self._configuration.embodiment.joints, self._timeline))

    def frame_imagined(self, picture: np.ndarray, due_ns: int) -> None:
        """Publish an imagined image, RGB uint8 [H, W, 3], stamped with the time it predicts."""
        message = from_rgb(picture)
        message.header.stamp = stamp_of(self._timeline.to_ros(due_ns))
        self._imagined.publish(message)

    def fault(self, trace: str) -> None:
        """Pass on the traceback of an exception that stopped the policy."""
        self._on_fault(trace)

    # At any time

    def publish_status(self) -> None:
        """Publish the status."""
        if self._closing:
            return
        status, starved_ticks = self._status()
        self._statuses.publish(policy_messages.status_message(
            self._clock.now_ns(), status, self._slot.epoch, starved_ticks))
        self._on_status(status)

    def publish_diagnostics(self) -> None:
        """Publish the diagnostics."""
        configuration = self._configuration
        status, starved_ticks = self._status()
        values, warnings = self._input_diagnostics()
        if configuration is not None:
            values = {**values, **policy_messages.pose_error_values(
                configuration.action_map.pose_error)}
        if warnings:  # in one call: rclpy throttles by the place of the call
            self._node.get_logger().warning(
                '; '.join(warnings), throttle_duration_sec=WARN_SECONDS)
        self._diagnostics.publish(policy_messages.diagnostics_message(
            self._clock.now_ns(), self._node.get_fully_qualified_name(), status,
            self._slot.epoch, starved_ticks,
            configuration.policy_title if configuration is not None else '', values, warnings))

    def publish_markers(self) -> None:
        """Publish markers of the newest chunk and the status, if there is a subscriber."""
        configuration, chunk = self._configuration, self._newest_chunk
        if configuration is None or not configuration.tool_paths:
            return
        if self._markers.get_subscription_count():
            self._markers.publish(marker_array(
                self._clock.now_ns(), configuration.tool_paths,
                None if chunk is None else chunk.positions, self._status()[0]))
