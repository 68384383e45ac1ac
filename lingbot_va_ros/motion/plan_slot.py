"""Holds the current plan and epoch for the threads of a policy."""

from collections.abc import Callable
import threading

from lingbot_va_ros.motion.plan import MotionLimits, Plan


class PlanSlot:
    """
    The current plan and epoch, replaced atomically.

    The lock is held while the plan is replaced or read, never during a computation or a wait.

    :param clock: returns the plans' time in nanoseconds.
    :param rate: returns the seconds of the plans' time in a second, which a stop accounts for.
    """

    def __init__(self, clock: Callable[[], int], rate: Callable[[], float] = lambda: 1.0):
        self._clock = clock
        self._rate = rate
        self._lock = threading.Lock()
        self._limits: MotionLimits | None = None
        self._plan: Plan | None = None
        self._epoch = 0

    @property
    def epoch(self) -> int:
        """The current epoch."""
        return self._epoch

    def begin(self, limits: MotionLimits | None = None) -> None:
        """Begin epoch 1 without a plan; `set_limits` may bring the limits later."""
        with self._lock:
            self._epoch, self._plan, self._limits = 1, None, limits

    def set_limits(self, limits: MotionLimits) -> None:
        """Set the limits that a stop keeps to; needed before the first plan."""
        with self._lock:
            self._limits = limits

    def current(self) -> tuple[Plan | None, int]:
        """Return the current plan and the time in ns at which it was read."""
        with self._lock:
            return self._plan, self._clock()

    def put(self, plan: Plan, epoch: int, then: Callable[[], None] = lambda: None) -> bool:
        """
        Make a plan the current one unless its epoch has passed.

        :param then: called under the lock if the plan was taken; must be quick.
        :returns: whether the plan was taken.
        :raises RuntimeError: there are no limits yet, so that a stop could not be computed.
        """
        with self._lock:
            if epoch != self._epoch:
                return False
            if self._limits is None:
                raise RuntimeError('a plan before the limits of its stop')
            self._plan = plan
            then()
            return True

    def notify(self, epoch: int, then: Callable[[], None]) -> bool:
        """Call `then`, which must be quick, under the lock unless the epoch has passed."""
        with self._lock:
            if epoch == self._epoch:
                then()
            return epoch == self._epoch

    def stop(self, new_epoch: bool = False) -> tuple[Plan | None, int]:
        """
        Replace the plan by a stop.

        :param new_epoch: begin another epoch, so that plans of the former one are no longer taken.
        :returns: the stop, None where there was no plan, and the time in nanoseconds.
        """
        with self._lock:
            self._epoch += new_epoch
            now = self._clock()
            if self._plan is not None and self._limits is not None:
                self._plan = self._plan.braked(now, self._limits.at_rate(self._rate()))
            return self._plan, now

    def clear(self) -> None:
        """Drop the plan."""
        with self._lock:
            self._plan = None
