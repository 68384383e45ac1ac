"""The control modes of an arm: who, if anybody, moves it."""

from enum import IntEnum


class ControlMode(IntEnum):
    """The control modes; the numbers are those of ControlMode.msg."""

    HOLD = 0
    TELEOP = 1
    POLICY = 2
    STOPPED = 3

    @property
    def has_source(self) -> bool:
        """Whether a command source moves the arm in this mode."""
        return self in (ControlMode.TELEOP, ControlMode.POLICY)
