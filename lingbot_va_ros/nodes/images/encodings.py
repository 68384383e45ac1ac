"""
The encodings of raw images that this package reads, and how their bytes become RGB.

The names are those of `sensor_msgs/image_encodings`, and `nv12`. OpenCV converts, on views of the
message's bytes. Colors of YUV are those of BT.601 in video range (black 16, white 235), as
OpenCV's and cv_bridge's are.

Samples of 16 bits are scaled by 255/65535 and rounded, as cv_bridge does. `16UC1` is scaled in the
same way; it is a picture only where a camera sends gray values in it (REP 118 uses it for depth in
mm). `8UC3` and `8UC4` have OpenCV's order, BGR, as in RViz.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
from sensor_msgs.msg import Image

# To 8 bits from 16, as cv_bridge.
SCALE_16_BITS = 255.0 / 65535.0


@dataclass(frozen=True)
class Encoding:
    """
    One encoding.

    :param row_bytes: bytes of one pixel in a row of the first plane.
    :param rows: rows of `step` bytes in the data, per row of the image.
    :param even: whether width and height must be even, as two pixels share a color.
    :param to_rgb: converts a message whose layout is right to RGB uint8 [H, W, 3].
    """

    row_bytes: int
    to_rgb: Callable[[Image], np.ndarray]
    rows: Fraction = Fraction(1)
    even: tuple[bool, bool] = (False, False)

    def fault(self, message: Image) -> str | None:
        """Return the reason why size, `step` and data of a message do not fit, or None."""
        width, height = message.width, message.height
        for name, value, even in zip(('width', 'height'), (width, height), self.even):
            if even and value % 2:
                return f'{name} is {value}; {message.encoding} has even ones only'
        row = width * self.row_bytes
        if message.step < row:
            return f'step is {message.step} bytes, a row of {message.encoding} has {row}'
        expected = int(message.step * height * self.rows)
        if len(message.data) < expected:
            rows = 'height' if self.rows == 1 else f'height * {self.rows}'
            return f'{len(message.data)} bytes of data, expected {expected} (step * {rows})'
        return None


def pixels(message: Image, channels: int, rows: int | None = None) -> np.ndarray:
    """
    Return a view of rows of the data, uint8 [rows, W, channels], without their padding.

    :param rows: as many as the image has, if not given.
    """
    flat = np.frombuffer(message.data, np.uint8)
    return np.lib.stride_tricks.as_strided(
        flat, (message.height if rows is None else rows, message.width, channels),
        (message.step, channels, 1))


def _rgb(message: Image) -> np.ndarray:
    return pixels(message, 3)


def _packed(channels: int, code: int) -> Callable[[Image], np.ndarray]:
    return lambda message: cv2.cvtColor(pixels(message, channels), code)


def _samples(message: Image, channels: int) -> np.ndarray:
    """Return a copy of 16-bit samples in the order of this machine, [H, W, channels]."""
    order = '>' if message.is_bigendian else '<'
    samples = np.ascontiguousarray(pixels(message, 2 * channels)).view(f'{order}u2')
    return samples.astype(np.uint16, copy=False)


def _wide(channels: int, code: int | None) -> Callable[[Image], np.ndarray]:
    def to_rgb(message: Image) -> np.ndarray:
        image = cv2.convertScaleAbs(_samples(message, channels), alpha=SCALE_16_BITS)
        return image if code is None else cv2.cvtColor(image, code)
    return to_rgb


def _wide_bayer(code: int) -> Callable[[Image], np.ndarray]:
    # Interpolated in 16 bits, then scaled.
    return lambda message: cv2.convertScaleAbs(
        cv2.cvtColor(_samples(message, 1), code), alpha=SCALE_16_BITS)


def _semi_planar(code: int) -> Callable[[Image], np.ndarray]:
    return lambda message: cv2.cvtColor(
        pixels(message, 1, message.height + message.height // 2), code)


def _nv24(message: Image) -> np.ndarray:
    """Convert one plane of Y and one of U and V in turn, both of full size."""
    height, width, step = message.height, message.width, message.step
    chroma = np.lib.stride_tricks.as_strided(
        np.frombuffer(message.data, np.uint8, offset=step * height), (height, width, 2),
        (2 * step, 2, 1))
    # OpenCV has no code for it: written as YUYV of twice the width, each pixel twice.
    twice = np.empty((height, width, 4), np.uint8)
    cv2.mixChannels([pixels(message, 1), chroma], [twice], [0, 0, 1, 1, 0, 2, 2, 3])
    return cv2.cvtColor(twice.reshape(height, 2 * width, 2), cv2.COLOR_YUV2RGB_YUY2)[:, ::2]


BAYER_CODES = {  # OpenCV names a pattern by the second and third pixel of its second row
    'rggb': cv2.COLOR_BayerBG2RGB, 'bggr': cv2.COLOR_BayerRG2RGB,
    'gbrg': cv2.COLOR_BayerGR2RGB, 'grbg': cv2.COLOR_BayerGB2RGB}
_GRAY, _BGR = _packed(1, cv2.COLOR_GRAY2RGB), _packed(3, cv2.COLOR_BGR2RGB)
_BGRA = _packed(4, cv2.COLOR_BGRA2RGB)
_GRAY_16 = _wide(1, cv2.COLOR_GRAY2RGB)
_UYVY = Encoding(2, _packed(2, cv2.COLOR_YUV2RGB_UYVY), even=(True, False))
_YUYV = Encoding(2, _packed(2, cv2.COLOR_YUV2RGB_YUY2), even=(True, False))

ENCODINGS: dict[str, Encoding] = {
    'rgb8': Encoding(3, _rgb), 'bgr8': Encoding(3, _BGR),
    'rgba8': Encoding(4, _packed(4, cv2.COLOR_RGBA2RGB)), 'bgra8': Encoding(4, _BGRA),
    'mono8': Encoding(1, _GRAY),
    '8UC1': Encoding(1, _GRAY), '8UC3': Encoding(3, _BGR), '8UC4': Encoding(4, _BGRA),
    'mono16': Encoding(2, _GRAY_16), '16UC1': Encoding(2, _GRAY_16),
    'rgb16': Encoding(6, _wide(3, None)),
    'bgr16': Encoding(6, _wide(3, cv2.COLOR_BGR2RGB)),
    'rgba16': Encoding(8, _wide(4, cv2.COLOR_RGBA2RGB)),
    'bgra16': Encoding(8, _wide(4, cv2.COLOR_BGRA2RGB)),
    'uyvy': _UYVY, 'yuv422': _UYVY, 'yuyv': _YUYV, 'yuv422_yuy2': _YUYV,
    'nv12': Encoding(
        1, _semi_planar(cv2.COLOR_YUV2RGB_NV12), Fraction(3, 2), even=(True, True)),
    'nv21': Encoding(
        1, _semi_planar(cv2.COLOR_YUV2RGB_NV21), Fraction(3, 2), even=(True, True)),
    'nv24': Encoding(1, _nv24, Fraction(3)),
    **{f'bayer_{name}8': Encoding(1, _packed(1, code)) for name, code in BAYER_CODES.items()},
    **{f'bayer_{name}16': Encoding(2, _wide_bayer(code)) for name, code in BAYER_CODES.items()},
}
