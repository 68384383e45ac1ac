"""The images of the policy's cameras over DDS: bad ones are left out, counted and named."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import rclpy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from support.waiting import wait_for

from lingbot_va_ros.nodes.images.conversion import from_rgb, ImageConverter
from lingbot_va_ros.nodes.parameters import declare_parameters
from lingbot_va_ros.nodes.policy.camera_inputs import CameraInputs
from lingbot_va_ros.nodes.policy.parameters import PARAMETERS
from lingbot_va_ros.nodes.stamps import stamp_of
from lingbot_va_ros.policy.runtime.camera_buffer import CameraBuffer, CameraFault
from lingbot_va_ros.policy.runtime.clock import SystemClock
from lingbot_va_ros.policy.runtime.clock_steps import ClockSteps
from lingbot_va_ros.specs.embodiment import CameraSource

PICTURE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
JPEG = cv2.imencode('.jpg', PICTURE)[1].tobytes()


class Cameras:
    """A raw and a compressed camera, which send one image at a time."""

    def __init__(self, node):
        self.node = node
        self.buffer = CameraBuffer(('head', 'wrist'), 60.0)
        clock = SystemClock()
        self.inputs = CameraInputs(
            node, SimpleNamespace(
                policy=SimpleNamespace(cameras=('head', 'wrist')), cameras=self.buffer,
                converter=ImageConverter(), embodiment=SimpleNamespace(cameras={
                    'head': CameraSource('head', 'head/image_raw', crop=(0, 0, 60, 40)),
                    'wrist': CameraSource('wrist', 'wrist/image_raw', 'compressed')})),
            clock, ClockSteps(clock.now_ns, lambda step: None), lambda stamp: False)
        self.inputs.look_around()
        self._clock = clock
        self._publishers = {
            'head': node.create_publisher(Image, 'head/image_raw', 10),
            'wrist': node.create_publisher(CompressedImage, 'wrist/image_raw/compressed', 10)}
        self.infos = node.create_publisher(CameraInfo, 'wrist/camera_info', 10)
        for publisher in (*self._publishers.values(), self.infos):
            wait_for(lambda each=publisher: each.get_subscription_count(), 'subscriptions')

    def values(self):
        return self.inputs.diagnostics()[0]

    def send(self, camera, message):
        """Send an image and wait until it has been counted."""
        counted = int(self.values()[f'camera_{camera}_images']) + 1
        message.header.stamp = stamp_of(self._clock.now_ns())
        self._publishers[camera].publish(message)
        self.wait(lambda: self.values()[f'camera_{camera}_images'] == str(counted))

    def wait(self, condition):
        def met():
            rclpy.spin_once(self.node, timeout_sec=0.01)
            return condition()
        wait_for(met, 'an image that was counted')

    def newest(self, camera):
        return self.buffer.newest(60.0)[camera]


def jpeg(data=JPEG, text='rgb8; jpeg compressed bgr8'):
    message = CompressedImage(format=text)
    message.data.frombytes(data)
    return message


@pytest.fixture
def cameras():
    rclpy.init()
    node = rclpy.create_node('test_cameras')
    declare_parameters(node, PARAMETERS)
    found = Cameras(node)
    yield found
    found.inputs.close()
    node.destroy_node()
    rclpy.shutdown()


def test_bad_images_are_left_out_counted_and_named(cameras):
    for _ in range(2):
        cameras.send('head', from_rgb(PICTURE))
        cameras.send('wrist', jpeg())
    kept = cameras.newest('wrist').stamp_ns
    assert cameras.inputs.not_ready_reason() is None
    damaged = (
        (JPEG[:len(JPEG) // 2], 'jpeg'), (JPEG, '16UC1; png compressed '),
        (JPEG.replace(b'\0\x30\0\x40', b'\x82\x80\0\x40'), 'jpeg'), (b'', 'jpeg'))
    for data, text in damaged:
        cameras.send('wrist', jpeg(data, text))
    assert cameras.newest('wrist').stamp_ns == kept
    values, warnings = cameras.inputs.diagnostics()
    assert values['camera_wrist_bad_images'] == '4'
    assert values['camera_head_bad_images'] == '0'
    assert warnings == [
        "camera wrist: 4 of the last 6 images are bad: compressed image of format 'jpeg': no data"]
    assert cameras.inputs.not_ready_reason() == (
        "camera wrist: 67% of the last 6 images are bad: compressed image of format 'jpeg': no "
        'data')
    cameras.node.set_parameters([rclpy.Parameter('max_bad_images', value=1.0)])
    assert cameras.inputs.not_ready_reason() is None
    cameras.node.set_parameters([rclpy.Parameter('max_camera_age', value=0.001)])
    assert 'camera wrist: no good image for 0.001 s; the newest one is bad: compressed image' in (
        cameras.inputs.not_ready_reason())


def test_what_is_bad_when_it_is_converted_counts_and_names_the_camera(cameras):
    small = from_rgb(PICTURE[:30])
    cameras.send('head', small)
    with pytest.raises(CameraFault, match=r'^camera head: crop \[0, 0, 60, 40\]'):
        cameras.inputs.to_rgb('head', small)
    assert cameras.values()['camera_head_bad_images'] == '1'


def test_images_are_converted_as_the_camera_is_mounted(cameras):
    cameras.send('head', from_rgb(PICTURE))
    cameras.send('wrist', jpeg())
    np.testing.assert_array_equal(
        cameras.inputs.to_rgb('head', cameras.newest('head').image), PICTURE[:40, :60])
    assert cameras.inputs.to_rgb('wrist', cameras.newest('wrist').image).shape == (48, 64, 3)


def test_camera_info_is_heard_once_and_compared(cameras):
    cameras.infos.publish(CameraInfo(width=32, height=24))

    def told():
        cameras.inputs.look_around()
        return not cameras.infos.get_subscription_count()
    cameras.wait(told)
    for _ in range(5):
        cameras.send('wrist', jpeg())
    assert cameras.inputs.diagnostics()[1][-1] == (
        'camera wrist: images of 64x48 pixels, but camera_info says 32x24')
