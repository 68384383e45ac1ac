"""Cameras of the simulation that render an image only where the scheduler waits for one."""

from collections.abc import Sequence

from lingbot_va_ros.policy.runtime.camera_buffer import CameraBuffer, StampedImage
from lingbot_va_ros.sim.simulation import Simulation

KEEP_SECONDS = 5.0  # the scheduler picks an image right after it was taken


class SimulatedCameras(CameraBuffer):
    """
    The camera buffer of a simulation, which fills it with the images that are asked for.

    Rendering takes longer than physics, so there is no camera rate: `reached` notes the time that
    it was asked for, and the simulated arm calls `take` when simulated time gets there.

    :param simulation: renders the images, RGB uint8 [H, W, 3].
    :param names: of the cameras, in the order of the checkpoint.
    """

    def __init__(self, simulation: Simulation, names: Sequence[str]):
        super().__init__(names, KEEP_SECONDS)
        self.awaited_ns: int | None = None  # simulated time of the next image
        self._simulation = simulation

    def take(self, stamp_ns: int) -> None:
        """Render what every camera sees now; keep it as the image of `stamp_ns`."""
        for name in self.cameras:
            self.add(name, stamp_ns, self._simulation.render(name))
        self.awaited_ns = None

    def reached(self, time_ns: int) -> bool:
        """
        Return whether there are images from `time_ns` or later; else await that time.

        A time that is past, and for which no image was awaited, gets one of now.
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
        """Return each camera's image of now."""
        now_ns = self._simulation.time_ns
        if not super().reached(now_ns):
            self.take(now_ns)
        return super().newest(max_skew)
