"""The schedules in which chunks are predicted and executed, and what they differ in."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """
    How prediction and execution follow each other.

    :param name: the value of the parameter `schedule`.
    :param predicts_ahead: the next chunk is predicted while the running one is executed; if not,
        when that has ended and is in the memory.
    :param imagines: frames of the running chunk that are not seen yet are imagined by forward
        dynamics; if not, the running chunk's own forecast stands in for them.
    """

    name: str
    predicts_ahead: bool
    imagines: bool = False


SYNC = Schedule('sync', predicts_ahead=False)
SCHEDULES = {schedule.name: schedule for schedule in (
    SYNC,
    Schedule('async', predicts_ahead=True, imagines=True),
    Schedule('async_ungrounded', predicts_ahead=True))}
