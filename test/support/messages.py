"""Stamps of messages as nanoseconds, written independently of the package's own conversion."""

NANOSECONDS = 1_000_000_000


def nanoseconds(stamp):
    """Return a Time or Duration message in whole nanoseconds."""
    return stamp.sec * NANOSECONDS + stamp.nanosec


def stamped(message, time_ns):
    """Set the header stamp of a message and return the message."""
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(int(time_ns), NANOSECONDS)
    return message
