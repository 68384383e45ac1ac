"""Renders the cameras of the simulated robot and returns their pinhole parameters."""

from dataclasses import dataclass

import mujoco
import numpy as np

from lingbot_va_ros.sim.gl import choose_gl, no_renderer


@dataclass(frozen=True)
class Lens:
    """A pinhole without distortion, in pixels; pixel centres have whole-number coordinates."""

    width: int
    height: int
    focal_length: float
    centre_x: float
    centre_y: float


def lens_of(model: mujoco.MjModel, camera: str, width: int, height: int) -> Lens:
    """Return the pinhole of a camera at this image size, from its vertical field of view."""
    half_angle = np.deg2rad(model.camera(camera).fovy[0]) / 2
    return Lens(width, height, height / 2 / np.tan(half_angle), (width - 1) / 2, (height - 1) / 2)


class Cameras:
    """
    Renders images of one size.

    The rendering context belongs to the thread that made it: make, use and close it in one thread.

    :raises NoRenderer: no library for rendering without a screen is installed, or it fails.
    """

    def __init__(self, model: mujoco.MjModel, width: int, height: int):
        if choose_gl() == 'disable':
            raise no_renderer()
        try:
            self._renderer = mujoco.Renderer(model, height=height, width=width)
        except Exception as error:
            # The drivers raise what they like; the user needs to know which one and what to do.
            raise no_renderer(error) from error
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        # Shapes that are touched but not seen are in group 0 of the robot (see simulation.py).
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = 0
        self._options.geomgroup[[1, 2]] = 1

    def draw(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        """Return the image of a camera, uint8 [H, W, 3], RGB, a new array."""
        self._renderer.update_scene(data, camera, self._options)
        return self._renderer.render()

    def draw_geoms(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        """Return the id of the geom that each pixel shows, int32 [H, W], -1 for none."""
        self._renderer.enable_segmentation_rendering()
        try:
            self._renderer.update_scene(data, camera, self._options)
            ids, kinds = np.moveaxis(self._renderer.render(), -1, 0)
        finally:
            self._renderer.disable_segmentation_rendering()
        return np.where(kinds == int(mujoco.mjtObj.mjOBJ_GEOM), ids, -1).astype(np.int32)

    def close(self) -> None:
        """Free the rendering context."""
        self._renderer.close()
