"""The messages that the policy publishes: trajectories, chunks, status, diagnostics."""

from collections.abc import Mapping, Sequence

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
import numpy as np
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.motion.timeline import Timeline
from lingbot_va_ros.msg import ActionChunk, PolicyStatus
from lingbot_va_ros.nodes.stamps import duration_of_seconds, stamp_of
from lingbot_va_ros.policy.runtime.active_chunk import PublishedChunk
from lingbot_va_ros.policy.runtime.status import PolicyMode, RuntimeStatus

LEVELS = {
    PolicyMode.IDLE: DiagnosticStatus.OK, PolicyMode.LOADING: DiagnosticStatus.OK,
    PolicyMode.WAITING: DiagnosticStatus.OK, PolicyMode.RUNNING: DiagnosticStatus.OK,
    PolicyMode.HOLDING: DiagnosticStatus.WARN, PolicyMode.FAULT: DiagnosticStatus.ERROR,
}


def trajectory_message(
    stamp_ns: int, joints: Sequence[str], times: np.ndarray, positions: np.ndarray,
    velocities: np.ndarray,
) -> JointTrajectory:
    """Return a trajectory; `times` [n] in seconds from the stamp, the others [n, J]."""
    message = JointTrajectory()
    message.header.stamp = stamp_of(stamp_ns)
    message.joint_names = list(joints)
    message.points = [
        JointTrajectoryPoint(
            positions=position, velocities=velocity, time_from_start=duration_of_seconds(time))
        for time, position, velocity in zip(
            times.tolist(), positions.tolist(), velocities.tolist())]
    return message


def chunk_message(
    chunk: PublishedChunk, joints: Sequence[str], timeline: Timeline) -> ActionChunk:
    """Return a chunk in ROS time, its first action at `time_from_start` 0."""
    steps = np.rint(np.arange(len(chunk.positions)) * chunk.period * NANOSECONDS).astype(np.int64)
    due_ns = timeline.to_ros_times(chunk.first_due_ns + steps)
    rates = timeline.rates(chunk.first_due_ns + steps)[:, None]
    message = ActionChunk()
    message.header.stamp = stamp_of(int(due_ns[0]))
    message.epoch, message.chunk_id = chunk.epoch, chunk.chunk_id
    message.observation_stamp = stamp_of(chunk.observation_ns)
    message.trajectory = trajectory_message(
        int(due_ns[0]), joints, (due_ns - due_ns[0]) / NANOSECONDS, chunk.positions,
        chunk.velocities * rates)
    message.inference_seconds = chunk.inference_seconds
    message.grounded = chunk.grounded
    return message


def status_message(
    now_ns: int, status: RuntimeStatus, epoch: int, starved_ticks: int,
) -> PolicyStatus:
    """Return the status message."""
    message = PolicyStatus()
    message.header.stamp = stamp_of(now_ns)
    message.mode = int(status.mode)
    message.reason = status.reason
    message.instruction = status.instruction
    message.epoch = epoch
    message.chunk_id = status.chunk_id
    message.memory_frames = status.memory_frames
    message.memory_capacity = status.memory_capacity
    message.inference_seconds = status.inference_seconds
    message.inference_seconds_p95 = status.inference_seconds_p95
    message.chunk_seconds = status.chunk_seconds
    message.starved_ticks = starved_ticks
    return message


def pose_error_values(error: tuple[float, float] | None) -> dict[str, str]:
    """Return the entries on the error in m and rad that is left of the newest chunk's poses."""
    return {} if error is None else {
        'pose_error_m': f'{error[0]:.4f}', 'pose_error_rad': f'{error[1]:.4f}'}


def diagnostics_message(
    now_ns: int, node_name: str, status: RuntimeStatus, epoch: int, starved_ticks: int,
    checkpoint: str, inputs: Mapping[str, str], warnings: Sequence[str],
) -> DiagnosticArray:
    """
    Return the diagnostics.

    :param node_name: fully qualified, to distinguish namespaces.
    :param inputs: entries on the inputs.
    :param warnings: what is wrong with the inputs, a line each.
    """
    diagnostic = DiagnosticStatus(
        name=f'{node_name}: policy', hardware_id=node_name, level=LEVELS[status.mode],
        message=f'{status.mode.name}: {status.reason}'.rstrip(': '))
    if warnings and diagnostic.level == DiagnosticStatus.OK:
        diagnostic.level = DiagnosticStatus.WARN
    diagnostic.values = [KeyValue(key=key, value=str(value)) for key, value in (
        ('instruction', status.instruction), ('epoch', epoch), ('chunk_id', status.chunk_id),
        ('memory_frames', status.memory_frames), ('memory_capacity', status.memory_capacity),
        ('inference_seconds', f'{status.inference_seconds:.4f}'),
        ('inference_seconds_p95', f'{status.inference_seconds_p95:.4f}'),
        ('starved_ticks', starved_ticks), ('checkpoint', checkpoint), *inputs.items())]
    message = DiagnosticArray(status=[diagnostic])
    message.header.stamp = stamp_of(now_ns)
    return message
