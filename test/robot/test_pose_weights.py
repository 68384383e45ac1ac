"""An arm of five joints takes poses as well as it can, by the weights of its embodiment file."""

from dataclasses import replace

import numpy as np
import pinocchio as pin
import pytest

from lingbot_va_ros.resources import shared_file
from lingbot_va_ros.robot.action_map import make_action_map
from lingbot_va_ros.robot.kinematics import ArmKinematics, OutOfReach
from lingbot_va_ros.specs.embodiment import Arm, Embodiment, Gripper, JointLimits, load_embodiment
from lingbot_va_ros.specs.policy_file import load_policy_file
from lingbot_va_ros.specs.pose_task import PoseWeights

# The chain of an SO101: (joint, xyz in m, rpy in rad, lower, upper), each about its z axis.
SO101 = (
    ('shoulder_pan', '0.0388353 0 0.0624', '3.14159 0 -3.14159', -1.91986, 1.91986),
    ('shoulder_lift', '-0.0303992 -0.0182778 -0.0542', '-1.5708 -1.5708 0', -1.74533, 1.74533),
    ('elbow_flex', '-0.11257 -0.028 0', '0 0 1.5708', -1.69, 1.69),
    ('wrist_flex', '-0.1349 0.0052 0', '0 0 -1.5708', -1.65806, 1.65806),
    ('wrist_roll', '0 -0.0611 0.0181', '1.5708 0.0486795 3.14159', -2.74385, 2.84121))
TOOL = ('-0.0079 -0.0002181 -0.0981274', '0 3.14159 0')
JOINTS = tuple(name for name, *_ in SO101)
POSITION_FIRST = (1.0, 1.0, 1.0, 0.01, 0.01, 0.01)
POSITION_ONLY = (1.0, 1.0, 1.0, 0.0, 0.0, 0.0)
READY = np.array([0.2, -0.5, 0.6, 0.5, 0.1])


@pytest.fixture(scope='module')
def urdf(tmp_path_factory):
    xml, parent = ['<robot name="so101"><link name="base_link"/>'], 'base_link'
    for name, xyz, rpy, lower, upper in SO101:
        xml.append(
            f'<link name="{name}_link"/><joint name="{name}" type="revolute">'
            f'<parent link="{parent}"/><child link="{name}_link"/><origin xyz="{xyz}" '
            f'rpy="{rpy}"/><axis xyz="0 0 1"/><limit lower="{lower}" upper="{upper}" '
            'velocity="10" effort="10"/></joint>')
        parent = f'{name}_link'
    xml.append(
        f'<link name="tool"/><joint name="tool_joint" type="fixed"><parent link="{parent}"/>'
        f'<child link="tool"/><origin xyz="{TOOL[0]}" rpy="{TOOL[1]}"/></joint></robot>')
    path = tmp_path_factory.mktemp('so101') / 'so101.urdf'
    path.write_text(''.join(xml))
    return path


def robot(urdf, weights, *tolerance, gripper=None):
    task = None if weights is None else PoseWeights(weights, *tolerance)
    arm = Arm('left', JOINTS, gripper, 'tool', 'base_link', task)
    names = JOINTS if gripper is None else (*JOINTS, gripper.joint)
    ends = np.array([[lower, upper] for *_, lower, upper in SO101] + [[0.0, 1.0]] * (
        gripper is not None)).T
    ones = np.ones(len(names))
    return Embodiment(
        name='so101', joints=names, limits=JointLimits(*ends, ones, ones, ones),
        home=np.zeros(len(names)), arms=(arm,), controllers=(), cameras={}, urdf=urdf)


def make(urdf, weights, *tolerance):
    embodiment = robot(urdf, weights, *tolerance)
    return ArmKinematics(embodiment, embodiment.arms[0])


def turned(pose, rotation):
    """Return a pose [4, 4] turned by a rotation vector [3] about the axes of the base."""
    pose = pose.copy()
    pose[:3, :3] = pin.exp3(np.asarray(rotation, float)) @ pose[:3, :3]
    return pose


