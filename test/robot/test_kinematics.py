"""Kinematics of the simulated arms: agreement with MuJoCo, inverse, limits, reach, continuity."""

import dataclasses
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st
import mujoco
import numpy as np
import pinocchio as pin
import pytest

from lingbot_va_ros.robot.kinematics import ArmKinematics, OutOfReach
from lingbot_va_ros.specs.embodiment import Arm, Embodiment, JointLimits, load_embodiment

HOME = np.array([0.0, 0.0, 1.8, 0.0, 1.34, 0.0])
WHERE = [('sim_left', 0), ('sim_right', 0), ('sim_dual', 0), ('sim_dual', 1)]


def make(name='sim_left', index=0):
    embodiment = load_embodiment(name)
    return ArmKinematics(embodiment, embodiment.arms[index])


ARM = make()


def smallest_singular_value(arm, joints):
    """Of the Jacobian by central differences of `forward`, independent of the solver's."""
    columns = []
    for index in range(len(joints)):
        small = 1e-6 * np.eye(len(joints))[index]
        after, before = arm.forward(joints + small), arm.forward(joints - small)
        columns.append(np.concatenate([
            after[:3, 3] - before[:3, 3], pin.log3(after[:3, :3] @ before[:3, :3].T)]) / 2e-6)
    return np.linalg.svd(np.stack(columns, 1))[1][-1]


def random_joints(arm, rng, margin=0.0):
    return rng.uniform(arm.lower + margin, arm.upper - margin)


@pytest.mark.parametrize('name, index', WHERE)
def test_forward_kinematics_is_that_of_mujoco(name, index):
    embodiment = load_embodiment(name)
    arm = ArmKinematics(embodiment, embodiment.arms[index])
    model = mujoco.MjModel.from_xml_path(str(embodiment.urdf))
    data = mujoco.MjData(model)
    places = [model.joint(joint).qposadr[0] for joint in arm.arm.joints]

    def seen_from_world(link):
        body = data.body(link)
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = body.xmat.reshape(3, 3), body.xpos
        return pose

    rng = np.random.default_rng(1)
    for _ in range(50):
        joints = random_joints(arm, rng)
        data.qpos[places] = joints
        mujoco.mj_kinematics(model, data)
        expected = np.linalg.inv(seen_from_world(arm.arm.base_frame)) @ seen_from_world(
            arm.arm.tool_frame)
        np.testing.assert_allclose(arm.forward(joints), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize('name, index', WHERE)
def test_joints_come_back_from_their_poses(name, index):
    arm = make(name, index)
    rng = np.random.default_rng(2)
    worst, tried = 0.0, 0
    while tried < 60:
        joints = random_joints(arm, rng)
        if smallest_singular_value(arm, joints) < 0.03:
            continue
        tried += 1
        seed = np.clip(joints + rng.uniform(-0.15, 0.15, joints.shape), arm.lower, arm.upper)
        found = arm.follow(arm.forward(joints)[None], seed)[0]
        worst = max(worst, np.abs(found - joints).max())
    assert worst < 1e-4


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(-0.4, 0.4), min_size=6, max_size=6),
    st.lists(st.floats(-0.4, 0.4), min_size=6, max_size=6), st.integers(4, 40))
def test_a_chunk_is_followed_on_one_branch(begin, way, count):
    part = np.linspace(0, 1, count)[:, None]
    joints = HOME + np.array(begin) + part * np.array(way)
    joints = np.clip(joints, ARM.lower, ARM.upper)
    found = ARM.follow(np.stack([ARM.forward(row) for row in joints]), joints[0])
    np.testing.assert_allclose(found, joints, rtol=0, atol=1e-4)


def test_steps_stay_small_along_a_straight_way():
    poses = np.repeat(ARM.forward(HOME)[None], 50, axis=0)
    poses[:, 1, 3] += np.linspace(-0.15, 0.15, 50)
    found = ARM.follow(poses, HOME)
    assert np.abs(np.diff(found, axis=0)).max() < 0.05
    reached = np.stack([ARM.forward(row) for row in found])
    np.testing.assert_allclose(reached, poses, rtol=0, atol=1e-6)


