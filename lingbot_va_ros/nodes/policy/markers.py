"""The plan and the status as RViz markers, since RViz displays neither by itself."""

from collections.abc import Sequence

from geometry_msgs.msg import Point
import numpy as np
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from lingbot_va_ros.nodes.stamps import stamp_of
from lingbot_va_ros.policy.runtime.status import PolicyMode, RuntimeStatus
from lingbot_va_ros.robot.tool_path import ArmToolPath

LINE_WIDTH = 0.005  # m
TEXT_HEIGHT = 0.05  # m
TEXT_ABOVE_BASE = 0.8  # m
COLORS = {
    PolicyMode.RUNNING: (0.2, 0.9, 0.3), PolicyMode.HOLDING: (1.0, 0.7, 0.1),
    PolicyMode.FAULT: (1.0, 0.2, 0.2)}
OTHERWISE = (0.8, 0.8, 0.8)


def marker_array(
    now_ns: int, paths: Sequence[ArmToolPath], positions: np.ndarray | None, status: RuntimeStatus,
) -> MarkerArray:
    """
    Return a line along the planned path of each tool, and a text with the status.

    :param paths: of each arm with known frames; without any there are no markers.
    :param positions: joint positions [n, J] of the newest chunk; None before the first.
    """
    color = COLORS.get(status.mode, OTHERWISE)
    markers = []
    for number, path in enumerate(paths):
        if positions is not None:
            line = _marker(now_ns, path.frame, 'planned', number, Marker.LINE_STRIP, color)
            line.scale.x = LINE_WIDTH
            line.points = [
                Point(x=x, y=y, z=z) for x, y, z in path.points(positions).tolist()]
            markers.append(line)
    if paths:
        text = _marker(
            now_ns, paths[0].frame, 'status', 0, Marker.TEXT_VIEW_FACING, color)
        text.scale.z = TEXT_HEIGHT
        text.pose.position.z = TEXT_ABOVE_BASE
        text.text = (
            f'{status.mode.name} {status.reason}\n{status.instruction}\n'
            f'{status.memory_frames} frames in memory, chunk {status.chunk_id}')
        markers.append(text)
    return MarkerArray(markers=markers)


def _marker(now_ns: int, frame: str, name: str, number: int, kind: int, color: tuple) -> Marker:
    marker = Marker(ns=name, id=number, type=kind, action=Marker.ADD)
    marker.header.frame_id, marker.header.stamp = frame, stamp_of(now_ns)
    marker.pose.orientation.w = 1.0
    red, green, blue = color
    marker.color = ColorRGBA(r=red, g=green, b=blue, a=1.0)
    return marker
