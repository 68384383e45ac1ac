"""Publishes the cameras of the simulated robot: images and camera_info."""

from builtin_interfaces.msg import Time
import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image

from lingbot_va_ros.nodes.images.conversion import from_rgb
from lingbot_va_ros.nodes.qos import COMMAND
from lingbot_va_ros.sim.cameras import Lens
from lingbot_va_ros.sim.simulation import Simulation


class CameraPublishers:
    """
    Publishers of `camera/<name>/image_raw` and `camera_info`, and of the overview camera.

    :param node: creates the publishers.
    :param simulation: its cameras are published.
    :param overview: whether `camera/overview/image_raw` is published too.
    """

    def __init__(self, node: Node, simulation: Simulation, overview: bool):
        self._cameras = {
            name: (node.create_publisher(Image, f'camera/{name}/image_raw', COMMAND),
                   node.create_publisher(CameraInfo, f'camera/{name}/camera_info', COMMAND),
                   camera_info(name, simulation.lens(name)))
            for name in simulation.cameras}
        self._overview = (
            node.create_publisher(Image, 'camera/overview/image_raw', COMMAND)
            if overview else None)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the cameras, without the overview."""
        return tuple(self._cameras)

    def publish(self, simulation: Simulation, stamp: Time) -> None:
        """Render and publish every camera."""
        for name, (images, infos, info) in self._cameras.items():
            images.publish(image_message(simulation.render(name), stamp, info.header.frame_id))
            info.header.stamp = stamp
            infos.publish(info)

    def publish_overview(self, simulation: Simulation, stamp: Time) -> None:
        """Render and publish the overview camera, if there is one."""
        if self._overview is not None:
            self._overview.publish(image_message(
                simulation.render_overview(), stamp, 'overview_camera_optical_frame'))


def image_message(image: np.ndarray, stamp: Time, frame_id: str) -> Image:
    """Return an rgb8 message of an RGB image, uint8 [H, W, 3]."""
    message = from_rgb(image)
    message.header.stamp, message.header.frame_id = stamp, frame_id
    return message


def camera_info(name: str, lens: Lens) -> CameraInfo:
    """Return the calibration of a pinhole camera without distortion (REP 103 optical frame)."""
    message = CameraInfo()
    message.header.frame_id = f'{name}_camera_optical_frame'
    message.width, message.height = lens.width, lens.height
    message.distortion_model = 'plumb_bob'
    message.d = [0.0] * 5
    f, x, y = lens.focal_length, lens.center_x, lens.center_y
    message.k = [f, 0.0, x, 0.0, f, y, 0.0, 0.0, 1.0]
    message.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    message.p = [f, 0.0, x, 0.0, 0.0, f, y, 0.0, 0.0, 0.0, 1.0, 0.0]
    return message