def distances(arm, joints, pose):
    there = arm.forward(joints)
    return (np.linalg.norm(there[:3, 3] - pose[:3, 3]),
            np.linalg.norm(pin.log3(there[:3, :3].T @ pose[:3, :3])))


@pytest.mark.parametrize('weights', [POSITION_FIRST, (1.0, 1.0, 1.0, 0.1, 0.1, 0.1)])
def test_a_pose_that_the_arm_can_take_is_taken_whole(urdf, weights):
    arm, rng = make(urdf, weights), np.random.default_rng(1)
    for _ in range(60):
        joints = rng.uniform(arm.lower + 0.1, arm.upper - 0.1)
        pose = arm.forward(joints)
        start = np.clip(joints + rng.uniform(-0.15, 0.15, 5), arm.lower, arm.upper)
        taken = arm.solve(pose[None], start)
        translation, rotation = distances(arm, taken.joints[0], pose)
        assert translation < 1e-5 and rotation < 1e-3
        assert taken.translation_left < 1e-5 and taken.rotation_left < 1e-3


def test_of_a_pose_that_it_cannot_take_the_position_is_met_and_the_rotation_left_is_told(urdf):
    arm, whole = make(urdf, POSITION_FIRST), make(urdf, None)
    rng = np.random.default_rng(2)
    for _ in range(40):
        joints = rng.uniform(0.6 * arm.lower, 0.6 * arm.upper)
        pose = turned(arm.forward(joints), [0, 0, rng.choice([-0.3, 0.3])])
        taken = arm.solve(pose[None], joints)
        left = distances(arm, taken.joints[0], pose)
        assert left[0] < 3e-3 and left[1] < 0.31
        np.testing.assert_allclose(left, (taken.translation_left, taken.rotation_left), atol=1e-9)
        if left[1] > 0.05:
            with pytest.raises(OutOfReach, match='is out of reach'):
                whole.follow(pose[None], joints)


def test_the_pose_of_least_weighted_error_does_not_depend_on_the_start(urdf):
    arm, rng = make(urdf, POSITION_FIRST), np.random.default_rng(3)
    for _ in range(20):
        joints = rng.uniform(0.6 * arm.lower, 0.6 * arm.upper)
        pose = turned(arm.forward(joints), 0.2 * rng.normal(size=3))
        found = [
            arm.follow(pose[None], joints + rng.uniform(-0.1, 0.1, 5))[0] for _ in range(3)]
        assert np.ptp(found, axis=0).max() < 1e-3

        def cost(joints, pose=pose):
            translation, rotation = distances(arm, joints, pose)
            return translation ** 2 + (0.01 * rotation) ** 2
        for step in 2e-3 * np.eye(5):
            for near in (found[0] + step, found[0] - step):
                near = np.clip(near, arm.lower, arm.upper)
                assert cost(found[0]) <= cost(near) + 1e-12


def test_steps_stay_small_along_a_path_that_it_cannot_take_whole(urdf):
    arm = make(urdf, POSITION_FIRST)
    poses = np.repeat(arm.forward(READY)[None], 50, axis=0)
    poses[:, 1, 3] += np.linspace(0, 0.2, 50)
    taken = arm.solve(poses, READY)
    assert np.abs(np.diff(taken.joints, axis=0)).max() < 0.06
    assert np.abs(np.diff(taken.joints, 2, axis=0)).max() < 0.01
    assert taken.translation_left < 2e-3 and 0.2 < taken.rotation_left < 0.8
    errors = [distances(arm, *pair) for pair in zip(taken.joints, poses)]
    np.testing.assert_allclose(
        np.max(errors, axis=0), [taken.translation_left, taken.rotation_left], atol=1e-9)


def test_axes_of_weight_0_do_not_count_and_do_not_drift(urdf):
    arm = make(urdf, POSITION_ONLY)
    first = arm.forward(READY)
    poses = np.repeat(turned(first, [1.0, -2.0, 1.0])[None], 30, axis=0)
    poses[:10, 0, 3] -= np.linspace(0.0, 0.05, 10)
    poses[10:, 0, 3] = poses[9, 0, 3]
    taken = arm.solve(poses, READY)
    assert taken.rotation_left == 0.0 and taken.translation_left < 1e-6
    np.testing.assert_allclose(taken.joints[10:], taken.joints[9:10].repeat(20, 0), atol=1e-6)


