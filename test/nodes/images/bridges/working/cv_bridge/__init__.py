"""
A small cv_bridge in Python, with the names that policy_node uses.

As cv_bridge's Python half it takes rows of whole pixels: other paddings shift them.
"""

import re

import numpy as np

ENCODINGS = {'rgb8': ('uint8', 3), 'bgr8': ('uint8', 3), 'mono16': ('uint16', 1)}


class CvBridgeError(TypeError):
    """A conversion is not possible."""


class CvBridge:
    """Converts the encodings of the table, and the made-up `gbr8`, to rgb8."""

    def encoding_to_dtype_with_channels(self, encoding):
        """Return the name of the dtype and the channels."""
        if encoding == 'gbr8':
            return 'uint8', 3
        if re.fullmatch('32FC1', encoding):
            return 'float32', 1
        if encoding not in ENCODINGS:
            raise CvBridgeError(f'Unrecognized image encoding [{encoding}]')
        return ENCODINGS[encoding]

    def imgmsg_to_cv2(self, message, desired_encoding):
        """Return the image as rgb8."""
        dtype, channels = self.encoding_to_dtype_with_channels(message.encoding)
        if desired_encoding != 'rgb8' or message.encoding == '32FC1':
            raise CvBridgeError(
                f'[{message.encoding}] is not a color format. but [{desired_encoding}] is.')
        itemsize = np.dtype(dtype).itemsize
        if message.is_bigendian:
            raise AttributeError('`newbyteorder` was removed from the ndarray class')
        image = np.ndarray(
            (message.height, message.step // itemsize // channels, channels), dtype,
            message.data)[:, :message.width]
        if message.encoding == 'mono16':
            return np.rint(image.repeat(3, 2) / 257).astype(np.uint8)
        order = {'rgb8': [0, 1, 2], 'bgr8': [2, 1, 0], 'gbr8': [2, 0, 1]}[message.encoding]
        return np.ascontiguousarray(image[..., order])
