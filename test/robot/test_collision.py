"""The collision model: which pairs are checked, and that distances are those of MuJoCo."""

from dataclasses import replace

import numpy as np
import pytest
from support.dual_arms import HOME, Judge, LIMITS, model, ROBOT

from lingbot_va_ros.robot.collision import CollisionModel, Distances
from lingbot_va_ros.specs.collision import Box, Collision, Plane
from lingbot_va_ros.specs.embodiment import load_embodiment


def pairs_of(model):
    return {frozenset(pair) for pair in model.bodies}


def test_what_is_checked_is_self_arm_arm_and_environment_without_neighbors():
    pairs = pairs_of(model())
    assert {'left_hand', 'right_hand'} in pairs
    assert {'left_finger_1', 'right_upper_arm'} in pairs
    assert {'left_hand', 'left_base_link'} in pairs and {'left_elbow', 'table'} in pairs
    for one, other in (
            ('left_elbow', 'left_upper_arm'), ('left_forearm', 'left_hand'),  # neighbors
            ('left_base_link', 'left_upper_arm'),  # the shoulder between them has no shape
            ('left_finger_1', 'left_finger_2'), ('left_finger_1', 'left_hand'),  # one gripper
            ('left_forearm', 'left_finger_1'),  # by the SRDF
            ('left_finger_1', 'table'),  # by the file
            ('left_base_link', 'right_base_link'), ('left_base_link', 'table')):  # nothing moves
        assert {one, other} not in pairs
    assert not model().touching_at_home and not model().shapeless_arms


def test_distances_are_those_of_mujoco():
    judge, found = Judge(), Distances(model())
    rng = np.random.default_rng(0)
    for q in rng.uniform(LIMITS.lower, LIMITS.upper, (60, 14)):
        distances = found.at(q)
        distance, one, other = judge.nearest(q)
        pair = [set(bodies) for bodies in model().bodies].index({one, other})
        if distance > 0.0:
            assert distances[pair] == pytest.approx(distance, abs=2e-4)
        else:
            assert distances[pair] < 1e-4


def test_the_nearest_points_are_as_far_apart_as_their_distance():
    found = Distances(model())
    distances = found.at(HOME)
    for pair in range(0, len(distances), 7):
        near = found.near(pair)
        assert near.distance == distances[pair]
        assert np.linalg.norm(near.points[0] - near.points[1]) == pytest.approx(
            near.distance, abs=1e-5)


def test_no_motion_changes_a_distance_by_more_than_its_levers_say():
    found = Distances(model())
    rng = np.random.default_rng(1)
    for _ in range(150):
        q = rng.uniform(LIMITS.lower, LIMITS.upper)
        there = np.clip(q + rng.normal(0.0, 0.2, 14) * (rng.random(14) < 0.3),
                        LIMITS.lower, LIMITS.upper)
        change = np.abs(found.at(there) - found.at(q))
        assert np.all(change <= model().levers @ np.abs(there - q) + 1e-4)


def test_what_touches_at_home_is_left_out_and_named():
    near = Box('near', np.full(3, 0.1), HOME_ELBOW + [0.0, 0.09, 0.0], np.zeros(3))
    found = CollisionModel(replace(ROBOT, collision=Collision(environment=(near,))))
    touching = [each for each in found.touching_at_home if 'near' in each.bodies]
    assert touching and all(each.distance < 0.02 for each in touching)
    assert all(set(each.bodies) not in pairs_of(found) for each in touching)
    assert {'right_hand', 'near'} in pairs_of(found)


HOME_ELBOW = np.array([0.0, 0.2, 0.42])


def test_a_plane_is_solid_below():
    wall = Plane('wall', np.array([-1.0, 0.0, 0.0]), -0.6)  # free space: x < 0.6
    found = CollisionModel(replace(ROBOT, collision=Collision(environment=(wall,))))
    pair = [set(bodies) for bodies in found.bodies].index({'left_finger_1', 'wall'})
    distances = Distances(found)
    down = HOME + np.eye(14)[2] * -1.0 + np.eye(14)[1] * 0.8  # stretched forward
    assert distances.at(HOME)[pair] > distances.at(down)[pair]


MESHED = """<robot name="r"><link name="base"><collision><geometry><box size="0.1 0.1 0.1"/>
</geometry></collision></link><link name="l1"/><link name="l2"><collision>
<origin xyz="0 0 0.4"/><geometry><mesh filename="{mesh}" scale="0.1 0.1 0.1"/></geometry>
</collision></link>
<joint name="j1" type="revolute"><parent link="base"/><child link="l1"/><axis xyz="0 0 1"/>
<limit lower="-2" upper="2" velocity="3" effort="9"/></joint>
<joint name="j2" type="revolute"><parent link="l1"/><child link="l2"/><axis xyz="0 1 0"/>
<limit lower="-2" upper="2" velocity="3" effort="9"/></joint></robot>"""
# Two tetrahedra side by side: what is between them belongs to the hull.
MESH = """v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nv 3 0 0\nv 4 0 0\nv 3 1 0\nv 3 0 1
f 1 3 2\nf 1 2 4\nf 2 3 4\nf 1 4 3\nf 5 7 6\nf 5 6 8\nf 6 7 8\nf 5 8 7\n"""
MESHED_FILE = """
name: meshed
urdf: arm.urdf
base_frame: base
arms: [{side: left, joints: [j1, j2]}]
limits: {j1: {acceleration: 5.0, jerk: 50.0}, j2: {acceleration: 5.0, jerk: 50.0}}
home: {j1: 0.0, j2: 0.0}
controllers: [{topic: arm/joint_trajectory, kind: trajectory, joints: [j1, j2]}]
cameras: {}
collision:
  environment: [{name: post, box: {size: [0.02, 0.02, 0.02], xyz: [0.2, -0.05, 0.44]}}]
"""


def meshed_robot(folder, mesh):
    (folder / 'arm.urdf').write_text(MESHED.format(mesh=mesh))
    (folder / 'arm.yaml').write_text(MESHED_FILE)
    return load_embodiment(str(folder / 'arm.yaml'))


def test_a_mesh_stands_for_its_convex_hull(tmp_path):
    (tmp_path / 'hand.obj').write_text(MESH)
    found = CollisionModel(meshed_robot(tmp_path, 'hand.obj'))
    assert pairs_of(found) == {frozenset(('l2', 'post'))} or len(found.bodies) == 1
    distances = Distances(found)
    # The post stands beside the gap between the tetrahedra, 0.04 m from the hull's face.
    assert distances.at(np.zeros(2))[0] == pytest.approx(0.04, abs=1e-4)
    assert distances.at(np.array([1.5, 0.0]))[0] > 0.1


@pytest.mark.parametrize('mesh', ['nothing.stl', 'package://no_such_package/hand.stl'])
def test_a_missing_mesh_is_one_line_that_names_it(tmp_path, mesh):
    robot = meshed_robot(tmp_path, mesh)
    with pytest.raises(ValueError, match=f"{mesh} of link 'l2' does not exist") as caught:
        CollisionModel(robot)
    assert '\n' not in str(caught.value)


def test_a_broken_mesh_is_one_line(tmp_path):
    (tmp_path / 'hand.stl').write_bytes(b'solid nothing')
    with pytest.raises(ValueError) as caught:
        CollisionModel(meshed_robot(tmp_path, 'hand.stl'))
    assert '\n' not in str(caught.value) and 'hand.stl' in str(caught.value)
