"""Tells which joints have more than one publisher, from the numbers of their messages."""

from collections import deque
from collections.abc import Sequence

# A publisher numbers its messages. A joint whose numbers fall so many times in this time, s, has
# two publishers; once is a publisher that was started anew.
FALLS, FALL_SECONDS = 3, 2.0


class JointPublishers:
    """
    Watches the numbers of the messages that bring each joint.

    :param joints: names; others are ignored.
    """

    def __init__(self, joints: Sequence[str]) -> None:
        self._numbers = dict.fromkeys(joints, -1)
        self._falls: dict[str, deque[float]] = {name: deque(maxlen=FALLS) for name in joints}

    def update(self, names: Sequence[str], number: int, now_s: float) -> None:
        """Take the names of a message, and its number among those of its publisher."""
        for name in names:
            before = self._numbers.get(name)
            if before is None:
                continue
            self._numbers[name] = number
            if number <= before:
                self._falls[name].append(now_s)

    def doubled(self, now_s: float) -> list[str]:
        """Return the joints that more than one publisher brings."""
        return [name for name, falls in self._falls.items()
                if len(falls) == FALLS and now_s - falls[0] <= FALL_SECONDS]
