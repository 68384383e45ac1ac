"""Converts between ROS stamps, in whole nanoseconds, and durations, in float seconds."""

NANOSECONDS = 1_000_000_000  # in a second


def to_nanoseconds(seconds: float) -> int:
    """Return a duration of float seconds in whole nanoseconds, rounded to the nearest."""
    return round(seconds * NANOSECONDS)


def to_seconds(nanoseconds: int) -> float:
    """Return a duration of whole nanoseconds in float seconds."""
    return nanoseconds * 1e-9
