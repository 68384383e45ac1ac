"""Converts image messages to RGB arrays and back."""

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from lingbot_va_ros.nodes.images.bridge import BridgeConverter, probe_bridge
from lingbot_va_ros.nodes.images.compressed import compressed_size, compressed_to_rgb
from lingbot_va_ros.nodes.images.encodings import ENCODINGS
from lingbot_va_ros.policy.runtime.camera_buffer import CameraFault

AUTO, OWN, CV_BRIDGE = CONVERTERS = ('auto', 'own', 'cv_bridge')
# A view would be read across the rows by what resizes it, which takes longer than the copy.
QUARTER_TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
SUPPORTED = (
    'rgb8, bgr8, rgba8, bgra8 or mono8 (also with 16 bits), 8UC1, 8UC3, 8UC4, 16UC1, uyvy, yuyv, '
    'nv12, nv21, nv24 or bayer')


class ImageConverter:
    """
    Converts raw and compressed images to RGB.

    :param kind: `own`: this package converts; `auto`: cv_bridge converts the encodings that this
        package does not know; `cv_bridge`: it converts all raw images.
    :param bridge: None where cv_bridge is not used.
    :param without: why there is none, for the faults of unknown encodings.
    """

    def __init__(
        self, kind: str = OWN, bridge: BridgeConverter | None = None, without: str = '',
    ):
        self._kind = kind
        self._bridge = bridge
        self._without = without

    def size(self, message: Image | CompressedImage) -> tuple[int, int]:
        """
        Return width and height, which the message claims; fast enough for callbacks.

        :raises CameraFault: the message cannot be read; the fault gives the reason.
        """
        if isinstance(message, CompressedImage):
            return compressed_size(message)
        encoding = ENCODINGS.get(message.encoding)
        if not message.width or not message.height:
            raise CameraFault(f'image of {message.width}x{message.height} pixels')
        if encoding is not None:
            fault = encoding.fault(message)
        elif self._bridge is None:
            fault = (f'encoding {message.encoding[:40]!r} is not supported; expected {SUPPORTED}'
                     f'{self._without}')
        elif len(message.data) < message.step * message.height:
            fault = (f'{len(message.data)} bytes of data, expected '
                     f'{message.step * message.height} (step * height)')
        else:
            fault = None
        if fault:
            raise CameraFault(fault)
        return message.width, message.height

    def to_rgb(self, message: Image | CompressedImage) -> np.ndarray:
        """
        Return an image as RGB, uint8 [H, W, 3].

        rgb8 is a view of the message's buffer (rows may be padded), the others are copies.

        :raises CameraFault: the message cannot be read; the fault gives the reason.
        """
        if isinstance(message, CompressedImage):
            return compressed_to_rgb(message)
        self.size(message)
        encoding = ENCODINGS.get(message.encoding)
        if self._bridge is not None and (encoding is None or self._kind == CV_BRIDGE):
            return self._bridge.to_rgb(message)
        if encoding is None:
            raise CameraFault(f'encoding {message.encoding[:40]!r} is not supported')
        try:
            return encoding.to_rgb(message)
        except cv2.error as error:
            raise CameraFault(f'{message.encoding} cannot be converted: {error.err}') from None


def choose_converter(kind: str) -> tuple[ImageConverter, str]:
    """
    Return the converter of a kind, and a line for the log that says which one it is.

    Where cv_bridge is installed and may be used, it is tried in a process of its own.

    :raises ValueError: `cv_bridge` is asked for, but it does not work.
    """
    if kind == OWN:
        return ImageConverter(), 'images are converted by this package'
    report = probe_bridge()
    if report.works:
        which = 'all raw' if kind == CV_BRIDGE else 'those that this package does not know'
        return (ImageConverter(kind, BridgeConverter()),
                f'images are converted by cv_bridge ({which}), which {report.message}')
    if kind == CV_BRIDGE:
        raise ValueError(
            f'image_converter is cv_bridge, but cv_bridge {report.message}; expected auto or own')
    return (ImageConverter(without=f'; cv_bridge, which may know it, {report.message}'),
            f'images are converted by this package; cv_bridge {report.message}')


def to_rgb(message: Image) -> np.ndarray:
    """
    Return a raw image as RGB, uint8 [H, W, 3], by this package's own conversions.

    :raises CameraFault: the message cannot be read; the fault gives the reason.
    """
    return ImageConverter().to_rgb(message)


def as_mounted(
    image: np.ndarray, crop: tuple[int, int, int, int] | None, rotate: int,
) -> np.ndarray:
    """
    Crop an image and rotate it, as set in the embodiment file.

    :param image: [H, W, 3].
    :param crop: (x, y, width, height) in pixels, or None.
    :param rotate: degrees clockwise: 0, 90, 180 or 270.
    :returns: [H, W, 3], or [W, H, 3] for 90 and 270.
    :raises CameraFault: the crop exceeds the image.
    """
    if crop is not None:
        x, y, width, height = crop
        if x + width > image.shape[1] or y + height > image.shape[0]:
            raise CameraFault(
                f'crop {list(crop)} (x, y, width, height) exceeds an image of '
                f'{image.shape[1]}x{image.shape[0]}')
        image = image[y:y + height, x:x + width]
    if rotate in QUARTER_TURNS:
        return cv2.rotate(image, QUARTER_TURNS[rotate])
    return image[::-1, ::-1] if rotate else image


def from_rgb(image: np.ndarray) -> Image:
    """Return an rgb8 message of an RGB array, uint8 [H, W, 3]; the header is left empty."""
    message = Image()
    message.height, message.width = image.shape[:2]
    message.encoding, message.is_bigendian, message.step = 'rgb8', 0, image.shape[1] * 3
    # An array of the generated type: assigning bytes or an ndarray checks every element.
    message.data.frombytes(np.ascontiguousarray(image).data.cast('B'))
    return message