def test_weights_are_of_the_axes_of_the_commanded_tool_frame(urdf):
    # A turn about the tool's own z axis needs the wrist alone; without weight it is not made.
    pose = make(urdf, POSITION_FIRST).forward(READY)
    about_z, about_x = pose.copy(), pose.copy()
    about_z[:3, :3] = pose[:3, :3] @ pin.exp3(np.array([0, 0, 0.4]))
    about_x[:3, 3] = pose[:3, :3] @ [0.02, 0, 0] + pose[:3, 3]
    no_z = make(urdf, (1.0, 1.0, 1.0, 0.1, 0.1, 0.0))
    np.testing.assert_allclose(no_z.follow(about_z[None], READY)[0], READY, atol=1e-5)
    no_x = make(urdf, (0.0, 1.0, 1.0, 0.1, 0.1, 0.1))
    np.testing.assert_allclose(no_x.follow(about_x[None], READY)[0], READY, atol=1e-5)


def test_beyond_the_tolerance_a_pose_is_out_of_reach(urdf):
    far = make(urdf, POSITION_FIRST).forward(READY)
    far[0, 3] += 0.5
    with pytest.raises(OutOfReach, match=r'is out of reach; 0\.[1-4]\d* m and'):
        make(urdf, POSITION_FIRST).follow(far[None], READY)
    aside = turned(make(urdf, POSITION_FIRST).forward(READY), [0, 0, 0.3])
    make(urdf, POSITION_FIRST).follow(aside[None], READY)
    with pytest.raises(OutOfReach, match='rad are left'):
        make(urdf, POSITION_FIRST, 0.02, 0.1).follow(aside[None], READY)


def test_only_the_ratio_of_weights_matters(tmp_path):
    shipped = shared_file('config', 'embodiments', 'sim_left.yaml').read_text()
    found = []
    for factor in (1, 100):
        weights = [factor * weight for weight in (2, 2, 2, 0.02, 0.02, 0)]
        path = tmp_path / f'weights_{factor}.yaml'
        path.write_text(shipped.replace(
            '    joints:', f'    pose_weights: {weights}\n    joints:', 1))
        found.append(load_embodiment(str(path)).arms[0].pose_weights)
    assert found[0] == found[1] == PoseWeights((1.0, 1.0, 1.0, 0.01, 0.01, 0.0))


def test_an_action_map_tells_the_largest_error_of_the_newest_chunk(urdf):
    embodiment = robot(
        urdf, POSITION_FIRST, gripper=Gripper('gripper', open=1.0, closed=0.0))
    policy = replace(
        load_policy_file(shared_file('config', 'policies', 'franka.yaml')),
        used_channels=(0, 1, 2, 3, 4, 5, 6, 28))
    actions = make_action_map(embodiment, policy)
    assert actions.pose_error is None
    start = np.append(READY, 1.0)
    actions.begin(start)
    rows = actions.from_joints(np.repeat(start[None], 3, axis=0))
    np.testing.assert_allclose(actions.to_joints(rows, start), [start] * 3, atol=1e-4)
    assert max(actions.pose_error) < 1e-4
    rows[1, 1] += 0.05  # aside, in the same orientation
    joints = actions.to_joints(rows, start)
    arm = ArmKinematics(embodiment, embodiment.arms[0])
    aside = arm.forward(READY)
    aside[1, 3] += 0.05
    np.testing.assert_allclose(
        actions.pose_error, distances(arm, joints[1, :5], aside), atol=1e-6)
    assert actions.pose_error[1] > 0.1
    # What was executed comes back as what it is, for the memory.
    np.testing.assert_allclose(
        actions.from_joints(joints)[1, :3], arm.forward(joints[1, :5])[:3, 3], atol=1e-9)
