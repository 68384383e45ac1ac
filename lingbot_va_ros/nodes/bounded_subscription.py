"""Subscriptions that check the size of a message before it is converted."""

from collections.abc import Callable, Mapping
import struct
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message

from lingbot_va_ros.nodes.joint_state_watch import with_message_info

# Longest messages that are converted. rclpy converts a message without giving up the interpreter;
# a trajectory of 1000 points of 7 joints takes 10 ms.
MAX_POINTS, MAX_NAMES = 1000, 256
MAX_TRAJECTORY_BYTES, MAX_STATE_BYTES = 1 << 20, 1 << 16


def subscribe_bounded(
    node: Node, kind: type, topic: str, callback: Callable[[Any, Mapping[str, Any]], None],
    profile: QoSProfile, fault: Callable[[bytes], str], refuse: Callable[[str], None],
) -> None:
    """
    Subscribe to a topic; what is too long is refused as it came, serialized.

    :param callback: gets the message, and its information where rclpy has it.
    :param fault: returns in one line why a serialized message is refused, or an empty text.
    :param refuse: gets that line in place of `callback`.
    """
    def on_bytes(data: bytes, info: Mapping[str, Any]) -> None:
        line = fault(data)
        if line:
            refuse(line)
        else:
            callback(deserialize_message(data, kind), info)

    node.create_subscription(kind, topic, with_message_info(on_bytes), profile, raw=True)


def state_fault(data: bytes) -> str:
    """Return why a serialized joint state or joystick message is too long, or an empty text."""
    if len(data) > MAX_STATE_BYTES:
        return f'a message of {len(data)} bytes; at most {MAX_STATE_BYTES} are taken'
    return ''


def trajectory_fault(data: bytes) -> str:
    """Return why a serialized joint trajectory is too long, or an empty text."""
    if len(data) > MAX_TRAJECTORY_BYTES:
        return f'a trajectory of {len(data)} bytes; at most {MAX_TRAJECTORY_BYTES} are taken'
    names, points = trajectory_counts(data)
    if names > MAX_NAMES:
        return f'a trajectory of {names} joints; at most {MAX_NAMES} are taken'
    if points > MAX_POINTS:
        return f'a trajectory of {points} points; at most {MAX_POINTS} are taken'
    return ''


def trajectory_counts(data: bytes) -> tuple[int, int]:
    """
    Return how many joints and points a serialized trajectory has; 0 for what it has not.

    The layout is OMG's CDR: four bytes of encapsulation, whose second tells the order of bytes,
    then stamp, frame, names and points. Numbers of four bytes are aligned to the end of the
    encapsulation, and strings and sequences begin with their length.
    """
    order = '<' if data[1:2] in (b'\x01', b'\x07', b'\x09', b'\x0b') else '>'
    place, count = 12, 0

    def length() -> int:
        nonlocal place
        place += -place % 4
        value, = struct.unpack_from(order + 'I', data, place)
        place += 4
        return int(value)

    def skip_string() -> None:
        nonlocal place
        size = length()
        place += size

    try:
        skip_string()  # the frame
        count = length()
        if count > MAX_NAMES:
            return count, 0
        for _ in range(count):
            skip_string()
        return count, length()
    except struct.error:  # cut off: its conversion says so
        return count, 0
