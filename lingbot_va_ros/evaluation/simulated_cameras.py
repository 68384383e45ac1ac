"""Cameras of the simulation, which render only the images that the scheduler waits for."""

from collections.abc import Sequence

from lingbot_va_ros.policy.runtime.camera_buffer import CameraBuffer, StampedImage
from lingbot_va_ros.sim.simulation import Simulation

KEEP_SECONDS = 5.0  # the scheduler uses an image right after it was rendered


class SimulatedCameras(CameraBuffer):
    """
    A camera buffer that holds the requested images of a simulation only.

    Rendering takes longer than physics, so there is no camera rate. `reached` records the
    requested time, and the simulated arm calls `take` when simulated time reaches it.

    :param simulation: renders the images, RGB uint8 [H, W, 3].
    :param names: names of the cameras, in the order of the checkpoint.
    """

    def __init__(self, simulation: Simulation, names: Sequence[str]):
        super().__init__(names, KEEP_SECONDS)
        self.awaited_ns: int | None = None  # simulated time of the next image
        self._simulation = simulation

    def take(self, stamp_ns: int) -> None:
        """Render every camera now and store the images with the stamp `stamp_ns`."""
        for name in self.cameras:
            self.add(name, stamp_ns, self._simulation.render(name))
        self.awaited_ns = None

    def reached(self, time_ns: int) -> bool:
        """
        Return whether there are images from `time_ns` or later; else request them.

        If the time has passed and no image was requested for it, images are rendered now.
        """
        if super().reached(time_ns):
            return True
        now_ns = self._simulation.time_ns
        if now_ns < time_ns:
            self.awaited_ns = time_ns
            return False
        self.take(now_ns)
        return True

    def newest(self, max_skew: float) -> dict[str, StampedImage]:
        """Return the current image of each camera."""
        now_ns = self._simulation.time_ns
        if not super().reached(now_ns):
            self.take(now_ns)
        return super().newest(max_skew)
