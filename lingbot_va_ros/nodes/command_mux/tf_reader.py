"""Reads /tf and /tf_static, from the first frame on that has to be looked up."""

import functools
import importlib
import time
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from lingbot_va_ros.robot.frame_tree import FrameTree, UnknownFrame
from lingbot_va_ros.robot.poses import pose_of, PoseError, rotation_of

# A transform that moves counts for this long, s.
TIMEOUT = 1.0
DEPTH = 100
# Longer messages are no transforms of a robot.
MOST_TRANSFORMS = 1000


class TfReader:
    """
    Poses of frames by tf, where tf2_msgs is installed; without a history.

    It subscribes when the first frame is asked for: tf takes time in Python, and most setups need
    none of it.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._tree = FrameTree(TIMEOUT)
        self._fault: str | None = None  # None: not subscribed yet

    def pose(self, base: str, frame: str) -> np.ndarray | str:
        """Return the pose [4, 4] of a frame in another one, or why there is none, in one line."""
        if self._fault is None:
            self._fault = self._subscribe()
        if self._fault:
            return self._fault
        try:
            return self._tree.pose(base, frame, time.monotonic())
        except UnknownFrame as error:
            return str(error)

    def _subscribe(self) -> str:
        try:
            kind = importlib.import_module('tf2_msgs.msg').TFMessage
        except ImportError:
            return 'tf2_msgs is not installed, so that no tf is read'
        for topic, is_static in (('/tf', False), ('/tf_static', True)):
            self._node.create_subscription(
                kind, topic, functools.partial(self.take, is_static=is_static), QoSProfile(
                    history=HistoryPolicy.KEEP_LAST, depth=DEPTH,
                    reliability=ReliabilityPolicy.RELIABLE,
                    durability=(DurabilityPolicy.TRANSIENT_LOCAL if is_static
                                else DurabilityPolicy.VOLATILE)))
        return ''

    def take(self, message: Any, is_static: bool) -> None:
        """Take a tf2_msgs/TFMessage; a transform that is none is left out."""
        now_s = time.monotonic()
        for transform in message.transforms[:MOST_TRANSFORMS]:
            place, turn = transform.transform.translation, transform.transform.rotation
            try:
                rotation = rotation_of(np.array([turn.x, turn.y, turn.z, turn.w]))
            except PoseError:
                continue
            self._tree.put(
                transform.header.frame_id.lstrip('/'), transform.child_frame_id.lstrip('/'),
                pose_of(np.array([place.x, place.y, place.z]), rotation), now_s, is_static)
