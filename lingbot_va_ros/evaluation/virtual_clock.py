"""The clock of a simulation: simulated time advances only while the scheduler waits."""

from collections.abc import Callable
import math

from lingbot_va_ros.evaluation.simulated_arm import SimulatedArm, TICK_NS
from lingbot_va_ros.motion.time import NANOSECONDS


class EpisodeOver(Exception):
    """The episode is over; simulated time does not advance."""


class VirtualClock:
    """
    Simulated time as the `Clock` of a scheduler that runs in the thread of the simulation.

    It stops while the network computes, so that results do not depend on the machine. A wait
    advances the arm by whole control ticks, at least one.

    :param arm: is advanced by a wait.
    :param over: called after every tick; once it returns True, waiting raises EpisodeOver.
    """

    def __init__(self, arm: SimulatedArm, over: Callable[[], bool] = lambda: False):
        self._arm = arm
        self._over = over
        self._origin_ns = arm.simulation.time_ns

    def now_ns(self) -> int:
        """Return the simulated time in nanoseconds."""
        return self._arm.simulation.time_ns

    def steady(self) -> float:
        """Return the simulated seconds since the construction of the clock."""
        return (self.now_ns() - self._origin_ns) / NANOSECONDS

    def wait(self, seconds: float) -> None:
        """
        Advance simulated time by `seconds`, rounded up to whole control ticks, at least one.

        :raises EpisodeOver: the episode is over; fewer ticks may have passed.
        """
        for _ in range(max(1, math.ceil(seconds * NANOSECONDS / TICK_NS - 1e-9))):
            self._arm.tick()
            if self._over():
                raise EpisodeOver

    def wake(self) -> None:
        """Do nothing: no other thread waits."""
