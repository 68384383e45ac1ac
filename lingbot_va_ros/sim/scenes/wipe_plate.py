"""The task wipe_plate: wipe a plate exactly six times, then go home."""

import mujoco
import numpy as np

from lingbot_va_ros.sim.scenes.distractors import Distractors
from lingbot_va_ros.sim.scenes.home import HomeDetector
from lingbot_va_ros.sim.scenes.state import TaskState

STROKES = 6
PLATE_RADIUS = 0.11  # m
PLATE_TOP = 0.014  # m above the table
# Distance from the tool frame to the lower face of the relaxed sponge, along the tool.
SPONGE_REACH = 0.038  # m
# Bounds of the center of the plate, x and y (m), for the left arm.
_PLATE_LOWER, _PLATE_UPPER = np.array([0.33, 0.02]), np.array([0.41, 0.12])
# Areas of the distractors.
_BESIDE = (((0.12, -0.36), (0.55, -0.19)), ((0.56, -0.30), (0.64, 0.20)))

# Thresholds of a stroke, see WipePlateScene.
STROKE_LENGTH = 0.06  # m
TURN_BACK = 0.02  # m
LIFT_OFF = 0.008  # m
_TOUCH = 0.02  # N

_TOOL = 0.12  # m from the hand frame to the tool frame
_HALF_SPONGE = (0.030, 0.034, 0.026)
_HIDDEN = 4  # a group of sites that the cameras do not render
_EVERY = 5  # physics steps between two evaluations


class WipePlateScene:
    """
    A plate on the table and a sponge in the hand; both are solid, the sponge is compliant.

    A stroke is detected every 10 ms from the state of the simulation:
    - It begins when the sponge presses on the plate: a touch sensor measures a force while the
      center of the sponge is above the plate.
    - It counts, once, when the center of the sponge is 60 mm from where the stroke began, still in
      contact.
    - It ends when the sponge is lifted by 8 mm or leaves the plate. Moving back and forth without
      lifting makes several strokes: when the sponge has returned by 20 mm from the furthest point,
      a new stroke has begun at that point.

    Success: six strokes have counted when the arm is home for the first time after it left (see
    HomeDetector). Failure: any other number then, or a seventh stroke, at once. Motion after the
    first return is ignored. Images do not show how often the plate has been wiped.
    """

    # The current stroke: its start, its furthest point, and whether it has counted.
    _begin: np.ndarray | None
    _furthest: np.ndarray
    _furthest_way: float
    _counted: bool

    def add(self, spec: mujoco.MjSpec, sides: tuple[str, ...]) -> None:
        """Add plate and sponge for the left arm, or for the right arm if it is the only one."""
        self.side = 'left' if 'left' in sides else sides[0]
        self.mirror = 1 if self.side == 'left' else -1
        plate = spec.worldbody.add_body(name='plate', mocap=True)
        cylinder, box = mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_BOX
        plate.add_geom(
            name='plate_rim', type=cylinder, size=(PLATE_RADIUS, 0.006, 0.0), pos=(0, 0, 0.006),
            rgba=(0.95, 0.95, 0.97, 1.0), contype=0, conaffinity=0)
        plate.add_geom(
            name='plate', type=cylinder, size=(0.82 * PLATE_RADIUS, PLATE_TOP / 2, 0.0),
            pos=(0, 0, PLATE_TOP / 2), rgba=(0.12, 0.25, 0.85, 1.0))
        hand = spec.body(f'{self.side}_hand')
        length = _TOOL + SPONGE_REACH - _HALF_SPONGE[2]
        sponge = hand.add_body(name='sponge', pos=(0.0, 0.0, length), gravcomp=1.0)
        sponge.add_joint(
            name='sponge', type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(0, 0, 1),
            range=(-0.03, 0.01), limited=mujoco.mjtLimited.mjLIMITED_TRUE,
            stiffness=100.0, damping=4.0)
        sponge.add_geom(
            name='sponge', type=box, size=_HALF_SPONGE, mass=0.03, friction=(0.4, 0.01, 0.001),
            rgba=(1.0, 0.82, 0.05, 1.0))
        sponge.add_site(
            name='sponge', type=box, size=np.array(_HALF_SPONGE) + 0.005, group=_HIDDEN)
        spec.add_sensor(
            name='sponge', type=mujoco.mjtSensor.mjSENS_TOUCH, objname='sponge',
            objtype=mujoco.mjtObj.mjOBJ_SITE)
        spec.add_exclude(bodyname1='sponge', bodyname2=hand.name)
        self._distractors = Distractors(_BESIDE, self.mirror)
        self._distractors.add(spec)

    def reset(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """Draw the positions of the plate and the distractors."""
        x, y = rng.uniform(_PLATE_LOWER, _PLATE_UPPER)
        self.plate = np.array([x, self.mirror * y])
        data.mocap_pos[model.body('plate').mocapid[0]] = (*self.plate, 0.0)
        self._distractors.reset(model, data, rng)
        self._sponge = model.body('sponge').id
        self._sensor = model.sensor('sponge').adr[0]
        self._home = HomeDetector(model, data, self.side)
        self._steps = 0
        self._strokes = 0
        self._begin = None
        self._done = self._success = False

    def after_step(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Count strokes until the outcome is decided."""
        self._steps += 1
        if self._done or self._steps % _EVERY:
            return
        self._follow_sponge(data)
        self._home.update(data)
        if self._strokes > STROKES or (self._home.left and self._home.at_home):
            self._done, self._success = True, self._strokes == STROKES

    def _follow_sponge(self, data: mujoco.MjData) -> None:
        middle = data.xpos[self._sponge]
        place = middle[:2].copy()
        gap = middle[2] - _HALF_SPONGE[2] - PLATE_TOP
        above = np.linalg.norm(place - self.plate) < PLATE_RADIUS
        if self._begin is None:
            if above and data.sensordata[self._sensor] > _TOUCH:
                self._start(place)
            return
        if not above or gap > LIFT_OFF:
            self._begin = None
            return
        way = float(np.linalg.norm(place - self._begin))
        if way > self._furthest_way:
            self._furthest, self._furthest_way = place, way
        elif way < self._furthest_way - TURN_BACK:
            self._start(self._furthest)
            self._furthest_way = float(np.linalg.norm(place - self._furthest))
            self._furthest = place
            return
        if not self._counted and way > STROKE_LENGTH:
            self._counted = True
            self._strokes += 1

    def _start(self, place: np.ndarray) -> None:
        self._begin = self._furthest = place
        self._furthest_way = 0.0
        self._counted = False

    def state(self) -> TaskState:
        """Return the number of strokes and the outcome."""
        if not self._done:
            detail = 'the arm is not back home yet' if self._home.left else 'not started'
        elif self._success:
            detail = f'home after exactly {STROKES} strokes'
        elif self._strokes > STROKES:
            detail = f'more than {STROKES} strokes'
        else:
            detail = f'home after {self._strokes} strokes, expected {STROKES}'
        return TaskState({'strokes': self._strokes}, self._done, self._success, detail)
