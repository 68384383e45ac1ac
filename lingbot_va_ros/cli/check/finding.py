"""A finding of `lingbot_va check`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One error or warning, with the keys of the JSON; `severity` is `error` or `warning`."""

    severity: str
    where: str
    message: str


def error(where: str, message: str) -> Finding:
    """Return a finding that makes it impossible or unsafe to drive the robot."""
    return Finding('error', where, message)


def warning(where: str, message: str) -> Finding:
    """Return a finding that does not stop the robot from being driven."""
    return Finding('warning', where, message)
