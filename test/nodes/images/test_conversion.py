"""Compressed images to RGB, and images as the camera is mounted."""

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage

from lingbot_va_ros.nodes.images.conversion import as_mounted, compressed_to_rgb
from lingbot_va_ros.policy.runtime.camera_buffer import CameraFault

RGB = np.random.default_rng(1).integers(0, 255, (5, 7, 3), np.uint8)


def test_a_compressed_image_is_decoded_to_rgb():
    ok, data = cv2.imencode('.png', RGB[..., ::-1])
    assert ok
    message = CompressedImage(format='png')
    message.data.frombytes(data.tobytes())
    np.testing.assert_array_equal(compressed_to_rgb(message), RGB)


@pytest.mark.parametrize('data', [b'', b'no picture'])
def test_invalid_compressed_data_is_a_camera_fault(data):
    message = CompressedImage(format='jpeg')
    message.data.frombytes(data)
    with pytest.raises(CameraFault, match='jpeg'):
        compressed_to_rgb(message)


def test_a_camera_is_cropped_before_it_is_turned():
    np.testing.assert_array_equal(as_mounted(RGB, (1, 2, 4, 3), True), RGB[4:1:-1, 4:0:-1])


def test_a_crop_out_of_the_image_is_refused():
    with pytest.raises(CameraFault, match='7x5'):
        as_mounted(RGB, (4, 0, 4, 5), False)
