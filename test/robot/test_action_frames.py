"""The four action frames on the simulated arms: joints to end effectors and back."""

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from transforms3d.axangles import axangle2mat

from lingbot_va_ros.resources import shared_file
from lingbot_va_ros.robot.action_map import JointActionMap, make_action_map
from lingbot_va_ros.robot.kinematics import ArmKinematics
from lingbot_va_ros.robot.poses import PoseError, quaternion_of, rotation_of
from lingbot_va_ros.specs.embodiment import load_embodiment
from lingbot_va_ros.specs.policy_file import DeltaScale, load_policy_file

DUAL, LEFT = load_embodiment('sim_dual'), load_embodiment('sim_left')
HOME = {'sim_dual': DUAL.home, 'sim_left': LEFT.home}
IDENTITY = [0.0, 0.0, 0.0, 1.0]
OPEN = 1.0


def policy(name, **changes):
    return dataclasses.replace(
        load_policy_file(shared_file('config', 'policies', f'{name}.yaml')), **changes)


ROBOTWIN, FRANKA, LIBERO = policy('robotwin'), policy('franka'), policy('libero')


def tool(embodiment, index, joints):
    arm = embodiment.arms[index]
    columns = [embodiment.joints.index(joint) for joint in arm.joints]
    return ArmKinematics(embodiment, arm).forward(np.asarray(joints)[columns])


def motion(embodiment, count, seed=0, size=0.25):
    """Return a smooth motion [count, J] that begins near home, grippers closing half."""
    rng = np.random.default_rng(seed)
    joints = np.repeat(embodiment.home[None], count, axis=0)
    part = np.linspace(0, 1, count)[:, None]
    arms = sum(len(arm.joints) for arm in embodiment.arms)
    joints[:, :arms] += 0.1 + part * rng.uniform(-size, size, arms)
    joints[:, arms:] *= 1 - 0.5 * part
    return joints


@pytest.mark.parametrize('frame, embodiment, chosen', [
    ('eef_relative', DUAL, ROBOTWIN), ('eef_absolute', DUAL, FRANKA),
    ('eef_absolute', LEFT, policy('franka', used_channels=(0, 1, 2, 3, 4, 5, 6, 28))),
    ('eef_delta', LEFT, LIBERO),
    ('eef_delta', DUAL, policy('libero', used_channels=tuple(range(14))))])
def test_joints_come_back_from_their_actions(frame, embodiment, chosen):
    assert chosen.action_frame == frame
    action_map = make_action_map(embodiment, chosen)
    joints = motion(embodiment, 16)
    action_map.begin(embodiment.home)
    actions = action_map.from_joints(joints, embodiment.home)
    assert actions.shape == (16, len(chosen.used_channels))
    np.testing.assert_allclose(
        action_map.to_joints(actions, embodiment.home), joints, rtol=0, atol=1e-4)


def test_joint_actions_need_no_episode_and_no_start():
    joints = make_action_map(LEFT, policy('untrained'))
    assert isinstance(joints, JointActionMap)
    joints.begin(LEFT.home)
    row = np.append(LEFT.home[:6], OPEN)[None]
    np.testing.assert_allclose(joints.to_joints(row, LEFT.home), LEFT.home[None])


