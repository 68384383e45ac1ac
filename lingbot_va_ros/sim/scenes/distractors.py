"""Distractors: objects on the table that the task does not use."""

import colorsys

import mujoco
import numpy as np

# Name, shape, half sizes (m).
_SHAPES = (
    ('crate', mujoco.mjtGeom.mjGEOM_BOX, (0.030, 0.025, 0.025)),
    ('tin', mujoco.mjtGeom.mjGEOM_CYLINDER, (0.022, 0.035, 0.0)),
    ('brick', mujoco.mjtGeom.mjGEOM_BOX, (0.020, 0.040, 0.020)),
)
NAMES = tuple(name for name, *_ in _SHAPES)
_APART = 0.11  # m between centers


class Distractors:
    """
    Fixed objects beside the workspace; the seed determines their positions and colors.

    :param areas: rectangles ((x, y), (x, y)) of the table, lower and upper corner in m, that the
        left arm does not use.
    :param mirror: 1, or -1 to mirror the areas for the right arm.
    """

    def __init__(self, areas: tuple, mirror: int):
        self._areas = np.array(areas)
        self._mirror = mirror

    def add(self, spec: mujoco.MjSpec) -> None:
        """Add the objects to the world."""
        for name, shape, size in _SHAPES:
            body = spec.worldbody.add_body(name=name, mocap=True)
            body.add_geom(name=name, type=shape, size=size)

    def reset(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """Draw positions, apart from each other, and colors."""
        places: list[np.ndarray] = []
        for name, shape, size in _SHAPES:
            place = self._draw(rng)
            while any(np.linalg.norm(place - other) < _APART for other in places):
                place = self._draw(rng)
            places.append(place)
            height = size[2] if shape == mujoco.mjtGeom.mjGEOM_BOX else size[1]
            turn = rng.uniform(-np.pi, np.pi)
            row = model.body(name).mocapid[0]
            data.mocap_pos[row] = (place[0], self._mirror * place[1], height)
            data.mocap_quat[row] = (np.cos(turn / 2), 0.0, 0.0, np.sin(turn / 2))
            model.geom(name).rgba[:3] = colorsys.hsv_to_rgb(
                rng.uniform(), rng.uniform(0.2, 0.7), rng.uniform(0.3, 0.8))

    def _draw(self, rng: np.random.Generator) -> np.ndarray:
        lower, upper = self._areas[rng.integers(len(self._areas))]
        return rng.uniform(lower, upper)
