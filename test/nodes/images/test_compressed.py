"""Compressed images: what `format` says of colors and depth, and damaged data."""

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage

from lingbot_va_ros.nodes.images.compressed import compressed_size, compressed_to_rgb
from lingbot_va_ros.nodes.images.conversion import ImageConverter
from lingbot_va_ros.policy.runtime.camera_buffer import CameraFault

RGB = np.zeros((32, 48, 3), np.uint8)
RGB[:16], RGB[16:] = (220, 60, 20), (30, 90, 200)
APART = np.r_[0:12, 20:32]  # rows whose colors a JPEG does not mix
BGR = np.ascontiguousarray(RGB[..., ::-1])
GRAY = np.linspace(0, 255, 32 * 48).astype(np.uint8).reshape(32, 48)
WIDE = np.arange(32 * 48, dtype=np.uint16).reshape(32, 48) * 42


def message_of(image, extension, text):
    """Return a message with what `cv2.imencode` makes of an array, which it takes for BGR."""
    ok, data = cv2.imencode(extension, image)
    assert ok
    message = CompressedImage(format=text)
    message.data.frombytes(data.tobytes())
    return message


def assert_near(image, expected, most):
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - expected).max() <= most


@pytest.mark.parametrize('text, image', [
    # What compressed_image_transport writes.
    ('rgb8; jpeg compressed bgr8', BGR), ('bgr8; jpeg compressed bgr8', BGR),
    ('rgba8; jpeg compressed bgr8', BGR), ('bgra8; jpeg compressed bgr8', BGR),
    ('yuv422_yuy2; jpeg compressed bgr8', BGR), ('rgb16; jpeg compressed bgr8', BGR),
    # RGB in the place of BGR, as older and other publishers do.
    ('rgb8; jpeg compressed rgb8', RGB), ('bgr8; jpeg compressed rgb8', RGB),
    ('rgb8; jpeg compressed ', RGB),
    # The codec alone.
    ('jpeg', BGR), ('jpg', BGR), ('JPEG', BGR), ('', BGR)])
def test_a_jpeg_has_the_colors_that_its_format_says(text, image):
    message = message_of(image, '.jpg', text)
    assert compressed_size(message) == (48, 32)
    for image in (compressed_to_rgb(message), ImageConverter().to_rgb(message)):
        assert_near(image[APART], RGB[APART], 6)


@pytest.mark.parametrize('text, image', [
    ('rgb8; png compressed bgr8', BGR), ('png', BGR), ('rgb8; png compressed rgb8', RGB),
    ('8UC3; png compressed ', BGR), ('rgba8; png compressed bgr8', BGR),
    ('png', np.concatenate((BGR, BGR[..., :1]), -1))])
def test_a_png_has_the_colors_that_its_format_says(text, image):
    np.testing.assert_array_equal(compressed_to_rgb(message_of(image, '.png', text)), RGB)


def test_a_png_of_16_bits_is_scaled():
    wide = BGR.astype(np.uint16) * 257 + 100
    for text in ('rgb16; png compressed bgr16', 'png'):
        np.testing.assert_array_equal(compressed_to_rgb(message_of(wide, '.png', text)), RGB)


@pytest.mark.parametrize('text, extension', [
    ('mono8; jpeg compressed mono8', '.jpg'), ('8UC1; jpeg compressed mono8', '.jpg'),
    ('jpeg', '.jpg'), ('mono8; png compressed ', '.png'), ('png', '.png')])
def test_a_gray_picture_stays_gray(text, extension):
    image = compressed_to_rgb(message_of(GRAY, extension, text))
    assert_near(image, GRAY[..., None], 6)


def test_gray_of_16_bits_is_scaled_where_the_format_says_that_it_is_a_picture():
    image = compressed_to_rgb(message_of(WIDE, '.png', 'mono16; png compressed '))
    np.testing.assert_array_equal(image[..., 1], np.rint(WIDE / 257.0))


