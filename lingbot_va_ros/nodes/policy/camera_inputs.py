"""The images of a configured policy's cameras, and the sizes that camera_info tells."""

from collections.abc import Callable
import functools
import threading
import time
from typing import Any

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.nodes import qos
from lingbot_va_ros.nodes.images.camera_watch import CameraWatch, info_topic
from lingbot_va_ros.nodes.images.conversion import as_mounted
from lingbot_va_ros.nodes.images.jpeg_scan import load_decoder
from lingbot_va_ros.nodes.images.transports import RAW, TRANSPORTS
from lingbot_va_ros.nodes.policy.configuration import Configuration
from lingbot_va_ros.nodes.policy.parameters import declare_camera
from lingbot_va_ros.nodes.stamps import nanoseconds_of
from lingbot_va_ros.policy.runtime.camera_buffer import CameraFault
from lingbot_va_ros.policy.runtime.clock import Clock
from lingbot_va_ros.policy.runtime.clock_steps import ClockSteps

# Seconds that a stamp may be ahead of our clock: a simulated one advances in steps. Further ahead
# it is of another clock, or of the time before a simulation was reset: kept, it would hide all
# that come after it.
MAX_AHEAD, MAX_AHEAD_SIMULATED = 0.05, 1.0
# A stamp further off than this, s, is of another clock: simulated, or counted from the start of a
# device. No delay and no clock that was set wrongly explains it.
OTHER_CLOCK = 1e8
# Seconds for which the executor's thread yields the GIL to the inference thread that it has woken.
GIL_YIELD_SECONDS = 0.0002