def test_a_relative_pose_by_hand():
    # Left: 3 cm ahead and 1 cm up; a quarter turn about the tool's own z axis, on the right of
    # the initial rotation. Right: stays.
    action_map = make_action_map(DUAL, ROBOTWIN)
    start = DUAL.home.copy()
    start[:6] += 0.1
    action_map.begin(start)
    half = np.sqrt(0.5)
    left = [0.03, 0.0, 0.01, 0.0, 0.0, half, half, 0.25]
    right = [0.0, 0.0, 0.0, *IDENTITY, OPEN]
    joints = action_map.to_joints(np.array([left + right]), start)[0]

    initial, reached = tool(DUAL, 0, start), tool(DUAL, 0, joints)
    np.testing.assert_allclose(
        reached[:3, 3] - initial[:3, 3], [0.03, 0.0, 0.01], rtol=0, atol=1e-6)
    # A quarter turn about z takes the tool's x axis to where its y axis was, y to minus x.
    np.testing.assert_allclose(reached[:3, 0], initial[:3, 1], rtol=0, atol=1e-6)
    np.testing.assert_allclose(reached[:3, 1], -initial[:3, 0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(joints[6:12], start[6:12], rtol=0, atol=1e-6)
    grippers = [DUAL.joints.index(f'{side}_gripper_joint') for side in ('left', 'right')]
    np.testing.assert_allclose(joints[grippers], [0.01, 0.04])


def test_relative_poses_stay_relative_to_the_begin_of_the_episode():
    action_map = make_action_map(DUAL, ROBOTWIN)
    action_map.begin(DUAL.home)
    ahead = np.array([[0.02, 0.0, 0.0, *IDENTITY, OPEN, 0.0, 0.0, 0.0, *IDENTITY, OPEN]])
    first = action_map.to_joints(ahead, DUAL.home)
    again = action_map.to_joints(ahead, first[0])
    np.testing.assert_allclose(again, first, rtol=0, atol=1e-5)
    action_map.begin(first[0])
    further = action_map.to_joints(ahead, first[0])
    assert tool(DUAL, 0, further[0])[0, 3] == pytest.approx(
        tool(DUAL, 0, DUAL.home)[0, 3] + 0.04, abs=1e-6)


def test_the_begin_of_an_episode_is_no_motion_and_the_identity():
    action_map = make_action_map(DUAL, ROBOTWIN)
    action_map.begin(DUAL.home)
    np.testing.assert_allclose(
        action_map.from_joints(DUAL.home[None]),
        [[0, 0, 0, *IDENTITY, OPEN, 0, 0, 0, *IDENTITY, OPEN]], rtol=0, atol=1e-7)


def test_an_absolute_pose_is_that_of_the_tool_in_the_base():
    action_map = make_action_map(DUAL, FRANKA)
    action_map.begin(DUAL.home)
    row = action_map.from_joints(DUAL.home[None])[0]
    pose = tool(DUAL, 1, DUAL.home)
    np.testing.assert_allclose(row[8:11], pose[:3, 3])
    np.testing.assert_allclose(rotation_of(row[11:15]), pose[:3, :3], atol=1e-12)


def test_a_delta_by_hand():
    # robosuite: 1 is 5 cm or half a radian; axes of the base, turns on the left; gripper 1 closes.
    action_map = make_action_map(LEFT, LIBERO)
    deltas = np.array([[0.2, 0, 0.4, 0, 0, 0.1, -1.0], [0.2, 0, 0, 0, 0, 0.1, 1.0]])
    joints = action_map.to_joints(deltas, LEFT.home)
    before = tool(LEFT, 0, LEFT.home)
    after = [tool(LEFT, 0, row) for row in joints]
    np.testing.assert_allclose(after[0][:3, 3] - before[:3, 3], [0.01, 0, 0.02], atol=1e-6)
    np.testing.assert_allclose(after[1][:3, 3] - before[:3, 3], [0.02, 0, 0.02], atol=1e-6)
    np.testing.assert_allclose(
        after[1][:3, :3], axangle2mat([0, 0, 1], 0.1) @ before[:3, :3], atol=1e-6)
    np.testing.assert_allclose(joints[:, -1], [0.04, 0.0])


def test_deltas_beyond_one_are_clipped_and_the_scale_is_the_policys():
    action_map = make_action_map(LEFT, policy('libero', delta_scale=DeltaScale(0.01, 0.1)))
    far = np.array([[7.0, 0, 0, 0, 0, 0, 0]])
    moved = tool(LEFT, 0, action_map.to_joints(far, LEFT.home)[0])[:3, 3]
    np.testing.assert_allclose(moved - tool(LEFT, 0, LEFT.home)[:3, 3], [0.01, 0, 0], atol=1e-6)


def test_the_executed_deltas_count_from_the_joints_before():
    action_map = make_action_map(LEFT, LIBERO)
    resting = np.repeat(LEFT.home[None], 3, axis=0)
    np.testing.assert_allclose(
        action_map.from_joints(resting, LEFT.home)[:, :6], np.zeros((3, 6)), atol=1e-9)
    with pytest.raises(ValueError, match='joint positions before'):
        action_map.from_joints(resting)


def test_a_pose_that_cannot_be_taken_names_the_arm_the_action_and_the_pose():
    action_map = make_action_map(DUAL, ROBOTWIN)
    action_map.begin(DUAL.home)
    rows = np.array([[0.0, 0, 0, *IDENTITY, OPEN] * 2] * 3)
    rows[1, 8] = -3.0
    with pytest.raises(PoseError, match=r'^right arm, action 2 of 3: the pose xyz \(-2\.7'):
        action_map.to_joints(rows, DUAL.home)
    rows[1] = [0.0, 0, 0, 0, 0, 0, 0.001, OPEN] * 2
    with pytest.raises(PoseError, match=r'^left arm, action 2 of 3: the quaternion .* length'):
        action_map.to_joints(rows, DUAL.home)


def test_a_quaternion_of_any_length_and_sign_means_the_same():
    action_map = make_action_map(DUAL, ROBOTWIN)
    action_map.begin(DUAL.home)
    rows = np.array([[0.02, 0, 0, 0.0, 0.1, 0.0, 1.0, OPEN] * 2] * 3)
    rows[1, 3:7] *= -1
    rows[2, 3:7] *= 1.3
    joints = action_map.to_joints(rows, DUAL.home)
    np.testing.assert_allclose(joints[1:], joints[:1].repeat(2, 0), rtol=0, atol=1e-6)


def test_quaternions_keep_their_sign_from_chunk_to_chunk():
    action_map = make_action_map(DUAL, ROBOTWIN)
    action_map.begin(DUAL.home)
    column = [joint.endswith('joint_6') for joint in DUAL.joints]
    turn = np.repeat(DUAL.home[None], 60, axis=0)
    turn[:, column] += np.linspace(-2.8, 2.8, 60)[:, None]
    written = np.concatenate(
        [action_map.from_joints(part) for part in (turn[:25], turn[25:40], turn[40:])])
    for first in (3, 11):
        steps = np.abs(np.diff(written[:, first:first + 4], axis=0))
        assert steps.max() < 0.06


def test_a_first_quaternion_lies_on_the_side_of_the_training_data():
    # The left tool of the shipped ranges points down with x positive, w around zero.
    action_map = make_action_map(DUAL, FRANKA)
    action_map.begin(DUAL.home)
    middle = (FRANKA.q01 + FRANKA.q99)[[3, 4, 5, 6]] / 2
    assert action_map.from_joints(DUAL.home[None])[0][3:7] @ middle > 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(
    lambda numbers: np.linalg.norm(numbers) > 0.2))
def test_quaternions_and_rotations_are_each_others_inverse(numbers):
    quaternion = np.array(numbers) / np.linalg.norm(numbers)
    rotation = rotation_of(3 * quaternion)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(quaternion_of(rotation, quaternion), quaternion, atol=1e-7)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.floats(-0.3, 0.3), min_size=6, max_size=6),
    st.lists(st.floats(-1, 1), min_size=6, max_size=6), st.floats(-1, 1))
