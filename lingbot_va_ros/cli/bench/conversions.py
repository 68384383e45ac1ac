"""Time the conversion of camera images to RGB, by encoding."""

from collections.abc import Callable, Sequence
import functools
import statistics
import time

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from lingbot_va_ros.nodes.images.conversion import ImageConverter
from lingbot_va_ros.nodes.images.encodings import ENCODINGS

SIZE = (480, 640)
# Channels of red, green and blue in the encodings that indexing could convert.
INDEXED = {
    'bgr8': (3, [2, 1, 0]), 'rgba8': (4, [0, 1, 2]), 'bgra8': (4, [2, 1, 0]),
    'mono8': (1, [0, 0, 0])}
REPEATS, IMAGES = 7, 20


def measure_conversions(say: Callable[[str], None]) -> list[dict]:
    """
    Return a row for each encoding: processor time, ms, for an image of 640 x 480.

    `indexing_ms` is that of NumPy's indexing for the same result, measured in turns.
    """
    say('conversions of images')
    converter = ImageConverter()
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    messages: dict[str, Image | CompressedImage] = {
        name: _raw(name) for name in ENCODINGS}
    for name, extension in (('jpeg', '.jpg'), ('png', '.png')):
        messages[name] = CompressedImage(format=name)
        messages[name].data.frombytes(
            cv2.imencode(extension, cv2.GaussianBlur(picture, (0, 0), 3))[1].tobytes())
    rows = []
    for name, message in messages.items():
        works: list[Callable[[], np.ndarray]] = [functools.partial(converter.to_rgb, message)]
        if name in INDEXED:
            works.append(functools.partial(_indexed, name, message))
        ours, *indexing = _median_ms(works)
        rows.append({
            'encoding': name, 'ms': ours, 'indexing_ms': indexing[0] if indexing else None})
    return rows


def _raw(name: str) -> Image:
    """Return an image of noise whose rows are padded by 32 bytes."""
    height, width = SIZE
    encoding = ENCODINGS[name]
    message = Image(
        height=height, width=width, encoding=name, step=width * encoding.row_bytes + 32)
    count = int(message.step * height * encoding.rows)
    message.data.frombytes(
        np.random.default_rng(1).integers(0, 256, count, np.uint8).tobytes())
    return message


def _indexed(name: str, message: Image) -> np.ndarray:
    channels, order = INDEXED[name]
    rows = np.lib.stride_tricks.as_strided(
        np.frombuffer(message.data, np.uint8), (*SIZE, channels), (message.step, channels, 1))
    return rows[..., order]


def _median_ms(works: Sequence[Callable[[], object]]) -> list[float]:
    """Return the median processor time of each work, ms, measured in turns."""
    times: list[list[float]] = [[] for _ in works]
    for repeat in range(REPEATS + 1):
        for work, found in zip(works, times, strict=True):
            since = time.process_time()
            for _ in range(IMAGES):
                work()
            if repeat:  # the first one warms up
                found.append(1e3 * (time.process_time() - since) / IMAGES)
    return [statistics.median(found) for found in times]
