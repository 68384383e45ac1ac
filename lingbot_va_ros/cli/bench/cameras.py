"""
Node with the drivers of the benchmark: three cameras at 30 Hz, and the joints of two arms at home.

Images are raw, or JPEG if the parameter `transport` is `compressed`; they are encoded once.

It runs as a separate process: `python -m lingbot_va_ros.cli.bench.cameras`.
"""

import sys

import cv2
import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_srvs.srv import SetBool, Trigger

from lingbot_va_ros.nodes import qos
from lingbot_va_ros.nodes.images.conversion import from_rgb
from lingbot_va_ros.nodes.run import run_node
from lingbot_va_ros.nodes.stamps import nanoseconds_of
from lingbot_va_ros.specs.embodiment import load_embodiment

NAME, EMBODIMENT, POLICY = 'bench_cameras', 'sim_dual', 'lingbot_va_policy'
RATE = 30.0  # Hz, of each camera
JOINT_RATE = 50.0  # Hz
SIZE = (480, 640)


class BenchCameras(Node):
    """Publishes images and joint states; `~/stream` starts and stops, `~/once` sends one each."""

    def __init__(self):
        super().__init__(NAME)
        embodiment = load_embodiment(EMBODIMENT)
        picture = _picture()
        self._image: Image | CompressedImage = from_rgb(picture)
        topics = [source.topic for source in embodiment.cameras.values()]
        if self.declare_parameter('transport', 'raw').value == 'compressed':
            self._image = CompressedImage(format='jpeg')
            self._image.data.frombytes(
                cv2.imencode('.jpg', cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes())
            topics = [f'{topic}/compressed' for topic in topics]
        self._cameras = [
            self.create_publisher(type(self._image), topic, qos.SENSOR) for topic in topics]
        self._joints = JointState(
            name=list(embodiment.joints), position=[float(value) for value in embodiment.home])
        self._joints_out = self.create_publisher(JointState, 'joint_states', qos.SENSOR)
        self._streaming, self._sent = False, 0
        self.create_service(SetBool, '~/stream', self._on_stream)
        self.create_service(Trigger, '~/once', self._on_once)
        self.create_timer(1.0 / RATE, self._tick)
        self.create_timer(1.0 / JOINT_RATE, self._publish_joints)

    def close(self, _asked_by: int | None = None) -> bool:
        """Return that no thread is left."""
        return True

    def _on_stream(self, request, response):
        """Start or stop the images; the answer to a stop is the number of images per camera."""
        if request.data:
            self._sent = 0
        self._streaming = request.data
        response.success, response.message = True, str(self._sent)
        return response

    def _on_once(self, _request, response):
        """Send one image of each camera; the answer is its newest stamp and its send time, ns."""
        stamp = self._publish_images()
        sent = self.get_clock().now().nanoseconds
        response.success, response.message = True, f'{stamp} {sent}'
        return response

    def _tick(self) -> None:
        if self._streaming:
            self._sent += 1
            self._publish_images()

    def _publish_images(self) -> int:
        """Send one image of each camera, stamped now; return the newest stamp, ns."""
        for publisher in self._cameras:
            self._image.header.stamp = self.get_clock().now().to_msg()
            publisher.publish(self._image)
        return nanoseconds_of(self._image.header.stamp)

    def _publish_joints(self) -> None:
        self._joints.header.stamp = self.get_clock().now().to_msg()
        self._joints_out.publish(self._joints)


def _picture() -> np.ndarray:
    """Return an image, uint8 [H, W, 3], with about the detail of a photograph."""
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    blurred = cv2.GaussianBlur(noise, (0, 0), 3)
    return cv2.normalize(blurred, np.empty_like(blurred), 0, 255, cv2.NORM_MINMAX)


def main(args=None) -> None:
    """Run the node until SIGINT or SIGTERM."""
    sys.exit(run_node(BenchCameras, args))


if __name__ == '__main__':
    main()
