"""Every encoding of raw images: with padded rows, odd sizes, both byte orders, and wrong sizes."""

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import Image

from lingbot_va_ros.nodes.images.conversion import from_rgb, ImageConverter, to_rgb
from lingbot_va_ros.nodes.images.encodings import ENCODINGS
from lingbot_va_ros.policy.runtime.camera_buffer import CameraFault

PADDINGS = (0, 1, 5, 32)
# Red, green and blue in the samples of a pixel.
PACKED = {
    'rgb8': (3, (0, 1, 2)), 'bgr8': (3, (2, 1, 0)), 'rgba8': (4, (0, 1, 2)),
    'bgra8': (4, (2, 1, 0)), 'mono8': (1, (0, 0, 0)), '8UC1': (1, (0, 0, 0)),
    '8UC3': (3, (2, 1, 0)), '8UC4': (4, (2, 1, 0))}
WIDE = {
    'rgb16': (3, (0, 1, 2)), 'bgr16': (3, (2, 1, 0)), 'rgba16': (4, (0, 1, 2)),
    'bgra16': (4, (2, 1, 0)), 'mono16': (1, (0, 0, 0)), '16UC1': (1, (0, 0, 0))}
# Bytes of Y, U and V in the two pixels that share a color.
SHARED = {'uyvy': (1, 0, 2), 'yuv422': (1, 0, 2), 'yuyv': (0, 1, 3), 'yuv422_yuy2': (0, 1, 3)}
PATTERNS = ('rggb', 'bggr', 'gbrg', 'grbg')
BAYER_8 = [f'bayer_{pattern}8' for pattern in PATTERNS]
BAYER_16 = [f'bayer_{pattern}16' for pattern in PATTERNS]


def message_of(rows, encoding, width, height=None, padding=0, big=False):
    """Return a message of rows [n, bytes per row], each with a padding of 77."""
    rows = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    message = Image(
        width=width, height=len(rows) if height is None else height, encoding=encoding,
        step=rows.shape[1], is_bigendian=int(big))
    message.data.frombytes(rows.tobytes())
    return message


def noise(*shape, most=256):
    return np.random.default_rng(sum(shape)).integers(0, most, shape)


def from_yuv(y, u, v):
    """Return RGB of BT.601 in video range, [..., 3] float; what is below black is black."""
    y = 255 / 219 * np.maximum(y - 16.0, 0.0)
    u, v = 255 / 224 * (u - 128.0), 255 / 224 * (v - 128.0)
    red, blue = y + 1.402 * v, y + 1.772 * u
    green = y - (0.114 * 1.772 * u + 0.299 * 1.402 * v) / 0.587
    return np.clip(np.stack((red, green, blue), -1), 0, 255)


def assert_close(image, expected):
    """OpenCV computes in integers: one step off at the most."""
    assert image.dtype == np.uint8
    assert image.shape == expected.shape
    assert np.abs(image - expected).max() <= 1.0


def test_the_tables_of_this_test_are_complete():
    assert set(ENCODINGS) == {
        *PACKED, *WIDE, *SHARED, *BAYER_8, *BAYER_16, 'nv12', 'nv21', 'nv24'}


@pytest.mark.parametrize('padding', PADDINGS)
@pytest.mark.parametrize('size', [(5, 7), (1, 1), (4, 6)])
@pytest.mark.parametrize('encoding', PACKED)
def test_packed_samples_of_8_bits(encoding, size, padding):
    channels, order = PACKED[encoding]
    samples = noise(*size, channels).astype(np.uint8)
    image = to_rgb(message_of(samples, encoding, size[1], padding=padding))
    np.testing.assert_array_equal(image, samples[..., list(order)])


