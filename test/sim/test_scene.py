"""The simulated arms and their scene: tracking, grasping, images, seeds."""

import math
from xml.etree.ElementTree import canonicalize

import mujoco
import numpy as np
import pytest

from lingbot_va_ros.resources import shared_file
from lingbot_va_ros.sim.controllers.messages import Trajectory, TrajectoryPoint
from lingbot_va_ros.sim.scenes import SCENES
from lingbot_va_ros.sim.simulation import EMBODIMENTS, Simulation

SECOND = 1_000_000_000


@pytest.fixture(params=['left', 'both'])
def simulation(request):
    made = Simulation(arms=request.param, seed=1)
    yield made
    made.close()


@pytest.fixture
def left():
    made = Simulation(seed=1)
    yield made
    made.close()


def go_to(simulation, positions, seconds):
    """Command one point with a stop, and run until it is due."""
    still = np.zeros(len(simulation.joints))
    simulation.send(Trajectory(
        0, simulation.joints, (TrajectoryPoint(round(seconds * SECOND), positions, still),)))
    simulation.step(seconds)


def near_home(simulation, seed):
    """Return positions in all joints' limits, near home, with the tool above the table."""
    rng = np.random.default_rng(seed)
    positions = simulation.embodiment.home + rng.uniform(-0.35, 0.35, len(simulation.joints))
    limits = simulation.embodiment.limits
    return np.clip(positions, limits.lower, limits.upper)


def tool_down(simulation, x, height, turn=0.0, opening=0.04):
    """Return joint positions with the left tool `x` m before its base, pointing down."""
    model = simulation.model
    shoulder = 0.12
    upper, fore = 0.30, 0.26
    hand = 0.15
    wrist_height = height + hand - shoulder
    distance = math.hypot(x, wrist_height)
    elbow = math.pi - math.acos((upper**2 + fore**2 - distance**2) / (2 * upper * fore))
    inner = math.acos((upper**2 + distance**2 - fore**2) / (2 * upper * distance))
    lift = math.atan2(x, wrist_height) - inner
    assert model.body('left_upper_arm').pos[2] + model.body('left_shoulder').pos[2] \
        == pytest.approx(shoulder)
    return np.array([0.0, lift, elbow, 0.0, math.pi - lift - elbow, turn, opening])


@pytest.mark.parametrize('arms', ['left', 'right', 'both'])
def test_stands_at_home_with_the_cameras_and_joints_of_its_embodiment(arms):
    simulation = Simulation(arms=arms)
    assert simulation.embodiment.name == EMBODIMENTS[arms]
    assert set(simulation.cameras) == set(simulation.embodiment.cameras)
    simulation.step(1.0)
    np.testing.assert_allclose(simulation.positions, simulation.embodiment.home, atol=1e-3)
    np.testing.assert_allclose(simulation.velocities, 0.0, atol=1e-3)


def test_tracks_commands_with_little_lag_and_no_steady_error(simulation):
    for seed in range(3):
        goal = near_home(simulation, seed)
        start = simulation.positions
        still = np.zeros(len(simulation.joints))
        simulation.send(Trajectory(
            0, simulation.joints, (TrajectoryPoint(SECOND, goal, still),)))
        past = [start]
        worst = 0.0
        for _ in range(500):
            simulation.step(0.002)
            past.append(simulation.control.command)
            then = past[max(0, len(past) - 1 - 25)]
            # Somewhere between what was desired 50 ms ago and what is now, give or take 2 mrad.
            lowest = np.minimum(then, past[-1]) - 0.002
            highest = np.maximum(then, past[-1]) + 0.002
            outside = np.maximum(lowest - simulation.positions, simulation.positions - highest)
            worst = max(worst, outside.max())
        assert worst <= 0.0
        simulation.step(0.5)
        np.testing.assert_allclose(simulation.positions, goal, atol=1e-3)


def test_second_finger_follows_the_first(left):
    goal = left.embodiment.home.copy()
    goal[-1] = 0.01
    go_to(left, goal, 0.5)
    left.step(0.3)
    assert left.positions[-1] == pytest.approx(0.01, abs=1e-3)
    assert left.data.joint('left_finger_2_joint').qpos[0] == pytest.approx(0.01, abs=1e-3)


def test_picks_a_cube_and_holds_it(left):
    x = 0.32
    cube = left.data.joint('cube')
    base = left.model.body('left_base_link').pos
    for other in ('brick', 'can', 'tower'):
        left.data.joint(other).qpos[:3] = (0.6, {'brick': -0.4, 'can': -0.3, 'tower': -0.2}[other],
                                           left.data.joint(other).qpos[2])
    cube.qpos[:] = (base[0] + x, base[1], 0.02, 1.0, 0.0, 0.0, 0.0)
    mujoco.mj_forward(left.model, left.data)
    go_to(left, tool_down(left, x, 0.10), 1.0)
    go_to(left, tool_down(left, x, 0.015), 1.0)
    tool = left.data.body('left_tool').xpos
    np.testing.assert_allclose(tool, (base[0] + x, base[1], 0.015), atol=2e-3)
    go_to(left, tool_down(left, x, 0.015, opening=0.0), 0.5)
    left.step(0.3)
    assert left.positions[-1] == pytest.approx(0.02, abs=2e-3)
    go_to(left, tool_down(left, x, 0.17, opening=0.0), 1.0)
    left.step(3.0)
    held = cube.qpos[:3] - left.data.body('left_tool').xpos
    np.testing.assert_allclose(held, 0.0, atol=0.012)


