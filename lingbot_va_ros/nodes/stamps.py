"""Converts stamps and durations of ROS messages to whole nanoseconds and back."""

from builtin_interfaces.msg import Duration, Time

from lingbot_va_ros.motion.time import NANOSECONDS, to_nanoseconds


def stamp_of(time_ns: int) -> Time:
    """Return a time in nanoseconds as a stamp."""
    seconds, rest = divmod(int(time_ns), NANOSECONDS)
    return Time(sec=seconds, nanosec=rest)


def duration_of(length_ns: int) -> Duration:
    """Return a length of time in nanoseconds as a duration message."""
    seconds, rest = divmod(int(length_ns), NANOSECONDS)
    return Duration(sec=seconds, nanosec=rest)


def duration_of_seconds(seconds: float) -> Duration:
    """Return a length of time in seconds as a duration message, to the nearest nanosecond."""
    return duration_of(to_nanoseconds(seconds))


def nanoseconds_of(message: Time | Duration) -> int:
    """Return a stamp or a duration in nanoseconds."""
    return message.sec * NANOSECONDS + message.nanosec
