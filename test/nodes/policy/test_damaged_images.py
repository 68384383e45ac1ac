"""The policy node while images of a compressed camera are damaged: it works or names it."""

import struct
import time
import zlib

import cv2
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State, Transition
import numpy as np
import pytest
import rclpy
from sensor_msgs.msg import CompressedImage
from support.policy_world import NS, policy_process, RELIABLE, World
from support.spinning import spinning
from support.waiting import wait_for

from lingbot_va_ros.msg import PolicyStatus
from lingbot_va_ros.nodes import qos

pytestmark = pytest.mark.timeout(600)
PICTURE = cv2.GaussianBlur(
    np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8), (0, 0), 2)
JPEG = cv2.imencode('.jpg', PICTURE)[1].tobytes()
DEPTH = cv2.imencode('.png', np.full((48, 64), 700, np.uint16))[1].tobytes()
NOISE = cv2.imencode('.jpg', np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8))[
    1].tobytes()
GRAY = cv2.imencode('.jpg', PICTURE[..., 0])[1].tobytes()


def with_size(width, height):
    place = JPEG.index(b'\xff\xc0') + 5
    return JPEG[:place] + struct.pack('>HH', height, width) + JPEG[place + 4:]


def huge_png():
    def chunk(name, content):
        return struct.pack('>I', len(content)) + name + content + struct.pack(
            '>I', zlib.crc32(name + content))
    return b'\x89PNG\r\n\x1a\n' + chunk(
        b'IHDR', struct.pack('>IIBBBBB', 100000, 100000, 8, 2, 0, 0, 0)) + chunk(
        b'IDAT', zlib.compress(bytes(1000))) + chunk(b'IEND', b'')


class Cameras(World):
    """The head's images are whole; the wrist's are compressed, and some of them are damaged."""

    def __init__(self, node):
        super().__init__(node)
        self.cameras = {'head'}
        self.every = 0  # so many images of the wrist go from one damaged one to the next
        self.damaged = JPEG[:len(JPEG) // 2], 'jpeg'
        self.diagnostics = []
        node.create_subscription(
            DiagnosticArray, '/diagnostics', self.diagnostics.append, qos.EVENTS)
        self._sent = 0
        self._wrist = node.create_publisher(
            CompressedImage, 'camera/left_wrist/image_raw/compressed', RELIABLE)
        node.create_timer(1 / 30, self._show_wrist)

    def _show_wrist(self):
        self._sent += 1
        bad = self.every and self._sent % self.every == 0
        data, text = self.damaged if bad else (JPEG, 'bgr8; jpeg compressed bgr8')
        message = CompressedImage(format=text)
        message.data.frombytes(data)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(self.clock(), NS)
        self._wrist.publish(message)

    def values(self):
        return {entry.key: entry.value for entry in self.diagnostics[-1].status[0].values}

    def wait(self, seconds):
        end = time.monotonic() + seconds
        wait_for(lambda: time.monotonic() > end, 'time')


@pytest.fixture(scope='module')
def world(tmp_path_factory, untrained_checkpoint):
    rclpy.init()
    with spinning(rclpy.create_node('test_cameras')) as node, policy_process(
            tmp_path_factory.mktemp('policy'), '-p', 'executed_source:=plan', '-p',
            'cameras.left_wrist.transport:=compressed', '-p',
            f'checkpoint:={untrained_checkpoint}',
            # However busy this machine is.
            '-p', 'max_camera_age:=5.0', '-p', 'max_joint_age:=5.0', '-p',
            'max_camera_skew:=0.5') as (process, _):
        world = Cameras(node)
        wait_for(lambda: world.statuses, 'a status')
        assert world.change(Transition.TRANSITION_CONFIGURE)
        world.instruct('wipe the plate')
        assert world.change(Transition.TRANSITION_ACTIVATE)
        wait_for(lambda: world.chunks, 'a chunk')
        wait_for(lambda: world.diagnostics, 'diagnostics')
        yield world
        assert process.poll() is None
    rclpy.shutdown()


@pytest.fixture(autouse=True)
def whole(world):
    """All images are whole at the beginning, and the policy works."""
    yield
    world.every = 0
    world.wait_mode(PolicyStatus.RUNNING)
    assert world.state() == State.PRIMARY_STATE_ACTIVE


@pytest.mark.parametrize('damaged, words', [
    (JPEG[:len(JPEG) // 2], 'JPEG is cut off'),
    # Found when it is decoded.
    (NOISE[:2000] + NOISE[3000:], 'JPEG has lost a part of its picture')],
    ids=lambda value: value if isinstance(value, str) else 'data')
def test_with_every_seventh_image_damaged_it_works(world, damaged, words):
    world.wait_mode(PolicyStatus.RUNNING)
    world.damaged = damaged, 'jpeg'
    since, chunks = len(world.statuses), len(world.chunks)
    bad = int(world.values()['camera_left_wrist_bad_images'])
    world.every = 7
    world.wait(5.0)
    modes = {status.mode for status in world.statuses[since:]}
    assert modes == {PolicyStatus.RUNNING}
    assert len(world.chunks) > chunks
    wait_for(lambda: int(world.values()['camera_left_wrist_bad_images']) > bad + 3, 'a count')
    assert words in world.values()['camera_left_wrist_last_fault']
    assert float(world.values()['camera_left_wrist_bad_share']) < 0.25


def test_with_every_second_image_damaged_it_holds_and_names_the_camera(world):
    world.damaged = JPEG[:len(JPEG) // 2], 'jpeg'
    world.every = 2
    world.wait_mode(PolicyStatus.HOLDING, 'images are bad: ')
    assert 'camera left_wrist: ' in world.status.reason
    before = len(world.chunks)
    world.wait(2.0)
    assert len(world.chunks) <= before + 1


@pytest.mark.parametrize('data, text, words', [
    (huge_png(), 'png', 'PNG claims 100000x100000 pixels'),
    (with_size(64, 65535), 'jpeg', 'bytes cannot hold them'),
    (with_size(64, 64), 'jpeg', 'claims 64x64 pixels; the images before it have 64x48'),
    (DEPTH, '16UC1; png compressed ', '16UC1 is a depth image'),
    (GRAY, 'yuv422_yuy2; jpeg compressed mono8', 'the colors of yuv422_yuy2 were lost'),
    (b'', 'jpeg', 'no data')],
    ids=lambda value: value if isinstance(value, str) else 'data')
def test_no_image_ends_the_policy(world, data, text, words):
    world.damaged = data, text
    world.every = 1 if 'claims 64x64' not in words else 2
    world.wait_mode(PolicyStatus.HOLDING, words)
    assert 'camera left_wrist: ' in world.status.reason