def test_a_far_first_pose_is_found_and_inside_the_limits():
    goal = np.array([1.2, 0.6, 1.2, -0.8, 0.9, 1.0])
    found = ARM.follow(ARM.forward(goal)[None], HOME)[0]
    assert (found >= ARM.lower).all() and (found <= ARM.upper).all()
    np.testing.assert_allclose(ARM.forward(found), ARM.forward(goal), rtol=0, atol=1e-5)


def test_an_unreachable_pose_is_reported_with_arm_action_and_distance():
    poses = np.repeat(ARM.forward(HOME)[None], 3, axis=0)
    poses[2, :3, 3] = [2.0, 0.0, 0.3]
    with pytest.raises(OutOfReach) as caught:
        ARM.follow(poses, HOME)
    text = str(caught.value)
    assert text.startswith('left arm, action 3 of 3: the pose xyz (2.0000, 0.0000, 0.3000) m, ')
    assert 'quaternion xyzw (' in text and 'is out of reach' in text and '\n' not in text
    left = float(text.split('out of reach; ')[1].split(' m')[0])
    assert 1.0 < left < 2.0


def test_a_joint_at_its_limit_is_named_and_never_passed():
    embodiment = load_embodiment('sim_left')
    upper = embodiment.limits.upper.copy()
    upper[0] = 0.1
    embodiment = dataclasses.replace(
        embodiment, limits=dataclasses.replace(embodiment.limits, upper=upper))
    arm = ArmKinematics(embodiment, ARM.arm)
    goal = HOME + [0.5, 0, 0, 0, 0, 0]
    with pytest.raises(OutOfReach, match=r'left_joint_1 at the limit'):
        arm.follow(arm.forward(goal)[None], HOME)


def test_while_one_joint_rests_at_its_limit_the_others_go_on():
    goal = HOME + [0.0, 0.1, 0.0, 0.05, 0.1, 0.2]
    goal[2] = ARM.upper[2]
    start = HOME + 0.1
    start[2] = ARM.upper[2]
    found = ARM.follow(ARM.forward(goal)[None], start)[0]
    np.testing.assert_allclose(found, goal, rtol=0, atol=1e-5)
    assert found[2] <= ARM.upper[2]


def test_a_stretched_arm_neither_fails_nor_jumps():
    stretched = np.array([0.3, 0.4, 0.0, 0.0, 0.0, 0.0])
    assert smallest_singular_value(ARM, stretched) < 1e-6
    poses = np.repeat(ARM.forward(stretched)[None], 5, axis=0)
    found = ARM.follow(poses, stretched + 0.05)
    assert np.isfinite(found).all()
    assert np.abs(np.diff(found, axis=0)).max() < 1e-3
    np.testing.assert_allclose(ARM.forward(found[-1])[:3, 3], poses[0][:3, 3], atol=1e-3)


def test_the_wrist_stays_on_its_branch():
    one = HOME + [0.0, 0.0, 0.0, 0.5, 0.0, 0.5]
    other = one.copy()
    other[[3, 4, 5]] = [0.5 - np.pi, -one[4], 0.5 - np.pi]
    np.testing.assert_allclose(ARM.forward(one), ARM.forward(other), rtol=0, atol=1e-12)
    poses = np.repeat(ARM.forward(one)[None], 3, axis=0)
    for branch in (one, other):
        np.testing.assert_allclose(
            ARM.follow(poses, branch + 0.05), [branch] * 3, rtol=0, atol=1e-5)


def test_a_jump_within_a_chunk_is_refused_and_named():
    far = HOME + [1.5, 0, 0, 0, 0, 0]
    poses = np.stack([ARM.forward(HOME), ARM.forward(far)])
    with pytest.raises(OutOfReach, match=r'action 2 of 2.*only with a jump: joint left_joint_1'):
        ARM.follow(poses, HOME)
    assert ARM.follow(poses[1:], HOME)[0][0] == pytest.approx(1.5, abs=1e-5)  # led there