def test_deltas_come_back_as_they_were(begin, delta, gripper):
    action_map = make_action_map(LEFT, LIBERO)
    start = LEFT.home.copy()
    start[:6] += begin
    row = np.array([*delta, gripper]) * [0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 1.0]
    actions = np.repeat(row[None], 2, axis=0)
    joints = action_map.to_joints(actions, start)
    np.testing.assert_allclose(
        action_map.from_joints(joints, start), actions, rtol=0, atol=1e-3)


def test_every_channel_that_does_not_fit_is_named_at_once():
    with pytest.raises(ValueError) as caught:
        make_action_map(LEFT, policy('robotwin', used_channels=(0, 1, 2, 3, 4, 5, 7, 28)))
    text = str(caught.value)
    assert 'channels without a joint: [7]' in text and 'left quaternion w (channel 6)' in text
    with pytest.raises(ValueError, match=r'left_gripper_joint \(channel 6\)'):
        make_action_map(LEFT, policy('libero', used_channels=(0, 1, 2, 3, 4, 5)))


def test_an_arm_without_frames_is_named():
    bare = dataclasses.replace(LEFT.arms[0], tool_frame=None)
    with pytest.raises(ValueError, match='left arm has no tool_frame'):
        make_action_map(dataclasses.replace(LEFT, arms=(bare,)), LIBERO)
