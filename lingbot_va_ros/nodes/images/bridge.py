"""
cv_bridge as a converter of images, where it is installed and works.

Its compiled half ends the process by a signal where it was built for another NumPy. So it is tried
in a process of its own before this one imports it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
import importlib.util
import os
import signal
import subprocess
import sys
from typing import Any

import numpy as np
from sensor_msgs.msg import Image

from lingbot_va_ros.policy.runtime.camera_buffer import CameraFault

MODULE = 'cv_bridge'
TRIAL_SECONDS = 30.0
TRIAL = f'from {__name__} import try_out; try_out()'
WORDS = 200  # characters of an error that are shown


@dataclass(frozen=True)
class BridgeReport:
    """
    Whether cv_bridge can be used.

    :param message: where it is, or why it cannot be used, one line.
    """

    works: bool
    message: str
    installed: bool = True


def probe_bridge(path: Sequence[str] | None = None) -> BridgeReport:
    """
    Try cv_bridge in a process of its own; without one this takes no time.

    :param path: module folders to search; those of this process, if not given.
    """
    if path is None:
        if importlib.util.find_spec(MODULE) is None:
            return BridgeReport(False, 'is not installed', installed=False)
        path = sys.path
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(path)}
    try:
        tried = subprocess.run(
            [sys.executable, '-c', TRIAL], cwd=os.sep, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors='replace', timeout=TRIAL_SECONDS)
    except subprocess.TimeoutExpired:
        return BridgeReport(False, f'does not answer within {TRIAL_SECONDS:g} s')
    except OSError as error:
        return BridgeReport(False, f'cannot be tried: {error.strerror}')
    if tried.returncode == 0:
        return BridgeReport(True, f'works, in {_last_line(tried.stdout)}')
    why = _last_line(tried.stderr)
    if tried.returncode < 0:
        name = signal.Signals(-tried.returncode).name
        return BridgeReport(
            False, f'ends its process by {name}: built for another NumPy?'
            + (f' ({why})' if why else ''))
    return BridgeReport(False, f'fails: {why or f"exit code {tried.returncode}"}')


def try_out() -> None:
    """
    Convert two images by cv_bridge and print where it lies; run by `probe_bridge`.

    :raises RuntimeError: it returns other numbers than were sent.
    """
    import cv_bridge

    converter = BridgeConverter()
    picture = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    for encoding, expected in (('bgr8', picture[..., ::-1]), ('rgb8', picture)):
        message = Image(height=3, width=4, encoding=encoding, step=14)
        message.data.frombytes(np.pad(picture.reshape(3, 12), ((0, 0), (0, 2))).tobytes())
        if not np.array_equal(converter.to_rgb(message), expected):
            raise RuntimeError(f'cv_bridge changes the colors of {encoding}')
    print(os.path.dirname(cv_bridge.__file__ or ''))


class BridgeConverter:
    """
    Converts raw images by cv_bridge.

    :raises ImportError: there is none. Call `probe_bridge` before: the import may end the process.
    """

    def __init__(self) -> None:
        from cv_bridge import CvBridge

        self._bridge: Any = CvBridge()

    def to_rgb(self, message: Image) -> np.ndarray:
        """
        Return an image as RGB, uint8 [H, W, 3].

        :raises CameraFault: cv_bridge does not convert it, or it returns something else.
        """
        try:
            image = self._bridge.imgmsg_to_cv2(self._compact(message), 'rgb8')
        except Exception as error:  # of its compiled half too, whose classes are not known
            raise CameraFault(
                f'cv_bridge cannot convert {message.encoding[:40]!r} to rgb8: '
                f'{_last_line(str(error)) or type(error).__name__}') from None
        if image.shape != (message.height, message.width, 3) or image.dtype != np.uint8:
            raise CameraFault(
                f'cv_bridge converts {message.encoding[:40]!r} to {image.dtype} {image.shape}')
        return np.asarray(image)

    def _compact(self, message: Image) -> Image:
        """
        Return a message without padding, in the byte order of this machine.

        cv_bridge's Python half shifts rows whose padding is not a multiple of the pixel, and fails
        on messages of the other byte order with NumPy 2, even on those of single bytes.
        """
        name, channels = self._bridge.encoding_to_dtype_with_channels(message.encoding)
        dtype = np.dtype(name)
        row = message.width * channels * dtype.itemsize
        swapped = bool(message.is_bigendian) != (sys.byteorder == 'big')
        if (message.step == row and not swapped) or message.step < row or (
                len(message.data) < message.step * message.height):
            return message
        rows = np.lib.stride_tricks.as_strided(
            np.frombuffer(message.data, np.uint8), (message.height, row), (message.step, 1))
        if swapped:
            rows = np.ascontiguousarray(rows).view(dtype).byteswap()
        compact = Image(
            header=message.header, height=message.height, width=message.width,
            encoding=message.encoding, step=row, is_bigendian=int(sys.byteorder == 'big'))
        compact.data.frombytes(np.ascontiguousarray(rows).tobytes())
        return compact


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:WORDS] if lines else ''
