"""The transports of camera images: their messages and topics."""

from dataclasses import dataclass

from sensor_msgs.msg import CompressedImage, Image


@dataclass(frozen=True)
class Transport:
    """
    One transport of images.

    :param kind: class of the messages.
    :param suffix: follows the image topic of a camera in the name of its topic.
    """

    kind: type
    suffix: str

    @property
    def type_name(self) -> str:
        """The interface name of the messages, as `ros2 topic` gives it."""
        return f'{self.kind.__module__.split(".")[0]}/msg/{self.kind.__name__}'


RAW = 'raw'
TRANSPORTS = {RAW: Transport(Image, ''), 'compressed': Transport(CompressedImage, '/compressed')}
