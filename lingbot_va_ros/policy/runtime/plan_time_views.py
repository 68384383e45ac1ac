"""Images and executed commands by plan time, read from buffers that keep them by ROS time."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from lingbot_va_ros.motion.timeline import Timeline
from lingbot_va_ros.policy.runtime.camera_buffer import CameraBuffer, StampedImage
from lingbot_va_ros.policy.runtime.executed_log import ExecutedLog


class Cameras(Protocol):
    """The images that the scheduler asks for; see `CameraBuffer`. Stamps are ROS time."""

    def reached(self, time_ns: int) -> bool:
        """Return whether every camera has an image from a time or later."""
        ...

    def pick(self, time_ns: int, max_skew: float) -> dict[str, StampedImage]:
        """Return each camera's image nearest to a time."""
        ...

    def newest(self, max_skew: float) -> dict[str, StampedImage]:
        """Return the newest images that belong together."""
        ...

    def stand_in(
        self, camera: str, bad: StampedImage, time_ns: int, max_skew: float,
    ) -> StampedImage | None:
        """Drop a bad image and return the other one that is nearest to a time, or None."""
        ...


class ExecutedCommands(Protocol):
    """The commands that the robot was sent; see `ExecutedLog`."""

    @property
    def newest_ns(self) -> int | None:
        """The newest stamp, or None."""
        ...

    def after(self, stamp_ns: int) -> list[tuple[int, np.ndarray]]:
        """Return the commands later than a stamp, (stamp, positions [J]), oldest first."""
        ...

    def at(self, times_ns: Sequence[int]) -> np.ndarray:
        """Return the commands at some times, [n, J] float64."""
        ...


class PlanTimeCameras:
    """The images of a camera buffer, asked for by plan time; how far one is off stays ROS time."""

    def __init__(self, cameras: CameraBuffer, timeline: Timeline):
        self._cameras = cameras
        self._timeline = timeline

    def reached(self, time_ns: int) -> bool:
        """See `CameraBuffer.reached`."""
        return self._cameras.reached(self._timeline.to_ros(time_ns))

    def pick(self, time_ns: int, max_skew: float) -> dict[str, StampedImage]:
        """See `CameraBuffer.pick`."""
        return self._cameras.pick(self._timeline.to_ros(time_ns), max_skew)

    def newest(self, max_skew: float) -> dict[str, StampedImage]:
        """See `CameraBuffer.newest`."""
        return self._cameras.newest(max_skew)

    def stand_in(
        self, camera: str, bad: StampedImage, time_ns: int, max_skew: float,
    ) -> StampedImage | None:
        """See `CameraBuffer.stand_in`."""
        return self._cameras.stand_in(camera, bad, self._timeline.to_ros(time_ns), max_skew)


class PlanTimeCommands:
    """The commands of an executed log, with stamps of plan time."""

    def __init__(self, executed: ExecutedLog, timeline: Timeline):
        self._executed = executed
        self._timeline = timeline

    @property
    def newest_ns(self) -> int | None:
        """See `ExecutedLog.newest_ns`."""
        newest = self._executed.newest_ns
        return None if newest is None else self._timeline.to_plan(newest)

    def after(self, stamp_ns: int) -> list[tuple[int, np.ndarray]]:
        """See `ExecutedLog.after`."""
        return [(self._timeline.to_plan(stamp), q)
                for stamp, q in self._executed.after(self._timeline.to_ros(stamp_ns))]

    def at(self, times_ns: Sequence[int]) -> np.ndarray:
        """See `ExecutedLog.at`."""
        times = self._timeline.to_ros_times(np.array(times_ns, np.int64))
        return self._executed.at(times.tolist())
