"""Watches the images of one camera: how many are bad, and whether their size stays the same."""

from collections import deque
import threading

from sensor_msgs.msg import CameraInfo

from lingbot_va_ros.policy.runtime.camera_buffer import CameraFault

WINDOW = 30  # newest images, of which the share of bad ones is taken
# Images in a row of another size that make it the size of the camera: one alone is damaged.
SAME_SIZE_IN_A_ROW = 5
Size = tuple[int, int]  # width and height, pixels


def info_size(info: CameraInfo) -> Size:
    """Return the size of the images that a camera_info is about; (0, 0) where it tells none."""
    width, height = info.roi.width or info.width, info.roi.height or info.height
    return width // max(1, info.binning_x), height // max(1, info.binning_y)


def info_topic(image_topic: str) -> str:
    """Return the topic of the camera_info beside an image topic, as image_transport has it."""
    folder, separator, _ = image_topic.rpartition('/')
    return f'{folder}{separator}camera_info'


class CameraWatch:
    """Counts the images of one camera, which may be told by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._images = self._bad = 0
        self._newest: deque[bool] = deque(maxlen=WINDOW)  # whether each was good
        self._fault = ''  # of the last bad image
        self._failing = False
        self._size: Size | None = None  # of the last good image
        self._announced: Size | None = None
        self._other: Size | None = None  # a size that was refused
        self._others = 0  # in a row

    @property
    def announced(self) -> Size | None:
        """The size that camera_info tells, or None."""
        return self._announced

    def announce(self, info: CameraInfo) -> None:
        """Take a camera_info; one that is not calibrated and tells no size is ignored."""
        size = info_size(info)
        if 0 not in size:
            with self._lock:
                self._announced = size

    def restart(self) -> None:
        """Forget which images were bad, after a step of the clock."""
        with self._lock:
            self._newest.clear()
            self._failing = False

    def take(self, size: Size) -> None:
        """
        Take an image that can be read.

        :param size: that it claims.
        :raises CameraFault: the images before it, or camera_info, had another one; call `reject`.
        """
        with self._lock:
            self._check_size(size)
            self._images += 1
            self._newest.append(True)

    def reject(self, fault: str) -> None:
        """Count a bad image; `fault` says in one line why it is bad."""
        with self._lock:
            self._images += 1
            self._bad += 1
            self._fault = fault
            self._newest.append(False)

    def discard(self, fault: str) -> None:
        """Count an image as bad that was taken before: it was found when it was decoded."""
        with self._lock:
            self._bad += 1
            self._fault = fault
            if True in self._newest:
                self._newest.remove(True)
            self._newest.append(False)

    def newest_fault(self) -> str | None:
        """Return why the newest image is bad, or None if it is good."""
        with self._lock:
            return self._fault if self._newest and not self._newest[-1] else None

    def failure(self, most: float) -> str | None:
        """
        Return in one line that too many of the newest images are bad, or None.

        A camera that has failed has recovered when the share is half of the limit.

        :param most: share of bad images, 0 to 1; with 1 no camera fails.
        """
        with self._lock:
            share = self._share()
            self._failing = most < 1 and share > (most / 2 if self._failing else most)
            if not self._failing:
                return None
            if share == 1:
                return self._fault
            return f'{share:.0%} of the last {len(self._newest)} images are bad: {self._fault}'

    def values(self, camera: str) -> dict[str, str]:
        """Return the entries of /diagnostics."""
        with self._lock:
            return {
                f'{camera}_images': str(self._images), f'{camera}_bad_images': str(self._bad),
                f'{camera}_bad_share': f'{self._share():.3f}',
                f'{camera}_last_fault': self._fault}

    def warnings(self, camera: str) -> list[str]:
        """Return what is wrong with the images, a line each."""
        with self._lock:
            lines = []
            bad = self._newest.count(False)
            if bad:
                lines.append(f'camera {camera}: {bad} of the last {len(self._newest)} images '
                             f'are bad: {self._fault}')
            if None not in (self._size, self._announced) and self._size != self._announced:
                lines.append(f'camera {camera}: images of {_text(self._size)} pixels, but '
                             f'camera_info says {_text(self._announced)}')
            return lines

    def _share(self) -> float:
        return self._newest.count(False) / len(self._newest) if self._newest else 0.0

    def _check_size(self, size: Size) -> None:
        expected = self._size or self._announced
        if expected is not None and size != expected:
            self._others = self._others + 1 if size == self._other else 1
            self._other = size
            if self._others < SAME_SIZE_IN_A_ROW:
                source = 'the images before it have' if self._size else 'camera_info says'
                raise CameraFault(
                    f'claims {_text(size)} pixels; {source} {_text(expected)}')
            if self._size:
                self._announced = None  # of the size before
        self._size, self._other, self._others = size, None, 0


def _text(size: Size | None) -> str:
    return 'unknown' if size is None else f'{size[0]}x{size[1]}'
