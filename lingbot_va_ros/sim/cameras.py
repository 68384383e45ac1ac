"""Renders the cameras of the simulated robot and returns their pinhole parameters."""

from dataclasses import dataclass

import mujoco
import numpy as np

from lingbot_va_ros.sim.gl import choose_gl, no_renderer


@dataclass(frozen=True)
class Lens:
    """Pinhole intrinsics without distortion, in pixels; pixel centers have integer coordinates."""

    width: int
    height: int
    focal_length: float
    center_x: float
    center_y: float


def lens_of(model: mujoco.MjModel, camera: str, width: int, height: int) -> Lens:
    """Return the intrinsics of a camera at an image size, from its vertical field of view."""
    half_angle = np.deg2rad(model.camera(camera).fovy[0]) / 2
    return Lens(width, height, height / 2 / np.tan(half_angle), (width - 1) / 2, (height - 1) / 2)


class Cameras:
    """
    Renders images of one size.

    The rendering context belongs to the thread that creates it: create, use and close an instance
    in one thread.

    :param width: of the images, pixels.
    :param height: of the images, pixels.
    :raises NoRenderer: no library for offscreen rendering is installed, or it fails.
    """

    def __init__(self, model: mujoco.MjModel, width: int, height: int):
        if choose_gl() == 'disable':
            raise no_renderer()
        try:
            self._renderer = mujoco.Renderer(model, height=height, width=width)
        except Exception as error:
            # Drivers raise exceptions of many types; all are reported as NoRenderer.
            raise no_renderer(error) from error
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        # Group 0 has the robot's collision geometry, which is not rendered (see simulation.py).
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = 0
        self._options.geomgroup[[1, 2]] = 1

    def draw(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        """Return the image of a camera, a new array uint8 [H, W, 3], RGB."""
        self._renderer.update_scene(data, camera, self._options)
        return self._renderer.render()

    def draw_geoms(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        """Return a segmented image: the geom id of each pixel, int32 [H, W], -1 for none."""
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
