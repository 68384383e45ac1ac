"""
The simulated robot and its scene, without ROS.

    simulation = Simulation(task='table', arms='left', seed=3)
    simulation.send(trajectory)
    simulation.step(0.1)
    image = simulation.render('head')
"""

import colorsys

import mujoco
import numpy as np

from lingbot_va_ros.motion.time import NANOSECONDS, to_nanoseconds
from lingbot_va_ros.sim.cameras import Cameras, Lens, lens_of
from lingbot_va_ros.sim.controllers.control_loop import ControlLoop
from lingbot_va_ros.sim.controllers.delivery import Delivery
from lingbot_va_ros.sim.controllers.direct_driver import DirectDriver
from lingbot_va_ros.sim.controllers.messages import Trajectory
from lingbot_va_ros.sim.controllers.settings import controller_settings, ControllerSettings
from lingbot_va_ros.sim.controllers.trajectory_controller import TrajectoryController
from lingbot_va_ros.sim.robot_model import robot_spec
from lingbot_va_ros.sim.scenes import Scene, SCENES, TaskState
from lingbot_va_ros.specs.embodiment import load_embodiment

EMBODIMENTS = {'left': 'sim_left', 'right': 'sim_right', 'both': 'sim_dual'}
# Geom group of the scene; MuJoCo's URDF reader puts the robot's visual geometry into group 1. Both
# are rendered.
_SEEN = 2
# The overview camera, which is not part of the robot: its name, position and target (m), its
# vertical field of view (degrees) and the height and width of its images.
OVERVIEW = 'overview'
_OVERVIEW_FROM, _OVERVIEW_AT, _OVERVIEW_FIELD = (0.95, 0.62, 0.62), (0.20, 0.02, 0.12), 42.0
OVERVIEW_SIZE = (300, 400)