@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize('padding', PADDINGS)
@pytest.mark.parametrize('encoding', WIDE)
def test_packed_samples_of_16_bits_are_scaled_and_rounded(encoding, padding, big):
    channels, order = WIDE[encoding]
    samples = noise(5, 7, channels, most=65536)
    samples[0, 0] = 65535
    message = message_of(
        samples.astype('>u2' if big else '<u2'), encoding, 7, padding=padding, big=big)
    np.testing.assert_array_equal(
        to_rgb(message), (samples[..., list(order)] * 255 + 32767) // 65535)


@pytest.mark.parametrize('padding', PADDINGS)
@pytest.mark.parametrize('encoding', SHARED)
def test_two_pixels_that_share_a_color(encoding, padding):
    samples = noise(5, 3, 4)
    first, u, v = SHARED[encoding]
    y = samples[..., first::2].reshape(5, 6)
    expected = from_yuv(y, *(samples[..., c].repeat(2, 1) for c in (u, v)))
    assert_close(to_rgb(message_of(
        samples.astype(np.uint8), encoding, 6, padding=padding)), expected)


@pytest.mark.parametrize('padding', PADDINGS)
@pytest.mark.parametrize('encoding, u', [('nv12', 0), ('nv21', 1)])
def test_four_pixels_that_share_a_color(encoding, u, padding):
    samples = noise(6, 6)
    colors = samples[4:].reshape(2, 3, 2).repeat(2, 0).repeat(2, 1)
    expected = from_yuv(samples[:4], colors[..., u], colors[..., 1 - u])
    assert_close(to_rgb(message_of(
        samples.astype(np.uint8), encoding, 6, 4, padding)), expected)


@pytest.mark.parametrize('padding', PADDINGS)
def test_a_plane_of_colors_of_full_size(padding):
    """Two rows of `step` bytes hold one row of colors; with padding they are not cut apart."""
    height, width = 5, 7
    y, colors = noise(height, width), noise(height, width, 2)
    rows = np.full((3 * height, width + padding), 77, np.uint8)
    rows[:height, :width] = y
    rows[height:].reshape(height, -1)[:, :2 * width] = colors.reshape(height, -1)
    message = message_of(rows, 'nv24', width, height)
    assert_close(to_rgb(message), from_yuv(y, colors[..., 0], colors[..., 1]))


def mosaic(pattern, color, height, width):
    tiles = np.array([color['rgb'.index(letter)] for letter in pattern]).reshape(2, 2)
    return np.tile(tiles, (height, width))[:height, :width]


@pytest.mark.parametrize('padding', PADDINGS)
@pytest.mark.parametrize('size', [(6, 8), (7, 9)])
@pytest.mark.parametrize('encoding', BAYER_8)
def test_a_mosaic_of_one_color_has_that_color(encoding, size, padding):
    color = (250, 20, 90)
    samples = mosaic(encoding[6:10], color, *size).astype(np.uint8)
    image = to_rgb(message_of(samples, encoding, size[1], padding=padding))
    assert image.shape == (*size, 3)
    assert (image[1:-1, 1:-1] == color).all()


@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize('padding', PADDINGS)
@pytest.mark.parametrize('encoding', BAYER_16)
def test_a_mosaic_of_16_bits(encoding, padding, big):
    color = (65535, 5140, 257 * 90)
    samples = mosaic(encoding[6:10], color, 7, 9).astype('>u2' if big else '<u2')
    image = to_rgb(message_of(samples, encoding, 9, padding=padding, big=big))
    assert (image[1:-1, 1:-1] == (255, 20, 90)).all()


CODES = {
    'uyvy': cv2.COLOR_YUV2RGB_UYVY, 'yuyv': cv2.COLOR_YUV2RGB_YUYV,
    'bayer_rggb8': cv2.COLOR_BayerBG2RGB, 'bayer_bggr8': cv2.COLOR_BayerRG2RGB,
    'bayer_gbrg8': cv2.COLOR_BayerGR2RGB, 'bayer_grbg8': cv2.COLOR_BayerGB2RGB}


@pytest.mark.parametrize('encoding', CODES)
def test_the_numbers_are_those_of_opencv(encoding):
    channels = ENCODINGS[encoding].row_bytes
    samples = noise(48, 64, channels).astype(np.uint8)
    np.testing.assert_array_equal(
        to_rgb(message_of(samples, encoding, 64, padding=3)),
        cv2.cvtColor(samples, CODES[encoding]))


def test_rgb8_is_a_view_of_the_message():
    message = message_of(noise(5, 7, 3).astype(np.uint8), 'rgb8', 7, padding=5)
    image = to_rgb(message)
    message.data[3] ^= 1
    assert image[0, 1, 0] == message.data[3]


def test_an_rgb_array_survives_the_way_to_a_message_and_back():
    picture = noise(5, 7, 3).astype(np.uint8)[:, ::-1]
    np.testing.assert_array_equal(to_rgb(from_rgb(picture)), picture)


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_wrong_sizes_are_named(encoding):
    row = ENCODINGS[encoding].row_bytes
    message = message_of(np.zeros((12, 8 * row), np.uint8), encoding, 8, height=4)
    assert ImageConverter().size(message) == (8, 4)
    for changes, words in (
            ({'width': 0}, '0x4'), ({'height': 0}, '8x0'), ({'step': 8 * row - 1}, 'step is'),
            ({'height': 50}, 'bytes of data'), ({'height': 2 ** 31 - 2}, 'bytes of data'),
            ({'width': 2 ** 31 - 2}, 'step is')):
        before = {name: getattr(message, name) for name in changes}
        for name, value in changes.items():
            setattr(message, name, value)
        with pytest.raises(CameraFault, match=words):
            to_rgb(message)
        for name, value in before.items():
            setattr(message, name, value)


@pytest.mark.parametrize('encoding, size, words', [
    ('uyvy', (7, 4), 'width is 7'), ('yuyv', (7, 4), 'width is 7'),
    ('nv12', (8, 3), 'height is 3'), ('nv21', (7, 4), 'width is 7')])
def test_odd_sizes_where_pixels_share_a_color(encoding, size, words):
    message = message_of(np.zeros((12, 32), np.uint8), encoding, size[0], height=size[1])
    with pytest.raises(CameraFault, match=words):
        to_rgb(message)


@pytest.mark.parametrize('encoding', ['32FC1', '', 'rgb8 ', 'RGB8', 'x' * 10000, '16UC3'])
def test_other_encodings_are_refused_by_name(encoding):
    message = message_of(np.zeros((4, 64), np.uint8), encoding, 4)
    with pytest.raises(CameraFault, match='is not supported; expected rgb8') as fault:
        to_rgb(message)
    assert repr(encoding[:40]) in str(fault.value)
    assert len(str(fault.value)) < 300
