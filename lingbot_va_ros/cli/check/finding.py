"""A finding of `lingbot_va check`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One error or warning, with the keys of the JSON; `severity` is `error` or `warning`."""

    severity: str
    where: str
    message: str


def error(where: str, message: str) -> Finding:
    """Return a finding that makes driving the robot impossible or unsafe."""
    return Finding('error', where, message)


def warning(where: str, message: str) -> Finding:
    """Return a finding with which the robot can still be driven."""
    return Finding('warning', where, message)