class CameraInputs:
    """
    Subscriptions of all cameras.

    Their callbacks run in the executor's thread. They look at the claims of an image and keep a
    reference; one that is bad is counted and left out, so that its neighbor stands in for it.
    `to_rgb` and `not_ready_reason` are called by the inference thread.

    :param clock: woken when all cameras have newer images.
    :param steps: looked at before anything is kept or judged.
    :param is_outdated: returns whether a stamp, ns, is of the time before the clock was set back.
    """

    def __init__(
        self, node: Node, configuration: Configuration, clock: Clock, steps: ClockSteps,
        is_outdated: Callable[[int], bool],
    ):
        self._node = node
        self._clock = clock
        self._steps = steps
        self._is_outdated = is_outdated
        self._converter = configuration.converter
        self._sources = configuration.embodiment.cameras
        self._cameras = configuration.cameras
        self._watches = {name: CameraWatch() for name in configuration.policy.cameras}
        # When the newest image of each camera came, ns, and its age then, s.
        self._delays: dict[str, tuple[int, float]] = {}
        self._subscriptions: list[Any] = []
        self._info_topics: dict[str, str] = {}
        self._infos: dict[str, Any] = {}  # subscriptions, until a size was told
        self._lock = threading.Lock()  # closed by the thread of transitions
        self._closed = False
        for name in configuration.policy.cameras:
            self._subscribe(name)

    def close(self) -> None:
        """End all subscriptions."""
        with self._lock:
            self._closed = True
            for subscription in (*self._subscriptions, *self._infos.values()):
                self._node.destroy_subscription(subscription)
            self._subscriptions.clear()
            self._infos.clear()

    def clear(self) -> None:
        """Discard all received images, after a step of the clock."""
        self._cameras.clear()
        self._delays.clear()
        for watch in self._watches.values():
            watch.restart()

    def look_around(self) -> None:
        """Listen for the camera_info of cameras whose size is not told yet."""
        with self._lock:
            for name, watch in () if self._closed else self._watches.items():
                if watch.announced is None and name not in self._infos:
                    self._infos[name] = self._node.create_subscription(
                        CameraInfo, self._info_topics[name], watch.announce, qos.SENSOR)
                elif watch.announced is not None and name in self._infos:
                    self._node.destroy_subscription(self._infos.pop(name))

    def not_ready_reason(self) -> str | None:
        """Return the reason, in one line, why the images cannot be used, or None."""
        most = self._node.get_parameter('max_bad_images').value
        for name, watch in self._watches.items():
            failure = watch.failure(most)
            if failure:
                return f'camera {name}: {failure}'
        now, max_age = self._clock.now_ns(), self._node.get_parameter('max_camera_age').value
        return '; '.join(self._cameras.faults(now, max_age, self._late(now, max_age))) or None

    def diagnostics(self) -> tuple[dict[str, str], list[str]]:
        """Return entries of /diagnostics on the images, and what is wrong with them."""
        values: dict[str, str] = {}
        warnings: list[str] = []
        for name, watch in self._watches.items():
            values.update(watch.values(f'camera_{name}'))
            warnings += watch.warnings(name)
        return values, warnings

    def to_rgb(self, camera: str, message: Image | CompressedImage) -> np.ndarray:
        """
        Convert an image to RGB uint8 [H, W, 3], cropped and turned as the embodiment requires.

        :raises CameraFault: the image cannot be converted; it is counted as bad.
        """
        try:
            image = self._converter.to_rgb(message)
            source = self._sources.get(camera)
            return image if source is None else as_mounted(image, source.crop, source.rotate)
        except CameraFault as fault:
            self._watches[camera].discard(str(fault))
            raise CameraFault(f'camera {camera}: {fault}') from None

    def _late(self, now_ns: int, max_age: float) -> dict[str, str]:
        """Return by camera why images that still come cannot be used: stamps, or damage."""
        why = {
            camera: f'stamped {delay:.2f} s ago: late, or clocks are not synchronized'
            for camera, (came_ns, delay) in list(self._delays.items())
            if delay > max_age and now_ns - came_ns <= max_age * NANOSECONDS}
        for camera, watch in self._watches.items():
            fault = watch.newest_fault()
            if fault and camera not in why:
                why[camera] = f'no good image for {max_age:g} s; the newest one is bad: {fault}'
        return why

    def _subscribe(self, name: str) -> None:
        source = self._sources.get(name)
        topic, transport_name = declare_camera(
            self._node, name, source.topic if source else f'camera/{name}/image_raw',
            source.transport if source else RAW)
        transport = TRANSPORTS[transport_name]
        if transport_name != RAW:
            load_decoder()  # not when the first image is needed
        subscription = self._node.create_subscription(
            transport.kind, topic + transport.suffix, functools.partial(self._on_image, name),
            qos.SENSOR)
        self._subscriptions.append(subscription)
        # Beside the topic that it was remapped to.
        self._info_topics[name] = info_topic(
            subscription.topic_name.removesuffix(transport.suffix))

    def _on_image(self, camera: str, message: Image | CompressedImage) -> None:
        self._steps.look()
        stamp = nanoseconds_of(message.header.stamp)
        if self._is_outdated(stamp):
            return
        watch, now = self._watches[camera], self._clock.now_ns()
        try:
            check_stamp(stamp, now, bool(self._node.get_parameter('use_sim_time').value))
            watch.take(self._converter.size(message))
        except CameraFault as fault:
            watch.reject(str(fault))
            return
        self._delays[camera] = now, (now - stamp) / NANOSECONDS
        if self._cameras.add(camera, stamp, message):
            self._clock.wake()
            # The woken thread gets the GIL now, not when this thread next waits.
            time.sleep(GIL_YIELD_SECONDS)


def check_stamp(stamp_ns: int, now_ns: int, is_simulated: bool) -> None:
    """
    Check the stamp of an image that arrives now.

    :param is_simulated: whether our clock is a simulated one.
    :raises CameraFault: the image cannot be used by its stamp.
    """
    if stamp_ns == 0:
        raise CameraFault('stamp is 0; expected the time of exposure')
    age = (now_ns - stamp_ns) / NANOSECONDS
    if abs(age) > OTHER_CLOCK:
        raise CameraFault(
            f'stamped by another clock: {stamp_ns / NANOSECONDS:.1f} s where this node has '
            f'{now_ns / NANOSECONDS:.1f} s')
    if age < -(MAX_AHEAD_SIMULATED if is_simulated else MAX_AHEAD):
        raise CameraFault(f'stamped {-age:.2f} s ahead: clocks are not synchronized')
