"""The control loop: updates a controller at its rate in virtual time, and delivers messages."""

from collections.abc import Callable

import numpy as np

from lingbot_va_ros.sim.controllers.delivery import Delivery
from lingbot_va_ros.sim.controllers.messages import Trajectory, TrajectoryRejected
from lingbot_va_ros.sim.controllers.trajectory_controller import TrajectoryController

# Returns measured positions and velocities, [J] each.
Measure = Callable[[], tuple[np.ndarray, np.ndarray | None]]


def _raise(rejected: TrajectoryRejected) -> None:
    raise rejected


class ControlLoop:
    """
    Runs one controller as controller_manager does. Updates are whole periods after `begin`.

    :param on_rejected: called with each rejection of a message; by default it is raised.
    """

    def __init__(
        self, controller: TrajectoryController, delivery: Delivery,
        on_rejected: Callable[[TrajectoryRejected], None] = _raise,
    ):
        self.controller = controller
        self.on_rejected = on_rejected
        self._delivery = delivery
        self._due_ns = 0

    @property
    def active(self) -> bool:
        """Whether the controller is active."""
        return self.controller.active

    @property
    def command(self) -> np.ndarray:
        """Return the commanded positions [J]."""
        return self.controller.command

    def begin(
        self, time_ns: int, positions: np.ndarray, velocities: np.ndarray | None = None) -> None:
        """
        Activate the controller at measured positions [J]; its first update is at `time_ns`.

        Messages in transit are lost.
        """
        self._delivery.clear()
        self._due_ns = time_ns
        self.controller.activate(positions, velocities)

    def stop(self, positions: np.ndarray) -> None:
        """Deactivate the controller; the hardware holds positions [J]."""
        self.controller.deactivate()
        self.controller.command = np.array(positions, float)

    def send(self, trajectory: Trajectory, time_ns: int) -> None:
        """Send the controller a message, which arrives after the transport's delay."""
        self._delivery.send(trajectory, time_ns)

    def advance(self, time_ns: int, measure: Measure) -> np.ndarray:
        """
        Run the updates that are due by `time_ns`, and return the command [J].

        A message is checked at the time of its arrival; the next update uses it.
        """
        while self._due_ns <= time_ns:
            self._receive(self._due_ns)
            if self.controller.active:
                self.controller.update(self._due_ns, *measure())
            self._due_ns += self.controller.settings.period_ns
        self._receive(time_ns)
        return self.command

    def _receive(self, until_ns: int) -> None:
        for arrived_ns, trajectory in self._delivery.arrived(until_ns):
            try:
                self.controller.receive(trajectory, arrived_ns)
            except TrajectoryRejected as rejected:
                self.on_rejected(rejected)
