"""Image messages to RGB and back, for every encoding, with padded rows."""

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image

from lingbot_va_ros.nodes.image_conversion import (
    as_mounted,
    compressed_to_rgb,
    from_rgb,
    image_fault,
    to_rgb,
)
from lingbot_va_ros.policy.runtime.camera_buffer import CameraFault

RGB = np.random.default_rng(1).integers(0, 255, (5, 7, 3), np.uint8)
LAID_OUT = {
    'rgb8': RGB, 'bgr8': RGB[..., ::-1],
    'rgba8': np.concatenate((RGB, RGB[..., :1]), -1),
    'bgra8': np.concatenate((RGB[..., ::-1], RGB[..., :1]), -1),
    'mono8': RGB[..., :1],
}


def message_of(pixels, encoding, padding=0):
    rows = pixels.reshape(pixels.shape[0], -1)
    rows = np.concatenate((rows, np.full((len(rows), padding), 77, np.uint8)), 1)
    message = Image(
        height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, step=rows.shape[1])
    message.data.frombytes(rows.tobytes())
    return message


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize('encoding', LAID_OUT)
def test_every_encoding_becomes_rgb_whatever_the_step(encoding, padding):
    expected = np.repeat(RGB[..., :1], 3, -1) if encoding == 'mono8' else RGB
    image = to_rgb(message_of(LAID_OUT[encoding], encoding, padding))
    np.testing.assert_array_equal(image, expected)


def test_an_rgb_array_survives_the_way_to_a_message_and_back():
    np.testing.assert_array_equal(to_rgb(from_rgb(RGB[:, ::-1])), RGB[:, ::-1])


@pytest.mark.parametrize(('change', 'words'), [
    ({'encoding': '16UC1'}, '16UC1'), ({'width': 0}, '0x5'), ({'step': 3}, 'step is 3'),
    ({'height': 50}, '105 bytes')])
def test_a_message_that_cannot_be_read_says_why(change, words):
    message = message_of(RGB, 'rgb8')
    for name, value in change.items():
        setattr(message, name, value)
    assert words in image_fault(message)
    with pytest.raises(CameraFault, match=words):
        to_rgb(message)


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
