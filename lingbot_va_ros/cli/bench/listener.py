"""
Node that receives the images of the benchmark as policy_node does, or in other ways.

It runs as a separate process:
`python -m lingbot_va_ros.cli.bench.listener EXECUTOR --ros-args -p transport:=raw …`.
"""

import functools
import json
import sys

import numpy as np
from rclpy.executors import Executor, MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import Trigger

from lingbot_va_ros.cli.bench.cameras import EMBODIMENT
from lingbot_va_ros.nodes import qos
from lingbot_va_ros.nodes.images.compressed import compressed_to_rgb
from lingbot_va_ros.nodes.images.conversion import to_rgb
from lingbot_va_ros.nodes.run import CannotStart, run_node
from lingbot_va_ros.nodes.stamps import nanoseconds_of
from lingbot_va_ros.specs.embodiment import load_embodiment

NAME = 'bench_listener'
# Processing of each message: kept, viewed as an array, or copied to an array.
HANDLINGS = {
    ('raw', 'kept'): lambda message: message, ('raw', 'viewed'): to_rgb,
    ('raw', 'copied'): lambda message: to_rgb(message).copy(),
    ('compressed', 'kept'): lambda message: message,
    ('compressed', 'decoded'): compressed_to_rgb}


class BenchListener(Node):
    """Counts images and measures their age; `~/figures` reports since its last call."""

    def __init__(self):
        super().__init__(NAME)
        transport, handling = (
            self.declare_parameter(name, default).value
            for name, default in (('transport', 'raw'), ('handling', 'kept')))
        if (transport, handling) not in HANDLINGS:
            raise CannotStart(f'{transport} images cannot be {handling}')
        self._handle = HANDLINGS[transport, handling]
        self._newest: dict = {}
        self._ages: list = []  # ns, from the stamp to the callback
        for name, source in load_embodiment(EMBODIMENT).cameras.items():
            raw = transport == 'raw'
            self.create_subscription(
                Image if raw else CompressedImage,
                source.topic if raw else f'{source.topic}/compressed',
                functools.partial(self._on_image, name), qos.SENSOR)
        self.create_service(Trigger, '~/figures', self._on_figures)

    def close(self, _asked_by: int | None = None) -> bool:
        """Return that no thread is left."""
        return True

    def _on_image(self, camera: str, message) -> None:
        self._ages.append(
            self.get_clock().now().nanoseconds - nanoseconds_of(message.header.stamp))
        self._newest[camera] = self._handle(message)

    def _on_figures(self, _request, response):
        """Answer in JSON: number of images, and percentiles of their age, ms."""
        ages = np.array(self._ages) * 1e-6
        self._ages = []
        response.success = True
        response.message = json.dumps({'images': len(ages), **{
            f'p{share}': float(np.percentile(ages, share)) if len(ages) else None
            for share in (50, 99)}})
        return response


def make_executor(name: str) -> Executor:
    """Return one of rclpy's executors: `single`, `multi` (two threads) or `events`."""
    if name == 'events':
        from rclpy.experimental import EventsExecutor  # newer than Humble

        return EventsExecutor()
    return MultiThreadedExecutor(2) if name == 'multi' else SingleThreadedExecutor()


def main() -> None:
    """Run the node until SIGINT or SIGTERM; the first argument names the executor."""
    sys.exit(run_node(BenchListener, sys.argv[2:], lambda node: make_executor(sys.argv[1])))


if __name__ == '__main__':
    main()