SEVEN = [  # axis, offset along z to the joint before, m
    ('0 0 1', 0.3), ('0 1 0', 0.0), ('0 0 1', 0.3), ('0 1 0', 0.0), ('0 0 1', 0.3), ('0 1 0', 0.0),
    ('0 0 1', 0.1)]


def seven_jointed(tmp_path):
    """A redundant arm whose joints the embodiment lists in another order than the chain."""
    robot = ElementTree.Element('robot', name='seven')
    ElementTree.SubElement(robot, 'link', name='base')
    for index, (axis, offset) in enumerate(SEVEN, 1):
        ElementTree.SubElement(robot, 'link', name=f'link_{index}')
        joint = ElementTree.SubElement(robot, 'joint', name=f'joint_{index}', type='revolute')
        ElementTree.SubElement(
            joint, 'parent', link='base' if index == 1 else f'link_{index - 1}')
        ElementTree.SubElement(joint, 'child', link=f'link_{index}')
        ElementTree.SubElement(joint, 'origin', xyz=f'0 0 {offset}')
        ElementTree.SubElement(joint, 'axis', xyz=axis)
        ElementTree.SubElement(
            joint, 'limit', lower='-2.8', upper='2.8', velocity='2', effort='10')
    path = tmp_path / 'seven.urdf'
    ElementTree.ElementTree(robot).write(path)
    names = tuple(f'joint_{index}' for index in (7, 1, 2, 3, 4, 5, 6))
    limits = JointLimits(*(np.full(7, value) for value in (-2.8, 2.8, 2.0, 5.0, 50.0)))
    arm = Arm('right', names, base_frame='base', tool_frame='link_7')
    return Embodiment(
        name='seven', joints=names, limits=limits, home=np.zeros(7), arms=(arm,), controllers=(),
        cameras={}, urdf=path)


def test_a_redundant_arm_follows_with_small_steps_and_its_own_order_of_joints(tmp_path):
    embodiment = seven_jointed(tmp_path)
    arm = ArmKinematics(embodiment, embodiment.arms[0])
    begin = np.array([0.3, 0.2, 0.7, -0.4, 1.1, 0.5, 0.8])
    turned = begin + [0.5, 0, 0, 0, 0, 0, 0]  # the last joint of the chain: position stays
    np.testing.assert_allclose(arm.forward(turned)[:3, 3], arm.forward(begin)[:3, 3], atol=1e-12)
    poses = np.repeat(arm.forward(begin)[None], 40, axis=0)
    poses[:, 0, 3] -= np.linspace(0, 0.1, 40)
    found = arm.follow(poses, begin)
    assert np.abs(np.diff(found, axis=0)).max() < 0.05
    np.testing.assert_allclose(np.stack([arm.forward(q) for q in found]), poses, atol=1e-6)


def test_frames_that_are_missing_are_named():
    embodiment = load_embodiment('sim_left')
    bare = dataclasses.replace(embodiment.arms[0], base_frame=None, tool_frame=None)
    with pytest.raises(ValueError, match='left arm has no base_frame and no tool_frame'):
        ArmKinematics(embodiment, bare)


def test_joints_that_are_not_the_chain_are_named():
    embodiment = load_embodiment('sim_left')
    short = dataclasses.replace(
        embodiment.arms[0], base_frame='left_base_link', tool_frame='left_forearm')
    with pytest.raises(ValueError, match='exactly the joints.*missing: .*left_joint_6'):
        ArmKinematics(embodiment, short)


def test_an_endless_joint_is_an_ordinary_one(tmp_path):
    embodiment = load_embodiment('sim_left')
    tree = ElementTree.parse(embodiment.urdf)
    joint = tree.getroot().find("joint[@name='left_joint_6']")
    joint.set('type', 'continuous')
    joint.remove(joint.find('limit'))
    path = tmp_path / 'endless.urdf'
    tree.write(path)
    arm = ArmKinematics(dataclasses.replace(embodiment, urdf=path), embodiment.arms[0])
    joints = HOME + 0.1
    np.testing.assert_allclose(arm.forward(joints), ARM.forward(joints), rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        arm.follow(arm.forward(joints)[None], HOME)[0], joints, rtol=0, atol=1e-6)
