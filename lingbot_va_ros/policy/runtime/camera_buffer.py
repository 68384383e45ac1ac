"""The recent images of all cameras: a ring of stamped images per camera, read by time."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import math
import threading
from typing import Any

from lingbot_va_ros.motion.time import NANOSECONDS

MOST_IMAGES = 128  # per camera, whatever its rate
# So many old images go when a new one comes. After a silence all are old, and to give back the
# memory of a hundred at once takes 10 ms, in the callback that the next prediction waits for.
MOST_DROPPED = 2
# Cameras of one clock show a set of images one soon after the other, and each lets all reach a
# little further. Only the last is worth looking at.
FURTHER_NS = 5_000_000


class CameraFault(Exception):
    """A camera does not deliver what the grid needs; the message names it."""


@dataclass(frozen=True)
class StampedImage:
    """An image as it came (a message, not yet converted) and its stamp in nanoseconds."""

    stamp_ns: int
    image: Any


class CameraBuffer:
    """
    The rings of all cameras.

    `add` is what an image callback does: it keeps a reference. Images are converted when they are
    picked.

    :param cameras: names, in the order of the checkpoint.
    :param keep_seconds: how far back the rings reach.
    """

    def __init__(self, cameras: Sequence[str], keep_seconds: float):
        self.cameras = tuple(cameras)
        self._keep_ns = round(keep_seconds * NANOSECONDS)
        self._rings: dict[str, deque[StampedImage]] = {
            name: deque(maxlen=MOST_IMAGES) for name in cameras}
        self._lock = threading.Lock()
        self._said_ns = -math.inf  # how far they reached when `add` last said that it is further

    def add(self, camera: str, stamp_ns: int, image: Any) -> bool:
        """
        Keep an image; one that is older than the newest is out of order and dropped.

        Returns whether all cameras together reach further (see `reached`), by a whole set of
        images and not by what lies between those of one set.
        """
        with self._lock:
            ring = self._rings[camera]
            if ring and stamp_ns <= ring[-1].stamp_ns:
                return False
            ring.append(StampedImage(stamp_ns, image))
            for _ in range(MOST_DROPPED):
                if ring[0].stamp_ns < stamp_ns - self._keep_ns:
                    ring.popleft()
            reached_ns = self._reached_ns()
            further = reached_ns > self._said_ns + FURTHER_NS
            if further:
                self._said_ns = reached_ns
            return further

    def clear(self) -> None:
        """Forget all images (a clock that jumped)."""
        with self._lock:
            for ring in self._rings.values():
                ring.clear()
            self._said_ns = -math.inf

    def newest_ns(self, camera: str) -> int | None:
        """Return the newest stamp of a camera, or None."""
        with self._lock:
            ring = self._rings[camera]
            return ring[-1].stamp_ns if ring else None

    def faults(
        self, now_ns: int, max_age: float, late: Mapping[str, str] | None = None) -> list[str]:
        """
        Return a line for each camera that is silent or older than `max_age` seconds.

        :param late: by camera, why images that still come are too old.
        """
        lines = []
        for camera in self.cameras:
            newest = self.newest_ns(camera)
            if newest is None:
                lines.append(f'no image from camera {camera}')
            elif now_ns - newest > max_age * NANOSECONDS:
                why = (late or {}).get(camera, f'no image newer than {max_age:g} s')
                lines.append(f'camera {camera}: {why}')
        return lines

    def reached(self, time_ns: int) -> bool:
        """Return whether every camera has an image from `time_ns` or later."""
        with self._lock:
            return self._reached_ns() >= time_ns

    def _reached_ns(self) -> float:
        return min(ring[-1].stamp_ns if ring else -math.inf for ring in self._rings.values())

    def pick(self, time_ns: int, max_skew: float) -> dict[str, StampedImage]:
        """
        Return each camera's image nearest to a time.

        :param max_skew: seconds that an image may be off.
        :raises CameraFault: names the camera whose nearest image is further off.
        """
        with self._lock:
            nearest = {
                camera: min(ring, key=lambda entry: abs(entry.stamp_ns - time_ns), default=None)
                for camera, ring in self._rings.items()}
        picked = {}
        for camera, entry in nearest.items():
            if entry is None:
                raise CameraFault(f'no image from camera {camera}')
            picked[camera] = entry
            off = abs(entry.stamp_ns - time_ns) / NANOSECONDS
            if off > max_skew:
                raise CameraFault(
                    f'camera {camera}: nearest image is {off:.3f} s off the time it is needed for '
                    f'(max_camera_skew {max_skew:.3f} s)')
        return picked

    def stand_in(
        self, camera: str, bad: StampedImage, time_ns: int, max_skew: float,
    ) -> StampedImage | None:
        """
        Drop a bad image, and return the camera's other image that is nearest to a time.

        :param max_skew: seconds that it may be off; None is returned where all are further off.
        """
        with self._lock:
            ring = self._rings[camera]
            for index, entry in enumerate(ring):
                if entry is bad:  # messages are compared sample by sample
                    del ring[index]
                    break
            other = min(ring, key=lambda each: abs(each.stamp_ns - time_ns), default=None)
        if other is None or abs(other.stamp_ns - time_ns) > max_skew * NANOSECONDS:
            return None
        return other

    def newest(self, max_skew: float) -> dict[str, StampedImage]:
        """
        Return the newest images that belong together.

        The camera that is furthest behind sets the time.

        :raises CameraFault: a camera has none, or they lie further apart than `max_skew` seconds.
        """
        stamps = []
        for camera in self.cameras:
            stamp = self.newest_ns(camera)
            if stamp is None:
                raise CameraFault(f'no image from camera {camera}')
            stamps.append(stamp)
        return self.pick(min(stamps), max_skew)
