"""Images as the camera is mounted."""

import numpy as np
import pytest

from lingbot_va_ros.nodes.images.conversion import as_mounted
from lingbot_va_ros.policy.runtime.camera_buffer import CameraFault

RGB = np.random.default_rng(1).integers(0, 255, (5, 7, 3), np.uint8)


def test_a_camera_is_cropped_before_it_is_turned():
    np.testing.assert_array_equal(as_mounted(RGB, (1, 2, 4, 3), True), RGB[4:1:-1, 4:0:-1])


def test_a_crop_out_of_the_image_is_refused():
    with pytest.raises(CameraFault, match='7x5'):
        as_mounted(RGB, (4, 0, 4, 5), False)