def test_cannot_push_through_the_table(left):
    # The tool is commanded 3 cm into the table.
    go_to(left, tool_down(left, 0.2, 0.05), 1.0)
    go_to(left, tool_down(left, 0.2, -0.03), 1.0)
    left.step(1.0)
    assert left.data.body('left_tool').xpos[2] > -0.005
    assert np.isfinite(left.positions).all()


def test_same_seed_gives_the_same_scene_and_motion(left):
    def episode(simulation):
        simulation.reset(7)
        go_to(simulation, near_home(simulation, 3), 0.5)
        return simulation.data.qpos.copy(), simulation.render('head')

    first = episode(left)
    left.reset(8)
    left.step(0.3)
    again = episode(left)
    fresh = Simulation(seed=4)
    elsewhere = episode(fresh)
    fresh.close()
    for other in (again, elsewhere):
        np.testing.assert_array_equal(other[0], first[0])
        np.testing.assert_array_equal(other[1], first[1])


def test_seeds_differ_in_positions_colors_and_light(simulation):
    looks = []
    for seed in (0, 1, 2):
        simulation.reset(seed)
        looks.append((
            simulation.data.joint('cube').qpos[:2].copy(),
            simulation.model.geom('cube').rgba[:3].copy(),
            simulation.model.light('lamp').dir.copy(),
            simulation.render('head').astype(float)))
    for one, other in ((0, 1), (1, 2), (0, 2)):
        place, colour, light, picture = (
            np.abs(a - b).max() for a, b in zip(looks[one], looks[other]))
        assert place > 0.005
        assert colour > 0.05
        assert light > 0.02
        assert picture > 50


def test_objects_lie_still_where_the_seed_put_them(simulation):
    for seed in range(10):
        simulation.reset(seed)
        before = simulation.data.qpos.copy()
        simulation.step(0.5)
        np.testing.assert_allclose(simulation.data.qpos, before, atol=3e-3)


def test_reset_leaves_the_clock_and_forgets_the_command(left):
    go_to(left, near_home(left, 0), 0.2)
    left.reset(1)
    assert left.time_ns == SECOND // 5
    left.step(0.3)
    np.testing.assert_allclose(left.positions, left.embodiment.home, atol=1e-3)


def test_pictures_show_joints_gripper_and_objects(simulation):
    simulation.step(0.1)
    for camera in simulation.cameras:
        picture = simulation.render(camera)
        assert picture.shape == (128, 128, 3) and picture.dtype == np.uint8
    before = {camera: simulation.render(camera).astype(int) for camera in simulation.cameras}
    opened = simulation.positions.copy()
    moved = opened.copy()
    grippers = [index for index, name in enumerate(simulation.joints) if 'gripper' in name]
    moved[grippers] = 0.01
    go_to(simulation, moved, 0.3)
    for camera in simulation.cameras:
        changed = np.abs(simulation.render(camera) - before[camera]).max(axis=2) > 20
        assert changed.sum() > (100 if 'wrist' in camera else 5)
    moved[simulation.joints.index('left_joint_1')] -= 0.3
    go_to(simulation, moved, 0.5)
    changed = np.abs(simulation.render('head') - before['head']).max(axis=2) > 20
    assert changed.sum() > 300


def test_the_overview_is_not_a_robot_camera_and_shows_the_robot(simulation):
    simulation.step(0.1)
    assert 'overview' not in simulation.cameras
    before = simulation.render_overview()
    assert before.shape == (300, 400, 3) and before.dtype == np.uint8
    head = simulation.render(simulation.cameras[0])
    moved = simulation.positions.copy()
    moved[simulation.joints.index('left_joint_1')] -= 0.3
    go_to(simulation, moved, 0.5)
    changed = np.abs(simulation.render_overview() - before.astype(int)).max(axis=2) > 20
    assert changed.sum() > 1000
    assert simulation.render(simulation.cameras[0]).shape == head.shape


@pytest.mark.parametrize('width, height', [(128, 128), (320, 240)])
def test_lens_says_where_an_object_is_in_the_picture(width, height):
    simulation = Simulation(seed=2, camera_width=width, camera_height=height)
    lens = simulation.lens('head')
    optical = simulation.data.body('head_camera_optical_frame')
    for name in ('cube', 'can', 'tower', 'brick'):
        center = simulation.data.body(name).xpos
        x, y, z = optical.xmat.reshape(3, 3).T @ (center - optical.xpos)
        column = lens.center_x + lens.focal_length * x / z
        row = lens.center_y + lens.focal_length * y / z
        red, green, blue = simulation.render('head')[round(row), round(column)] / 255
        painted = simulation.model.geom(name).rgba[:3]
        assert np.corrcoef([red, green, blue], painted)[0, 1] > 0.95
    simulation.close()


@pytest.mark.parametrize('arguments, message', [
    ({'task': 'juggle'}, "task: 'juggle' is unknown; expected one of table"),
    ({'arms': 'three'}, "arms: 'three' is unknown; expected one of left, right, both"),
    ({'seed': -1}, 'seed: -1 is negative')])
def test_names_a_bad_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        Simulation(**arguments)


@pytest.mark.parametrize('task', SCENES)
def test_every_scene_starts_undone(task):
    simulation = Simulation(task=task, arms='both')
    assert not simulation.task_state.done
    assert not simulation.task_state.success


@pytest.mark.parametrize('arms', ['left', 'right', 'both'])
def test_the_shipped_urdf_is_the_output_of_xacro(arms):
    xacro = pytest.importorskip('xacro')
    source = shared_file('urdf', 'sim_robot.urdf.xacro')
    made = xacro.process_file(str(source), mappings={'arms': arms}).toxml()
    plain = shared_file('urdf', f'{EMBODIMENTS[arms]}.urdf').read_text()
    assert canonicalize(plain, strip_text=True) == canonicalize(made, strip_text=True)
