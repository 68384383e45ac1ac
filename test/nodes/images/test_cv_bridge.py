"""The image conversion against ROS 2's cv_bridge, if that is installed."""

import itertools

from ament_index_python.packages import get_package_prefix
import numpy as np
import pytest
from sensor_msgs.msg import Image

from lingbot_va_ros.nodes.images.bridge import BridgeConverter, probe_bridge
from lingbot_va_ros.nodes.images.conversion import from_rgb, to_rgb
from lingbot_va_ros.nodes.images.encodings import ENCODINGS

NOISE = np.random.default_rng(3)
# Encodings that cv_bridge converts to rgb8: it takes 8UC3, 16UC1 … for no pictures, and does not
# know the others.
COMMON = [name for name in ENCODINGS if not name[0].isdigit() and name not in (
    'nv12', 'nv21', 'nv24', 'uyvy', 'yuyv')]


@pytest.fixture
def cv_bridge():
    """Return a CvBridge; skip where there is none (PyPI's is one of ROS 1, ament knows it not)."""
    try:
        get_package_prefix('cv_bridge')
    except (LookupError, OSError):
        pytest.skip('the ROS 2 package cv_bridge is not installed here')
    report = probe_bridge()
    if not report.works:
        pytest.skip(f'cv_bridge {report.message}')
    from cv_bridge import CvBridge
    return CvBridge()


def message_of(encoding, padding=0, big=False):
    row = 8 * ENCODINGS[encoding].row_bytes
    rows = np.pad(NOISE.integers(0, 256, (11, row), np.uint8), ((0, 0), (0, padding)))
    message = Image(
        height=11, width=8, encoding=encoding, step=row + padding, is_bigendian=int(big))
    message.data.frombytes(rows.tobytes())
    return message


def test_messages_are_read_as_by_cv_bridge(cv_bridge):
    for encoding in COMMON:
        message = message_of(encoding)
        np.testing.assert_array_equal(
            to_rgb(message), cv_bridge.imgmsg_to_cv2(message, 'rgb8'), err_msg=encoding)


def test_the_converter_that_uses_it_agrees(cv_bridge):
    for encoding, padding, big in itertools.product(COMMON, (1, 4, 32), (False, True)):
        message = message_of(encoding, padding, big)
        np.testing.assert_array_equal(
            to_rgb(message), BridgeConverter().to_rgb(message), err_msg=encoding)


def test_messages_equal_those_of_cv_bridge(cv_bridge):
    picture = NOISE.integers(0, 256, (11, 7, 3), np.uint8)
    theirs, ours = cv_bridge.cv2_to_imgmsg(picture, 'rgb8'), from_rgb(picture)
    assert ours == theirs


def test_cv_bridge_reads_the_messages(cv_bridge):
    picture = NOISE.integers(0, 256, (11, 7, 3), np.uint8)
    np.testing.assert_array_equal(cv_bridge.imgmsg_to_cv2(from_rgb(picture), 'rgb8'), picture)
