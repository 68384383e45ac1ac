"""
Compressed images: what their `format` says of the colors, and how they become RGB.

The rule is that of `compressed_image_transport` (image_transport_plugins), which writes
"<encoding>; <codec> compressed <order>": the encoding of the raw image, and the order of the
channels that were handed to the codec as BGR. Other publishers write the codec alone; the order is
then the codec's. A depth image is refused by its name or its samples.
"""

from dataclasses import dataclass
import re

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage

from lingbot_va_ros.nodes.images.encodings import BAYER_CODES, SCALE_16_BITS
from lingbot_va_ros.nodes.images.headers import ImageHeader, JPEG, PNG, read_header
from lingbot_va_ros.nodes.images.jpeg_scan import is_interrupted
from lingbot_va_ros.policy.runtime.camera_buffer import CameraFault

_DEPTH = re.compile(r'16[US]C1|32[SF]C1|64FC1')
_GRAY = ('mono8', 'mono16', '8UC1')
_COLORS = re.compile(r'(rgb|bgr)a?(8|16)|8UC[34]|yuv422|yuv422_yuy2|uyvy|yuyv|nv12|nv21|nv24')
_RGB_OR_BGR = re.compile(r'(rgb|bgr)a?(8|16)')
_BAYER = re.compile(r'bayer_(rggb|bggr|gbrg|grbg)(8|16)')
# Not turned by EXIF, as compressed_image_transport decodes.
_COLOR_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION


@dataclass(frozen=True)
class _Reading:
    """
    How the decoded samples are to be read.

    :param code: conversion of the decoded image to RGB; None: it is in that order.
    :param mosaic: whether the samples are a Bayer pattern, one channel.
    """

    code: int | None
    mosaic: bool = False


def compressed_size(message: CompressedImage) -> tuple[int, int]:
    """
    Return width and height of a compressed image; nothing is decoded.

    :raises CameraFault: it is no complete JPEG or PNG, it is no picture by its format, or its size
        is not plausible.
    """
    header, _ = _inspect(message)
    return header.width, header.height


def compressed_to_rgb(message: CompressedImage) -> np.ndarray:
    """
    Return a compressed image (JPEG or PNG) as RGB, uint8 [H, W, 3].

    :raises CameraFault: see `compressed_size`; or the data cannot be decoded.
    """
    header, reading = _inspect(message)
    if header.codec == JPEG and is_interrupted(bytes(message.data)):
        raise CameraFault('JPEG has lost a part of its picture')
    flags = cv2.IMREAD_UNCHANGED if reading.mosaic else _COLOR_FLAGS
    try:
        image = cv2.imdecode(np.frombuffer(message.data, np.uint8), flags)
        if image is not None and reading.code is not None:
            image = cv2.cvtColor(image, reading.code)
        if image is not None and image.dtype == np.uint16:
            image = cv2.convertScaleAbs(image, alpha=SCALE_16_BITS)
    except (cv2.error, MemoryError) as error:
        raise CameraFault(
            f'{header.codec} cannot be decoded: {str(error).splitlines()[0][:100]}') from None
    if image is None:
        raise CameraFault(f'{header.codec} cannot be decoded')
    if image.shape != (header.height, header.width, 3) or image.dtype != np.uint8:
        raise CameraFault(
            f'{header.codec} of {header.width}x{header.height} pixels is decoded to '
            f'{image.dtype} {image.shape}')
    return image


def _inspect(message: CompressedImage) -> tuple[ImageHeader, _Reading]:
    text = message.format[:80]
    try:
        header = read_header(bytes(message.data))
        return header, _reading(text, header)
    except CameraFault as fault:
        raise CameraFault(f'compressed image of format {text!r}: {fault}') from None


def _reading(text: str, header: ImageHeader) -> _Reading:
    """
    Return how an image of a format is to be read.

    :raises CameraFault: the format is that of a depth image, or the colors were lost.
    """
    encoding, separator, rest = (part.strip() for part in text.partition(';'))
    if 'compressedDepth' in text:
        raise CameraFault('a depth image; expected a color image')
    if not separator:
        if header.channels == 1 and header.bits == 16:
            raise CameraFault(
                'one channel of 16 bits, a depth image; expected a color image, or a format that '
                'begins with mono16')
        return _Reading(cv2.COLOR_BGR2RGB)
    if _DEPTH.fullmatch(encoding):
        raise CameraFault(f'{encoding} is a depth image; expected a color image')
    if encoding in _GRAY:
        return _Reading(cv2.COLOR_BGR2RGB)
    order = re.search(r'compressed\s+(\w+)', rest)
    target = order.group(1) if order else ''
    bayer = _BAYER.fullmatch(encoding)
    if bayer and header.codec == PNG and header.channels == 1:
        return _Reading(BAYER_CODES[bayer.group(1)], mosaic=True)
    if (bayer or _COLORS.fullmatch(encoding)) and (
            target.startswith('mono') or header.channels < 3):
        raise CameraFault(f'the colors of {encoding} were lost, the image is gray')
    if target.startswith('bgr'):
        return _Reading(cv2.COLOR_BGR2RGB)
    if target.startswith('rgb') or _RGB_OR_BGR.fullmatch(encoding):
        return _Reading(None)  # RGB was handed to the codec as if it were BGR
    if _COLORS.fullmatch(encoding):
        return _Reading(cv2.COLOR_BGR2RGB)
    raise CameraFault('the order of its colors is not known')