@pytest.mark.parametrize('wide', [False, True])
@pytest.mark.parametrize('pattern, tiles', [
    ('rggb', (220, 60, 60, 20)), ('bggr', (20, 60, 60, 220)), ('gbrg', (60, 20, 220, 60)),
    ('grbg', (60, 220, 20, 60))])
def test_a_mosaic_in_a_png(pattern, tiles, wide):
    mosaic = np.tile(np.array(tiles).reshape(2, 2), (16, 24))
    mosaic = (mosaic * 257).astype(np.uint16) if wide else mosaic.astype(np.uint8)
    text = f'bayer_{pattern}{16 if wide else 8}; png compressed '
    image = compressed_to_rgb(message_of(mosaic, '.png', text))
    assert (image[1:-1, 1:-1] == (220, 60, 20)).all()


@pytest.mark.parametrize('text, image, extension, words', [
    ('16UC1; png compressed ', WIDE, '.png', '16UC1 is a depth image'),
    ('32FC1; png compressed ', WIDE, '.png', '32FC1 is a depth image'),
    ('16UC1; compressedDepth png', WIDE, '.png', 'a depth image'),
    ('compressedDepth', WIDE, '.png', 'a depth image'),
    ('png', WIDE, '.png', 'one channel of 16 bits, a depth image'),
    ('yuv422_yuy2; jpeg compressed mono8', GRAY, '.jpg', 'the colors of yuv422_yuy2 were lost'),
    ('rgb8; jpeg compressed bgr8', GRAY, '.jpg', 'the colors of rgb8 were lost'),
    ('bayer_rggb8; jpeg compressed mono8', GRAY, '.jpg', 'the colors of bayer_rggb8 were lost'),
    ('8UC3; jpeg compressed mono8', GRAY, '.jpg', 'the colors of 8UC3 were lost'),
    ('lab8; jpeg compressed lab8', BGR, '.jpg', 'the order of its colors is not known'),
    ('rgb8; webp compressed bgr8', BGR, '.bmp', 'neither JPEG nor PNG')])
def test_what_is_no_picture_is_refused_by_its_format(text, image, extension, words):
    message = message_of(image, extension, text)
    for read in (compressed_size, compressed_to_rgb):
        with pytest.raises(CameraFault, match=words) as fault:
            read(message)
        assert f'compressed image of format {text!r}: ' in str(fault.value)


@pytest.mark.parametrize('damage, words', [
    (lambda data: b'', 'no data'), (lambda data: b'no picture', 'neither JPEG nor PNG'),
    (lambda data: data[:len(data) // 2], 'is cut off')])
@pytest.mark.parametrize('extension', ['.jpg', '.png'])
def test_damaged_data_is_a_camera_fault(extension, damage, words):
    message = message_of(BGR, extension, 'jpeg')
    whole = message.data.tobytes()
    del message.data[:]
    message.data.frombytes(damage(whole))
    for read in (compressed_size, compressed_to_rgb):
        with pytest.raises(CameraFault, match=words):
            read(message)


def test_a_jpeg_without_its_middle_is_a_camera_fault():
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    message = message_of(noise, '.jpg', 'jpeg')
    del message.data[2000:3000]
    assert compressed_size(message) == (96, 64)
    with pytest.raises(CameraFault, match='JPEG has lost a part of its picture'):
        compressed_to_rgb(message)


def test_a_flipped_bit_in_a_png_is_a_camera_fault():
    message = message_of(BGR, '.png', 'png')
    message.data[len(message.data) // 2] ^= 8
    with pytest.raises(CameraFault, match='PNG cannot be decoded'):
        compressed_to_rgb(message)


def test_no_flipped_bit_does_more_than_raise_a_camera_fault():
    for extension in ('.jpg', '.png'):
        message = message_of(BGR, extension, 'jpeg')
        for place in range(0, len(message.data), 3):
            message.data[place] ^= 1 << place % 8
            try:
                assert compressed_to_rgb(message).dtype == np.uint8
            except CameraFault:
                pass
            message.data[place] ^= 1 << place % 8
