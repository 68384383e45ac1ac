"""The clock of a simulation: simulated time passes only while the scheduler waits."""

from collections.abc import Callable
import math

from lingbot_va_ros.evaluation.simulated_arm import SimulatedArm, TICK_NS
from lingbot_va_ros.motion.time import NANOSECONDS


class EpisodeOver(Exception):
    """The episode is over: simulated time does not go on."""


class VirtualClock:
    """
    Simulated time as the `Clock` of a scheduler that runs in the thread of the simulation.

    It stands still while the network computes, so that no result depends on the machine. A wait
    advances the arm by whole control ticks, at least one.

    :param arm: what a wait advances.
    :param over: asked after every tick; once it returns True, waiting raises EpisodeOver.
    """

    def __init__(self, arm: SimulatedArm, over: Callable[[], bool] = lambda: False):
        self._arm = arm
        self._over = over
        self._origin_ns = arm.simulation.time_ns

    def now_ns(self) -> int:
        """Return the simulated time in nanoseconds."""
        return self._arm.simulation.time_ns

    def steady(self) -> float:
        """Return the simulated seconds since the clock was made."""
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
        """Nothing waits in another thread."""
