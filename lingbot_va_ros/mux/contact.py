"""The contact watch: efforts and wrenches beyond the limits of the embodiment file."""

from collections.abc import Iterable, Mapping, Sequence
import math
import threading

from lingbot_va_ros.specs.contact import AXES, ContactLimits
from lingbot_va_ros.specs.embodiment import Embodiment
from lingbot_va_ros.specs.joint_state_topics import topic_of_joint

# A motion may begin beyond a limit, to lead out of a contact: until the amount is below the limit
# again it may grow by this share of the limit.
GROWTH = 0.1


class ContactWatch:
    """
    Compares efforts of joints and axes of wrenches with their limits; for any thread.

    :param timeout: seconds without an effort of a joint after which it is unknown; of topics that
        have none of their own.
    """

    def __init__(self, embodiment: Embodiment, timeout: float) -> None:
        limits: ContactLimits = embodiment.contact
        self._lock = threading.Lock()
        self._efforts = set(limits.efforts)
        self._axes: dict[str, _Amount] = {}
        for joint, limit in limits.efforts.items():
            own = topic_of_joint(embodiment.joint_states, joint).timeout
            self._axes[joint] = _Amount(
                f"the effort of '{joint}'", limit, timeout if own is None else own)
        for wrench in limits.wrenches:
            for axis, limit in wrench.limits.items():
                self._axes[f'{wrench.topic} {axis}'] = _Amount(
                    f'{axis} on {wrench.topic}', limit, wrench.timeout)

    def take_efforts(
        self, names: Sequence[str], efforts: Sequence[float], now_s: float) -> None:
        """Take the efforts of a joint state; joints without one are unknown."""
        if not self._efforts:
            return
        # An array of another length than that of the names says nothing about any joint.
        count = len(efforts) if len(efforts) == len(names) else 0
        self._take({
            name: float(efforts[index]) if index < count else None
            for index, name in enumerate(names) if name in self._efforts}, now_s)

    def take_wrench(self, topic: str, values: Sequence[float], now_s: float) -> None:
        """Take a wrench: the values of AXES."""
        self._take({
            f'{topic} {axis}': value for axis, value in zip(AXES, values, strict=True)
            if f'{topic} {axis}' in self._axes}, now_s)

    def begin(self) -> None:
        """Let a motion begin that may lead out of a contact."""
        with self._lock:
            for axis in self._axes.values():
                axis.begin()

    def forget(self) -> None:
        """Count every amount as never received, after a clock jump."""
        with self._lock:
            for axis in self._axes.values():
                axis.take(None, 0.0)

    def unknown(self, now_s: float, margin: float = 0.0) -> list[str]:
        """
        Return which amounts are not known, a line each.

        :param margin: seconds before the timeout at which one counts as unknown already.
        """
        with self._lock:
            return _first_of_each(axis.why_unknown(now_s, margin) for axis in self._axes.values())

    def excess(self) -> str:
        """Return in one line the amount that is furthest beyond its limit, or an empty text."""
        with self._lock:
            beyond = [axis for axis in self._axes.values() if axis.is_beyond]
        if not beyond:
            return ''
        worst = max(beyond, key=lambda axis: axis.share)
        return f'contact: {worst.name} is {worst.value:.4g}, more than {worst.limit:g}'

    def _take(self, values: Mapping[str, float | None], now_s: float) -> None:
        with self._lock:
            for key, value in values.items():
                self._axes[key].take(value, now_s)


def _first_of_each(lines: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(filter(None, lines)))


class _Amount:
    """
    One effort or axis.

    :param name: for people.
    """

    def __init__(self, name: str, limit: float, timeout: float) -> None:
        self.name = name
        self.limit = limit
        self.value = 0.0
        self._timeout = timeout
        self._most = limit
        self._heard = -math.inf
        self._fault = 'none came'

    def take(self, value: float | None, now_s: float) -> None:
        """Take a value; None: the message has none."""
        if value is None:
            self._fault = 'none came'
        elif not math.isfinite(value):
            self._fault = f'it is {value}'
        else:
            self._fault, self._heard, self.value = '', now_s, value
            if abs(value) <= self.limit:
                self._most = self.limit

    def begin(self) -> None:
        """Allow what is there now, and a little more."""
        if abs(self.value) > self.limit:
            self._most = abs(self.value) + GROWTH * self.limit

    def why_unknown(self, now_s: float, margin: float) -> str:
        """Return in one line why the amount is not known, or an empty text."""
        if self._fault:
            return f'{self.name} ({self._fault})'
        if now_s - self._heard > self._timeout - margin:
            return f'{self.name} (silent for {self._timeout:g} s)'
        return ''

    @property
    def is_beyond(self) -> bool:
        """Whether the amount is beyond what is allowed now."""
        return abs(self.value) > self._most

    @property
    def share(self) -> float:
        """The amount over its limit."""
        return abs(self.value) / self.limit
