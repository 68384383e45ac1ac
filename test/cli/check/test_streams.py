"""What `check --live` says of the images of one camera, without a graph."""

import time

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, CompressedImage

from lingbot_va_ros.cli.check.streams import CameraStream
from lingbot_va_ros.nodes.images.conversion import from_rgb, ImageConverter
from lingbot_va_ros.nodes.stamps import stamp_of
from lingbot_va_ros.specs.embodiment import CameraSource

PICTURE = cv2.GaussianBlur(
    np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8), (0, 0), 2)
JPEG = cv2.imencode('.jpg', PICTURE)[1].tobytes()
DEPTH = cv2.imencode('.png', np.full((48, 64), 700, np.uint16))[1].tobytes()


def compressed(data=JPEG, text='rgb8; jpeg compressed bgr8'):
    message = CompressedImage(format=text)
    message.data.frombytes(data)
    return message


def findings(messages, info=None, **source):
    """Return {message: severity} after some images."""
    stream = CameraStream(
        CameraSource('head', 'camera/head/image_raw', **source), (32, 32), time.time_ns, False,
        ImageConverter())
    if info is not None:
        stream.announce(info)
    for message in messages:
        message.header.stamp = stamp_of(time.time_ns())
        stream.take(message)
    return {found.message: found.severity
            for found in stream.findings('head', '/driver', None, 5.0, 1.0)}


@pytest.mark.parametrize('messages', [
    [from_rgb(PICTURE) for _ in range(3)], [compressed() for _ in range(3)]])
def test_good_images_have_no_findings(messages):
    assert findings(messages, CameraInfo(width=64, height=48)) == {}


@pytest.mark.parametrize('data, text, words', [
    (JPEG[:len(JPEG) // 2], 'jpeg', 'JPEG is cut off'),
    (DEPTH, '16UC1; png compressed ', '16UC1 is a depth image'),
    (b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\1\x86\xa0\0\1\x86\xa0\x08\2\0\0\0' + bytes(30), 'png',
     'PNG claims 100000x100000 pixels')])
def test_bad_images_are_counted_with_their_reason(data, text, words):
    found = findings([compressed(), compressed(data, text), compressed(data, text), compressed()])
    (line, severity), = found.items()
    assert severity == 'error'
    assert line.startswith('2 of 4 images are bad: ') and words in line
    assert line.endswith('(from /driver)')


def test_many_reasons_stay_one_line():
    line, = findings([compressed(JPEG[:-end]) for end in range(2, 30)])
    assert line.startswith('28 of 28 images are bad: ') and len(line) < 400


def test_sizes_are_compared_with_each_other_and_with_camera_info():
    (line, severity), = findings(
        [compressed(), compressed(cv2.imencode('.jpg', PICTURE[:40])[1].tobytes())]).items()
    assert severity == 'error' and '64x48, 64x40' in line
    assert findings([compressed()], CameraInfo(width=640, height=480)) == {
        'images of 64x48 pixels, but camera_info says 640x480': 'warning'}
    assert findings([compressed()], CameraInfo()) == {}


def test_an_image_is_judged_as_it_is_mounted():
    assert findings([from_rgb(PICTURE)], crop=(0, 0, 64, 20), rotate=90) == {
        'images of 20x64 pixels are enlarged to the 32x32 of the policy': 'warning'}
    line, = findings([from_rgb(PICTURE)], crop=(0, 0, 65, 20))
    assert line.startswith('1 of 1 images are bad: crop [0, 0, 65, 20]')


def test_gray_values_that_may_be_depth_are_a_warning():
    message = from_rgb(PICTURE)
    message.encoding = '16UC1'
    (line, severity), = findings([message]).items()
    assert severity == 'warning' and line.startswith('16UC1 is read as gray values')
