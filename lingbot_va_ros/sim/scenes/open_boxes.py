"""The task open_boxes: open box A, close it, open box B, go home."""

import mujoco
import numpy as np

from lingbot_va_ros.sim.scenes.distractors import Distractors
from lingbot_va_ros.sim.scenes.home import HomeDetector
from lingbot_va_ros.sim.scenes.state import TaskState

TRAVEL = 0.085  # m of the lid between its closed and its open stop
OPEN = 0.050  # m: a lid beyond this is open
CLOSED = 0.010  # m: a lid within this is closed

_HALF_BOX = 0.055  # m, along x and y
_HEIGHT = 0.045
_WALL = 0.004  # half
_HALF_LID = 0.005
HALF_KNOB = np.array([0.020, 0.012, 0.018])
KNOB_TOP = _HEIGHT + 0.001 + 2 * _HALF_LID + 2 * HALF_KNOB[2]

# Name, direction in which the lid opens along y, bounds of the center (x and y in m, for the left
# arm; mirrored for the right one), color of the lid.
_BOXES = (
    ('a', 1, np.array([[0.26, 0.13], [0.33, 0.17]]), (0.90, 0.10, 0.12)),
    ('b', -1, np.array([[0.25, -0.05], [0.32, -0.01]]), (0.05, 0.62, 0.20)),
)
_OUTSIDE, _INSIDE, _KNOB = (0.16, 0.13, 0.14), (1.0, 0.85, 0.15), (0.95, 0.95, 0.97)
# Areas of the distractors: beyond the boxes and in front of them.
_BESIDE = (((0.50, -0.30), (0.64, 0.20)), ((0.02, -0.32), (0.13, 0.00)))
_EVERY = 5  # physics steps between two evaluations


class OpenBoxesScene:
    """
    Two boxes side by side, each with a lid that slides outward by its knob, with friction.

    A is the box on the side of the arm, B the other. A lid stays where it is released. With both
    lids closed, images do not show which were opened before. Every 10 ms the positions of the lids
    are evaluated: a lid that exceeds 50 mm counts as opened, one that then falls below 10 mm as
    closed.

    Success: A was opened once and closed, then B was opened, and then the arm is home (see
    HomeDetector) with A closed and B open. Failure, at once: B is opened before A has been opened
    and closed, or while A is open; or A is opened twice.
    """

    def add(self, spec: mujoco.MjSpec, sides: tuple[str, ...]) -> None:
        """Add the boxes for the left arm, or for the right arm if it is the only one."""
        self.side = 'left' if 'left' in sides else sides[0]
        self.mirror = 1 if self.side == 'left' else -1
        for name, outwards, _, color in _BOXES:
            _add_box(spec, name, self.mirror * outwards, color)
        self._distractors = Distractors(_BESIDE, self.mirror)
        self._distractors.add(spec)

    def reset(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """Close the boxes and draw the positions of boxes and distractors."""
        self.boxes = {}
        for name, _, (lower, upper), _ in _BOXES:
            x, y = rng.uniform(lower, upper)
            self.boxes[name] = np.array([x, self.mirror * y])
            data.mocap_pos[model.body(f'box_{name}').mocapid[0]] = (*self.boxes[name], 0.0)
        self._distractors.reset(model, data, rng)
        self._lids = {name: model.joint(f'lid_{name}').qposadr[0] for name in self.boxes}
        self._is_open = dict.fromkeys(self.boxes, False)
        self._home = HomeDetector(model, data, self.side)
        self._steps = 0
        self._counts = dict.fromkeys(('opened_a', 'closed_a', 'opened_b', 'closed_b'), 0)
        self._fault = ''
        self._success = False

    def outwards(self, name: str) -> int:
        """Return the sign of the direction along y in which the lid of box 'a' or 'b' opens."""
        return self.mirror * next(row[1] for row in _BOXES if row[0] == name)

    def after_step(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Count openings and closings until the outcome is decided."""
        self._steps += 1
        if self._fault or self._success or self._steps % _EVERY:
            return
        self._home.update(data)
        for name, place in self._lids.items():
            if not self._is_open[name] and data.qpos[place] > OPEN:
                self._is_open[name] = True
                self._counts[f'opened_{name}'] += 1
                self._fault = self._judge_opening(name)
            elif self._is_open[name] and data.qpos[place] < CLOSED:
                self._is_open[name] = False
                self._counts[f'closed_{name}'] += 1
        self._success = not self._fault and self._is_open['b'] and self._home.at_home

    def _judge_opening(self, name: str) -> str:
        if name == 'a':
            return 'A was opened twice' if self._counts['opened_a'] > 1 else ''
        if not self._counts['opened_a']:
            return 'B was opened before A'
        return 'B was opened while A was open' if self._is_open['a'] else ''

    def state(self) -> TaskState:
        """Return the counts of openings and closings, and the outcome."""
        done = self._success or bool(self._fault)
        detail = self._fault
        if self._success:
            detail = 'A was opened and closed, B opened; the arm is home'
        elif not done:
            is_open = [name.upper() for name, is_open in self._is_open.items() if is_open]
            detail = f'open now: {" and ".join(is_open) or "none"}'
        return TaskState(dict(self._counts), done, self._success, detail)


def _add_box(spec: mujoco.MjSpec, name: str, outwards: int, color: tuple) -> None:
    kind = mujoco.mjtGeom.mjGEOM_BOX
    box = spec.worldbody.add_body(name=f'box_{name}', mocap=True)
    half = _HALF_BOX - _WALL
    for size, place, paint in (
            ((half, half, _WALL), (0, 0, _WALL), _INSIDE),
            ((_WALL, _HALF_BOX, _HEIGHT / 2), (half, 0, _HEIGHT / 2), _OUTSIDE),
            ((_WALL, _HALF_BOX, _HEIGHT / 2), (-half, 0, _HEIGHT / 2), _OUTSIDE),
            ((half, _WALL, _HEIGHT / 2), (0, half, _HEIGHT / 2), _OUTSIDE),
            ((half, _WALL, _HEIGHT / 2), (0, -half, _HEIGHT / 2), _OUTSIDE)):
        box.add_geom(type=kind, size=size, pos=place, rgba=(*paint, 1.0))
    lid = box.add_body(name=f'lid_{name}', pos=(0, 0, _HEIGHT + 0.001 + _HALF_LID), gravcomp=1.0)
    lid.add_joint(
        name=f'lid_{name}', type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(0, outwards, 0),
        range=(0.0, TRAVEL), limited=mujoco.mjtLimited.mjLIMITED_TRUE,
        frictionloss=1.5, damping=5.0, solref_limit=(0.004, 1.0))
    lid.add_geom(name=f'lid_{name}', type=kind, size=(_HALF_BOX, _HALF_BOX, _HALF_LID), mass=0.12,
                 rgba=(*color, 1.0))
    lid.add_geom(name=f'knob_{name}', type=kind, size=HALF_KNOB, mass=0.03,
                 pos=(0, 0, _HALF_LID + HALF_KNOB[2]), rgba=(*_KNOB, 1.0))
    spec.add_exclude(bodyname1=box.name, bodyname2=lid.name)
