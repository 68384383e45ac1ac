"""Converts image messages to RGB arrays and back, without cv_bridge (often not installed)."""


import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from lingbot_va_ros.policy.runtime.camera_buffer import CameraFault

# Per supported encoding its number of channels, and the channels of red, green and blue.
ENCODINGS = {
    'rgb8': (3, (0, 1, 2)), 'bgr8': (3, (2, 1, 0)), 'rgba8': (4, (0, 1, 2)),
    'bgra8': (4, (2, 1, 0)), 'mono8': (1, (0, 0, 0)),
}


def image_fault(message: Image) -> str | None:
    """Return the reason why a raw image cannot be read, or None; fast enough for callbacks."""
    if message.encoding not in ENCODINGS:
        return (f'encoding {message.encoding!r} is not supported; expected one of '
                f'{", ".join(ENCODINGS)}')
    row = message.width * ENCODINGS[message.encoding][0]
    if not message.width or not message.height:
        return f'image of {message.width}x{message.height} pixels'
    if message.step < row:
        return f'step is {message.step} bytes, a row of {message.encoding} has {row}'
    if len(message.data) < message.step * message.height:
        return (f'{len(message.data)} bytes of data, expected {message.step * message.height} '
                '(step * height)')
    return None


def to_rgb(message: Image) -> np.ndarray:
    """
    Return an image message as RGB, uint8 [H, W, 3].

    rgb8 is a view of the message's buffer (rows may be padded), the other encodings are copies.

    :raises CameraFault: the message cannot be read; the message gives the reason.
    """
    fault = image_fault(message)
    if fault:
        raise CameraFault(fault)
    channels, order = ENCODINGS[message.encoding]
    flat = np.frombuffer(message.data, np.uint8)
    rows = np.lib.stride_tricks.as_strided(
        flat, (message.height, message.width, channels), (message.step, channels, 1))
    return rows if order == (0, 1, 2) and channels == 3 else rows[..., list(order)]


def compressed_to_rgb(message: CompressedImage) -> np.ndarray:
    """
    Return a compressed image (JPEG or PNG) as RGB, uint8 [H, W, 3].

    :raises CameraFault: the data cannot be decoded.
    """
    data = np.frombuffer(message.data, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise CameraFault(f'compressed image of format {message.format!r} cannot be decoded')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def as_mounted(
    image: np.ndarray, crop: tuple[int, int, int, int] | None, flip: bool,
) -> np.ndarray:
    """
    Crop an image and rotate it by 180 degrees, as set in the embodiment file.

    :param image: [H, W, 3].
    :param crop: (x, y, width, height) in pixels, or None.
    :param flip: whether to rotate.
    :raises CameraFault: the crop exceeds the image.
    """
    if crop is not None:
        x, y, width, height = crop
        if x + width > image.shape[1] or y + height > image.shape[0]:
            raise CameraFault(
                f'crop {list(crop)} (x, y, width, height) exceeds an image of '
                f'{image.shape[1]}x{image.shape[0]}')
        image = image[y:y + height, x:x + width]
    return image[::-1, ::-1] if flip else image


def from_rgb(image: np.ndarray) -> Image:
    """Return an rgb8 message of an RGB array, uint8 [H, W, 3]; the header is left empty."""
    message = Image()
    message.height, message.width = image.shape[:2]
    message.encoding, message.is_bigendian, message.step = 'rgb8', 0, image.shape[1] * 3
    # An array of the generated type: assigning bytes or an ndarray checks every element.
    message.data.frombytes(np.ascontiguousarray(image).data.cast('B'))
    return message
