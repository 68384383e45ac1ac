"""What is counted of a camera's images: bad ones, their share, and sizes that change."""

import pytest
from sensor_msgs.msg import CameraInfo, RegionOfInterest

from lingbot_va_ros.nodes.images.camera_watch import (
    CameraWatch,
    info_size,
    info_topic,
    SAME_SIZE_IN_A_ROW,
    WINDOW,
)
from lingbot_va_ros.policy.runtime.camera_buffer import CameraFault

SIZE, OTHER = (640, 480), (480, 33408)


def show(watch, size):
    """Show an image as a node does; return whether it was good."""
    try:
        watch.take(size)
    except CameraFault as fault:
        watch.reject(str(fault))
        return False
    return True


def test_the_share_of_the_newest_images_counts():
    watch = CameraWatch()
    for number in range(70):
        if number % 7 == 6:
            watch.reject('is cut off')
        else:
            watch.take(SIZE)
    assert watch.failure(0.3) is None
    assert watch.failure(0.1) == '17% of the last 30 images are bad: is cut off'
    assert watch.values('camera_head') == {
        'camera_head_images': '70', 'camera_head_bad_images': '10',
        'camera_head_bad_share': '0.167', 'camera_head_last_fault': 'is cut off'}
    assert watch.warnings('head') == ['camera head: 5 of the last 30 images are bad: is cut off']


def test_a_camera_that_failed_has_recovered_at_half_of_the_limit():
    watch = CameraWatch()
    for number in range(WINDOW):
        watch.reject('dark') if number < 10 else watch.take(SIZE)
    assert watch.failure(0.3) is not None
    states = []
    for _ in range(12):
        watch.take(SIZE)
        states.append(watch.failure(0.3) is not None)
    assert states == [True] * 5 + [False] * 7


def test_a_camera_without_a_good_image_says_why():
    watch = CameraWatch()
    assert watch.failure(0.3) is watch.newest_fault() is None
    watch.reject("encoding '32FC1' is not supported")
    assert watch.failure(0.3) == watch.newest_fault() == "encoding '32FC1' is not supported"
    watch.take(SIZE)
    assert watch.newest_fault() is None
    watch.restart()
    assert watch.failure(0.3) is None
    assert watch.warnings('head') == []


def test_an_image_that_turns_out_to_be_bad_counts_once():
    watch = CameraWatch()
    for _ in range(WINDOW):
        watch.take(SIZE)
    for _ in range(3):
        watch.discard('cannot be decoded')
    values = watch.values('c')
    assert (values['c_images'], values['c_bad_images'], values['c_bad_share']) == (
        '30', '3', '0.100')


def test_one_image_of_another_size_is_bad():
    watch = CameraWatch()
    assert [show(watch, size) for size in (SIZE, OTHER, SIZE)] == [True, False, True]
    assert watch.values('c')['c_last_fault'] == (
        'claims 480x33408 pixels; the images before it have 640x480')


def test_a_camera_may_change_its_size():
    watch = CameraWatch()
    watch.announce(CameraInfo(width=640, height=480))
    shown = [show(watch, size) for size in (SIZE, *[(320, 240)] * 8)]
    assert shown == [True] + [False] * (SAME_SIZE_IN_A_ROW - 1) + [True] * 4
    assert watch.announced is None  # it was about the size before
    assert not [line for line in watch.warnings('head') if 'camera_info' in line]


def test_two_cameras_on_one_topic_are_bad_for_ever():
    watch = CameraWatch()
    shown = [show(watch, size) for size in [SIZE, (320, 240)] * 20]
    assert shown == [True, False] * 20
    assert '50% of the last 30 images are bad' in watch.failure(0.3)


def test_the_first_image_is_compared_with_camera_info():
    watch = CameraWatch()
    watch.announce(CameraInfo(width=640, height=480))
    assert [show(watch, size) for size in (OTHER, SIZE)] == [False, True]
    assert watch.values('c')['c_last_fault'] == (
        'claims 480x33408 pixels; camera_info says 640x480')


def test_a_camera_info_of_another_size_is_a_warning_with_both():
    watch = CameraWatch()
    watch.announce(CameraInfo(width=1280, height=720))
    assert [show(watch, SIZE) for _ in range(6)] == [False] * 4 + [True] * 2
    for _ in range(WINDOW):
        assert show(watch, SIZE)
    assert watch.warnings('head') == [
        'camera head: images of 640x480 pixels, but camera_info says 1280x720']
    watch.announce(CameraInfo())  # not calibrated
    assert watch.announced == (1280, 720)


@pytest.mark.parametrize('info, size', [
    (CameraInfo(width=640, height=480), (640, 480)),
    (CameraInfo(width=640, height=480, binning_x=2, binning_y=2), (320, 240)),
    (CameraInfo(width=640, height=480, roi=RegionOfInterest(width=100, height=50)), (100, 50)),
    (CameraInfo(), (0, 0))])
def test_the_size_in_a_camera_info(info, size):
    assert info_size(info) == size


@pytest.mark.parametrize('images, info', [
    ('camera/head/image_raw', 'camera/head/camera_info'), ('image', 'camera_info'),
    ('/image', '/camera_info'), ('/a/color/image_rect', '/a/color/camera_info')])
def test_camera_info_lies_beside_the_images(images, info):
    assert info_topic(images) == info