class Simulation:
    """
    One robot, one scene, one clock.

    `joints` is the order of every joint array: all arms, then their grippers (rad; metres for
    grippers). `time_ns` is the simulated time, `scene` the objects on the table, `controller` what
    follows trajectories and `control` the loop that updates it, between two steps of the physics.
    All methods are called from one thread; `render` makes the rendering context in the thread of
    its first call.

    :param controller: settings of the controller; None: Jazzy's at 500 Hz.
    :param delay: seconds that messages to the controller take.
    :raises ValueError: the task or the arms are unknown, or the seed is negative.
    """

    def __init__(self, task: str = 'table', arms: str = 'left', seed: int = 0,
                 camera_width: int = 128, camera_height: int = 128,
                 controller: ControllerSettings | None = None, delay: float = 0.0):
        if task not in SCENES:
            raise ValueError(f"task: '{task}' is unknown; expected one of {', '.join(SCENES)}")
        if arms not in EMBODIMENTS:
            raise ValueError(
                f"arms: '{arms}' is unknown; expected one of {', '.join(EMBODIMENTS)}")
        self.task = task
        self.embodiment = load_embodiment(EMBODIMENTS[arms])
        self.joints = self.embodiment.joints
        self.controller = TrajectoryController(
            self.joints, controller or controller_settings('jazzy'))
        self.control: ControlLoop | DirectDriver = ControlLoop(self.controller, Delivery(delay))
        self.time_ns = 0
        self.scene: Scene = SCENES[task]()
        self._size = (camera_width, camera_height)
        self.model = self._compile()
        self.data = mujoco.MjData(self.model)
        names = (self.model.camera(index).name for index in range(self.model.ncam))
        self.cameras = tuple(name for name in names if name != OVERVIEW)
        self._step_ns = to_nanoseconds(self.model.opt.timestep)
        rows = [self.model.joint(name) for name in self.joints]
        self._qpos = np.array([row.qposadr[0] for row in rows])
        self._qvel = np.array([row.dofadr[0] for row in rows])
        self._servos = np.array([self.model.actuator(name).id for name in self.joints])
        self._drawing: Cameras | None = None
        self._overview: Cameras | None = None
        self.reset(seed)

    def _compile(self) -> mujoco.MjModel:
        spec = robot_spec(self.embodiment)
        _add_surroundings(spec)
        robot_bodies = {body.name for body in spec.bodies}
        self.scene.add(spec, tuple(arm.side for arm in self.embodiment.arms))
        for body in spec.bodies:
            if body.name not in robot_bodies:
                for geom in body.geoms:
                    geom.group = _SEEN
        return spec.compile()

    def reset(self, seed: int) -> None:
        """
        Set the arms to home and arrange the scene at random; the same seed gives the same scene.

        Simulated time continues.

        :raises ValueError: the seed is negative.
        """
        if seed < 0:
            raise ValueError(f'seed: {seed} is negative; expected 0 or more')
        rng = np.random.default_rng(seed)
        mujoco.mj_resetData(self.model, self.data)
        for arm in self.embodiment.arms:
            assert arm.gripper is not None  # every simulated arm has one
            follower = self.data.joint(f'{arm.side}_finger_2_joint')
            follower.qpos[0] = self.embodiment.home[self.joints.index(arm.gripper.joint)]
        self.data.qpos[self._qpos] = self.embodiment.home
        self.data.ctrl[self._servos] = self.embodiment.home
        _vary_light(self.model, rng)
        self.scene.reset(self.model, self.data, rng)
        mujoco.mj_forward(self.model, self.data)
        self.control.begin(self.time_ns, self.embodiment.home)

    def continue_from(self, before: 'Simulation') -> None:
        """Take over the time and the counts of messages of another simulation, at rest at home."""
        self.time_ns = before.time_ns
        self.controller.accepted = before.controller.accepted
        self.controller.rejected = before.controller.rejected
        self.control.begin(self.time_ns, self.embodiment.home)

    def rewind(self) -> None:
        """Set the clock to zero and hold the present command."""
        self.time_ns = 0
        self.control.begin(0, self.control.command)

    def drive_directly(self, takes_velocities: bool, timeout: float) -> None:
        """Let a driver of positions or velocities take the controller's place."""
        limits = self.embodiment.limits
        self.control = DirectDriver(limits.lower, limits.upper, takes_velocities, timeout)
        self.control.begin(self.time_ns, self.positions)

    def send(self, trajectory: Trajectory) -> None:
        """Send the controller a trajectory."""
        assert isinstance(self.control, ControlLoop)  # a direct driver takes none
        self.control.send(trajectory, self.time_ns)

    def protective_stop(self) -> None:
        """Deactivate the controller and hold the arms where they are."""
        self.control.stop(self.positions)

    def resume(self) -> None:
        """Activate the controller where the arms are."""
        self.control.begin(self.time_ns, self.positions, self.velocities)

    def step(self, seconds: float) -> None:
        """Advance by a whole number of physics steps (0.002 s), at least one."""
        for _ in range(max(1, round(seconds * NANOSECONDS / self._step_ns))):
            self.data.ctrl[self._servos] = self.control.advance(self.time_ns, self._measure)
            mujoco.mj_step(self.model, self.data)
            self.time_ns += self._step_ns
            self.scene.after_step(self.model, self.data)

    def _measure(self) -> tuple[np.ndarray, np.ndarray]:
        return self.positions, self.velocities

    @property
    def positions(self) -> np.ndarray:
        """Return the measured joint positions, [J] float64, rad (m for grippers)."""
        return self.data.qpos[self._qpos]

    @property
    def velocities(self) -> np.ndarray:
        """Return the measured joint velocities, [J] float64, rad/s (m/s for grippers)."""
        return self.data.qvel[self._qvel]

    @property
    def efforts(self) -> np.ndarray:
        """Return the efforts of the servos, [J] float64, Nm (N for grippers)."""
        return self.data.qfrc_actuator[self._qvel]

    @property
    def task_state(self) -> TaskState:
        """Return the state of the task."""
        return self.scene.state()

    def lens(self, camera: str) -> Lens:
        """Return the intrinsics of a camera at the size of the images."""
        return lens_of(self.model, camera, *self._size)

    def render(self, camera: str) -> np.ndarray:
        """Return the image of a camera (see `cameras`), uint8 [H, W, 3], RGB."""
        return self._cameras().draw(self.data, camera)

    def render_overview(self) -> np.ndarray:
        """Return an image of robot and table from the front, uint8 [300, 400, 3], RGB."""
        if self._overview is None:
            height, width = OVERVIEW_SIZE
            self._overview = Cameras(self.model, width, height)
        return self._overview.draw(self.data, OVERVIEW)

    def render_geoms(self, camera: str) -> np.ndarray:
        """Return a segmented image: the geom id of each pixel, int32 [H, W], -1 for none."""
        return self._cameras().draw_geoms(self.data, camera)

    def _cameras(self) -> Cameras:
        if self._drawing is None:
            self._drawing = Cameras(self.model, *self._size)
        return self._drawing

    def close(self) -> None:
        """Free the rendering contexts, in the thread that rendered."""
        for drawing in (self._drawing, self._overview):
            if drawing is not None:
                drawing.close()
        self._drawing = self._overview = None


