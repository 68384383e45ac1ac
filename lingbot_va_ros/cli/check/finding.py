"""One line of what `lingbot_va check` found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What was found, as it stands in the JSON; the severity is `error` or `warning`."""

    severity: str
    where: str
    message: str


def error(where: str, message: str) -> Finding:
    """Return a finding that keeps the robot from being driven."""
    return Finding('error', where, message)


def warning(where: str, message: str) -> Finding:
    """Return a finding that a user should know of."""
    return Finding('warning', where, message)
