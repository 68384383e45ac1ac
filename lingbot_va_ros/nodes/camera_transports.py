"""The transports of camera images: message, topic, and the way to an array."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from lingbot_va_ros.nodes.image_conversion import compressed_to_rgb, image_fault, to_rgb


@dataclass(frozen=True)
class Transport:
    """
    One transport of images.

    :param kind: class of the messages.
    :param suffix: follows the image topic of a camera in the name of its topic.
    :param fault: returns why a message is no image that can be converted, one line, or nothing;
        quick, as it is called for every message.
    :param to_rgb: converts a message to RGB uint8 [H, W, 3]; raises CameraFault.
    """

    kind: type
    suffix: str
    fault: Callable[[Any], str | None]
    to_rgb: Callable[[Any], np.ndarray]

    @property
    def type_name(self) -> str:
        """The interface name of the messages, as `ros2 topic` gives it."""
        return f'{self.kind.__module__.split(".")[0]}/msg/{self.kind.__name__}'


RAW = 'raw'
TRANSPORTS = {
    RAW: Transport(Image, '', image_fault, to_rgb),
    'compressed': Transport(
        CompressedImage, '/compressed', lambda message: None, compressed_to_rgb)}
