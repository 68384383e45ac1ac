"""The image conversion against ROS 2's cv_bridge, if that is installed."""

from ament_index_python.packages import get_package_prefix
import numpy as np
import pytest
from sensor_msgs.msg import Image

from lingbot_va_ros.nodes.image_conversion import ENCODINGS, from_rgb, to_rgb

NOISE = np.random.default_rng(3)


@pytest.fixture
def cv_bridge():
    """Return a CvBridge; skip where there is none (PyPI's is one of ROS 1, ament knows it not)."""
    try:
        get_package_prefix('cv_bridge')
    except (LookupError, OSError):
        pytest.skip('the ROS 2 package cv_bridge is not installed here')
    from cv_bridge import CvBridge
    return CvBridge()


def pixels_of(encoding):
    channels = ENCODINGS[encoding][0]
    shape = (11, 7, channels) if channels > 1 else (11, 7)
    return NOISE.integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_messages_of_cv_bridge_are_read_as_by_cv_bridge(cv_bridge, encoding):
    message = cv_bridge.cv2_to_imgmsg(pixels_of(encoding), encoding)
    np.testing.assert_array_equal(to_rgb(message), cv_bridge.imgmsg_to_cv2(message, 'rgb8'))


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_padded_rows_are_read_as_cv_bridge_reads_them(cv_bridge, encoding):
    """Padded by whole pixels: with other steps cv_bridge itself reads shifted rows."""
    rows = pixels_of(encoding).reshape(11, -1)
    rows = np.pad(rows, ((0, 0), (0, 3 * ENCODINGS[encoding][0])), constant_values=200)
    message = Image(height=11, width=7, encoding=encoding, step=rows.shape[1])
    message.data.frombytes(rows.tobytes())
    np.testing.assert_array_equal(to_rgb(message), cv_bridge.imgmsg_to_cv2(message, 'rgb8'))


def test_messages_equal_those_of_cv_bridge(cv_bridge):
    picture = pixels_of('rgb8')
    theirs, ours = cv_bridge.cv2_to_imgmsg(picture, 'rgb8'), from_rgb(picture)
    assert ours == theirs


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_cv_bridge_reads_the_messages(cv_bridge, encoding):
    ours = from_rgb(to_rgb(cv_bridge.cv2_to_imgmsg(pixels_of(encoding), encoding)))
    np.testing.assert_array_equal(cv_bridge.imgmsg_to_cv2(ours, 'rgb8'), to_rgb(ours))