def _add_surroundings(spec: mujoco.MjSpec) -> None:
    """Add table, floor, light and the overview camera; the table's top is the plane z = 0."""
    # Without multisampling and shadows, rendering is 10 times as fast.
    spec.visual.quality.offsamples = 0
    spec.visual.quality.shadowsize = 0
    spec.visual.headlight.ambient = (0.30, 0.30, 0.30)
    spec.visual.headlight.diffuse = (0.25, 0.25, 0.25)
    spec.visual.headlight.specular = (0.0, 0.0, 0.0)
    spec.visual.map.znear = 0.005
    spec.visual.map.zfar = 10.0
    # The near plane is in units of the model's extent, which distant objects would enlarge.
    spec.stat.extent = 1.0
    world = spec.worldbody
    box, plane = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_PLANE
    world.add_geom(name='table', type=box, size=(0.48, 0.65, 0.02), pos=(0.30, 0.0, -0.02),
                   rgba=(0.62, 0.50, 0.38, 1.0), group=_SEEN, friction=(1.0, 0.01, 0.001))
    world.add_geom(name='floor', type=plane, size=(3.0, 3.0, 0.1), pos=(0.0, 0.0, -0.75),
                   rgba=(0.42, 0.45, 0.48, 1.0), group=_SEEN)
    world.add_light(name='lamp', type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
                    pos=(0.3, 0.0, 2.0), dir=(0.0, 0.0, -1.0), castshadow=False,
                    diffuse=(0.6, 0.6, 0.6), specular=(0.1, 0.1, 0.1))
    backwards = np.subtract(_OVERVIEW_FROM, _OVERVIEW_AT)
    backwards /= np.linalg.norm(backwards)
    right = np.cross((0.0, 0.0, 1.0), backwards)
    right /= np.linalg.norm(right)
    turn = np.zeros(4)
    mujoco.mju_mat2Quat(turn, np.stack((right, np.cross(backwards, right), backwards), 1).ravel())
    world.add_camera(name=OVERVIEW, pos=_OVERVIEW_FROM, quat=turn, fovy=_OVERVIEW_FIELD)


def _vary_light(model: mujoco.MjModel, rng: np.random.Generator) -> None:
    """Draw the direction and color of the lamp and the color of the table."""
    slant = rng.uniform(-0.5, 0.5, 2)
    model.light('lamp').dir[:] = np.array([*slant, -1.0]) / np.sqrt(1 + slant @ slant)
    model.light('lamp').diffuse[:] = rng.uniform(0.5, 0.7) * rng.uniform(0.9, 1.0, 3)
    hue, strength = rng.uniform(0.05, 0.12), rng.uniform(0.15, 0.4)
    model.geom('table').rgba[:3] = colorsys.hsv_to_rgb(hue, strength, rng.uniform(0.5, 0.7))
