"""A scene without a goal: a few colored blocks on the table."""

import colorsys

import mujoco
import numpy as np

from lingbot_va_ros.sim.scenes.state import TaskState

# Name, shape, half sizes (m), mass (kg); they fit into the gripper, which opens 0.08 m.
_OBJECTS = (
    ('cube', mujoco.mjtGeom.mjGEOM_BOX, (0.02, 0.02, 0.02), 0.05),
    ('brick', mujoco.mjtGeom.mjGEOM_BOX, (0.018, 0.035, 0.018), 0.07),
    ('can', mujoco.mjtGeom.mjGEOM_CYLINDER, (0.022, 0.03, 0.0), 0.06),
    ('tower', mujoco.mjtGeom.mjGEOM_BOX, (0.018, 0.018, 0.04), 0.08),
)
_CLEARANCE = 0.10  # m between centers


class TableScene:
    """Blocks of four shapes; the seed determines their positions and colors."""

    def add(self, spec: mujoco.MjSpec, sides: tuple[str, ...]) -> None:
        """Add the blocks, all within reach of each arm."""
        self._lower = np.array([0.26, -0.20 if 'right' in sides else -0.05])
        self._upper = np.array([0.48, 0.20 if 'left' in sides else 0.05])
        for name, shape, size, mass in _OBJECTS:
            body = spec.worldbody.add_body(name=name)
            body.add_freejoint(name=name)
            body.add_geom(
                name=name, type=shape, size=size, mass=mass, condim=4,
                friction=(1.0, 0.01, 0.001))

    def reset(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """Draw positions, apart from each other, and give the blocks distinct hues."""
        first_hue = rng.uniform()
        places = _apart(rng, len(_OBJECTS), self._lower, self._upper)
        for index, (place, (name, *_)) in enumerate(zip(places, _OBJECTS)):
            turn = rng.uniform(-np.pi, np.pi)
            joint = data.joint(name)
            geom = model.geom(name)
            half_height = geom.size[2] if geom.type[0] == mujoco.mjtGeom.mjGEOM_BOX \
                else geom.size[1]
            joint.qpos[:3] = (*place, half_height)
            joint.qpos[3:] = (np.cos(turn / 2), 0.0, 0.0, np.sin(turn / 2))
            hue = (first_hue + index / len(_OBJECTS)) % 1.0
            geom.rgba[:3] = colorsys.hsv_to_rgb(hue, 0.85, 0.9)

    def after_step(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Do nothing: there is no goal."""

    def state(self) -> TaskState:
        """Return a state that is never done."""
        return TaskState()


def _apart(
    rng: np.random.Generator, count: int, lower: np.ndarray, upper: np.ndarray,
) -> list[np.ndarray]:
    """Draw `count` points [2] in a rectangle, no two closer than the clearance."""
    places: list[np.ndarray] = []
    while len(places) < count:
        place = rng.uniform(lower, upper)
        if all(np.linalg.norm(place - other) > _CLEARANCE for other in places):
            places.append(place)
    return places
