"""The slot of the present plan and epoch, shared by the threads of a policy."""

from collections.abc import Callable
import threading

from lingbot_va_ros.motion.plan import MotionLimits, Plan


class PlanSlot:
    """
    The one place where the present plan and epoch live; swaps are atomic.

    The lock is held for a swap or a look, never while anything is computed or waited for.

    :param clock: returns ROS time in nanoseconds.
    """

    def __init__(self, clock: Callable[[], int]):
        self._clock = clock
        self._lock = threading.Lock()
        self._limits: MotionLimits | None = None
        self._plan: Plan | None = None
        self._epoch = 0

    @property
    def epoch(self) -> int:
        """The present epoch."""
        return self._epoch

    def begin(self, limits: MotionLimits | None = None) -> None:
        """Begin epoch 1, without a plan; `limits` may follow by `set_limits`."""
        with self._lock:
            self._epoch, self._plan, self._limits = 1, None, limits

    def set_limits(self, limits: MotionLimits) -> None:
        """Set what a stop must keep; needed before the first plan."""
        with self._lock:
            self._limits = limits

    def look(self) -> tuple[Plan | None, int]:
        """Return the plan and the ROS time in ns at which it was the present one."""
        with self._lock:
            return self._plan, self._clock()

    def put(self, plan: Plan, epoch: int, then: Callable[[], None] = lambda: None) -> bool:
        """
        Make a plan the present one unless its epoch has passed.

        :param then: called under the lock if it was put; must be quick.
        """
        with self._lock:
            if epoch != self._epoch:
                return False
            self._plan = plan
            then()
            return True

    def tell(self, epoch: int, then: Callable[[], None]) -> bool:
        """Call `then` under the lock unless the epoch has passed; must be quick."""
        with self._lock:
            if epoch == self._epoch:
                then()
            return epoch == self._epoch

    def stop(self, new_epoch: bool = False) -> tuple[Plan | None, int]:
        """Replace the plan by a stop, in a new epoch where asked; return it and the ROS time."""
        with self._lock:
            self._epoch += new_epoch
            now = self._clock()
            if self._plan is not None:
                self._plan = self._plan.braked(now, self._limits)
            return self._plan, now

    def clear(self) -> None:
        """Drop the plan."""
        with self._lock:
            self._plan = None
