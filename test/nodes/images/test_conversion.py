"""Images as the camera is mounted."""

import numpy as np
import pytest

from lingbot_va_ros.nodes.images.conversion import as_mounted
from lingbot_va_ros.policy.runtime.camera_buffer import CameraFault

RGB = np.random.default_rng(1).integers(0, 255, (5, 7, 3), np.uint8)


def test_a_camera_is_cropped_before_it_is_turned():
    np.testing.assert_array_equal(as_mounted(RGB, (1, 2, 4, 3), 180), RGB[4:1:-1, 4:0:-1])


def test_a_crop_out_of_the_image_is_refused():
    with pytest.raises(CameraFault, match='7x5'):
        as_mounted(RGB, (4, 0, 4, 5), 0)


@pytest.mark.parametrize('crop', [None, (1, 2, 4, 3)])
@pytest.mark.parametrize('rotate, turns', [(0, 0), (90, 3), (180, 2), (270, 1)])
def test_a_camera_is_turned_clockwise(rotate, turns, crop):
    shown = RGB if crop is None else RGB[2:5, 1:5]
    for image in (RGB, RGB[::-1, ::-1][::-1, ::-1], np.asfortranarray(RGB)):
        np.testing.assert_array_equal(
            as_mounted(image, crop, rotate), np.rot90(shown, turns))


def test_the_top_left_corner_goes_to_the_top_right_by_90_degrees():
    image = np.zeros((2, 3, 3), np.uint8)
    image[0, 0] = 9
    assert as_mounted(image, None, 90)[0, 1, 0] == 9
