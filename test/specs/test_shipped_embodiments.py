"""
Every shipped embodiment against its vendor's joints and limits.

The vendors' packages are not installed where tests run; test/support/vendor_descriptions.py has
stand-ins.
"""

import json
from pathlib import Path
import re

import jsonschema
import numpy as np
import pytest
from support.vendor_descriptions import write_descriptions
import yaml

from lingbot_va_ros.resources import shared_file
from lingbot_va_ros.specs.embodiment import EmbodimentError, load_embodiment

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'reference' / 'embodiment_files.md'
VENDORS = (
    'dual_franka', 'single_fr3', 'ur5e_robotiq_2f85', 'ur10e', 'dual_viperx', 'piper', 'xarm6',
    'xarm7', 'kinova_gen3', 'so101', 'aloha_interbotix')
WITHOUT_GRIPPER = {'ur10e'}
SHIPPED = sorted(path.stem for path in shared_file('config', 'embodiments').glob('*.yaml'))


@pytest.fixture(scope='module')
def vendors(tmp_path_factory) -> Path:
    """Return an ament prefix with stand-ins for the vendors' description packages."""
    prefix = tmp_path_factory.mktemp('vendors')
    write_descriptions(prefix)
    return prefix


@pytest.fixture(scope='module')
def robots(vendors) -> dict:
    """Return every shipped embodiment by its name, loaded with the stand-ins."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('AMENT_PREFIX_PATH', str(vendors))
        return {name: load_embodiment(name) for name in SHIPPED}


@pytest.fixture
def installed(vendors, monkeypatch):
    """Let the stand-ins be found as installed packages are."""
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(vendors))
    return vendors


def test_the_arms_that_people_have_are_shipped():
    assert set(VENDORS) < set(SHIPPED)


@pytest.mark.parametrize('name', SHIPPED)
def test_it_fits_the_vendors_joints_and_limits(name, robots):
    embodiment = robots[name]
    assert embodiment.name == name
    limits = embodiment.limits
    assert (limits.lower <= embodiment.home).all() and (embodiment.home <= limits.upper).all()
    for values in (limits.velocity, limits.acceleration, limits.jerk):
        assert np.isfinite(values).all() and (values > 0).all()
    in_controllers = [joint for c in embodiment.controllers for joint in c.joints]
    assert sorted(in_controllers) == sorted(embodiment.joints)
    assert set(embodiment.cameras) == {'head'} | {f'{arm.side}_wrist' for arm in embodiment.arms}


@pytest.mark.parametrize('name', VENDORS)
def test_frames_are_named_and_speeds_are_low(name, robots):
    embodiment = robots[name]
    fastest = dict(zip(embodiment.joints, embodiment.limits.velocity))
    for arm in embodiment.arms:
        assert arm.base_frame and arm.tool_frame
        assert (arm.gripper is None) == (name in WITHOUT_GRIPPER)
        assert max(fastest[joint] for joint in arm.joints) <= 1.5


@pytest.mark.parametrize('name, packages', [
    ('dual_franka', ['franka_description']),
    ('ur5e_robotiq_2f85', ['ur_description', 'robotiq_description']),
    ('dual_viperx', ['interbotix_xsarm_descriptions']),
    ('piper', ['piper_description']),
    ('single_fr3', ['franka_description']), ('ur10e', ['ur_description']),
    ('xarm6', ['xarm_description', 'xarm_controller']), ('xarm7', ['xarm_description']),
    ('kinova_gen3', ['kortex_description', 'robotiq_description']),
    ('so101', ['so101_description']),
    ('aloha_interbotix', ['interbotix_xsarm_descriptions'])])
def test_a_missing_package_is_one_line_with_how_to_get_it(name, packages, monkeypatch, tmp_path):
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path))
    with pytest.raises(EmbodimentError) as caught:
        load_embodiment(name)
    line, = str(caught.value).splitlines()
    assert all(f"'{package}'" in line for package in packages)
    assert 'apt install' in line or ('clone' in line and 'https://github.com/' in line)


@pytest.mark.parametrize('name, topics', [
    ('ur5e_robotiq_2f85', ['/io_and_status_controller/robot_program_running',
                           '/io_and_status_controller/safety_mode']),
    ('dual_franka', ['left/franka_robot_state_broadcaster/robot_state',
                     'right/franka_robot_state_broadcaster/robot_state']),
    ('single_fr3', ['franka_robot_state_broadcaster/robot_state']),
    ('ur10e', ['/io_and_status_controller/robot_program_running',
               '/io_and_status_controller/safety_mode']),
    ('xarm6', ['xarm/robot_states'] * 2), ('xarm7', ['xarm/robot_states'] * 2),
    ('piper', ['arm_status'])])
def test_the_status_inputs_count_once_their_lines_are_no_comments(
        name, topics, robots, installed, tmp_path):
    assert not robots[name].status_inputs
    shipped = shared_file('config', 'embodiments', f'{name}.yaml').read_text()
    commented = re.search(r'^# status_inputs:\n(?:# .*\n)+', shipped, re.M)[0]
    path = tmp_path / f'{name}.yaml'
    path.write_text(shipped.replace(commented, re.sub('^# ', '', commented, flags=re.M)))
    found = load_embodiment(str(path)).status_inputs
    assert [status.topic for status in found] == topics
    page = (PAGE.parents[1] / 'how-to' / 'bring_up_your_arm.md').read_text()
    for status in found:
        assert status.topic.removeprefix('left/').removeprefix('right/') in page
        assert status.message_type in page and status.good


def test_grippers_whose_driver_has_only_an_action_get_one(robots):
    """An action needs control_msgs and goes by steps: the others do without."""
    with_action = {
        name for name, robot in robots.items()
        if any(c.kind == 'gripper_action' for c in robot.controllers)}
    assert with_action == {
        'dual_franka', 'single_fr3', 'xarm6', 'xarm7', 'kinova_gen3', 'so101'}


def test_arms_of_less_than_six_joints_have_pose_weights(robots):
    arms = [arm for robot in robots.values() for arm in robot.arms]
    assert any(len(arm.joints) == 5 for arm in arms)
    assert all((arm.pose_weights is not None) == (len(arm.joints) < 6) for arm in arms)


def test_a_following_error_is_below_the_controllers_tolerance(robots):
    for name, tolerance in (
            ('ur5e_robotiq_2f85', 0.1), ('ur10e', 0.1), ('xarm6', 0.1), ('xarm7', 0.1)):
        embodiment = robots[name]
        given = embodiment.limits.following_error[:len(embodiment.arms[0].joints)]
        assert (given < tolerance).all()


def test_a_ur10e_may_have_the_gripper_of_the_shipped_ur5e(installed, tmp_path):
    shipped = shared_file('config', 'embodiments', 'ur5e_robotiq_2f85.yaml').read_text()
    path = tmp_path / 'ur10e_2f85.yaml'
    path.write_text(shipped.replace(
        '  needs: [ur_d', '  arguments: {ur_type: ur10e}\n  needs: [ur_d'))
    assert 'velocity="2.0944"' in load_embodiment(str(path)).urdf.read_text()


def test_drivers_of_their_own_get_their_own_names(robots):
    aloha = robots['aloha_interbotix']
    assert [topic.our_names(['waist', 'gripper'])[0] for topic in aloha.joint_states] == [
        'left_waist', 'right_waist']
    arm, gripper, *_ = aloha.controllers
    assert (arm.kind, arm.group, len(arm.joints)) == ('joint_group', 'arm', 6)
    assert gripper.kind == 'joint_group' and gripper.group is None
    assert gripper.driver_names == ['gripper']
    piper, = robots['piper'].controllers
    assert piper.kind == 'joint_state' and not piper.velocities
    assert piper.driver_names[-1] == 'gripper'
    topic, = robots['piper'].joint_states
    assert topic.our_names(['joint1', 'gripper']) == ['joint1', 'joint7']


def test_two_arms_with_equal_joint_names_get_prefixes(robots):
    embodiment = robots['dual_viperx']
    assert embodiment.joints[0] == 'left_waist' and embodiment.joints[6] == 'right_waist'
    text = embodiment.urdf.read_text()
    assert '<mimic joint="left_left_finger"' in text and 'xyz="0.5 -0.25 0.0"' in text


def test_the_docs_tell_every_key():
    schema = json.loads(shared_file('config', 'schemas', 'embodiment.json').read_text())
    page = PAGE.read_text()

    def keys(node):
        if isinstance(node, dict):
            for name, value in node.items():
                if name == 'properties':
                    yield from value
                yield from keys(value)
        elif isinstance(node, list):
            for value in node:
                yield from keys(value)
    untold = {key for key in keys(schema) if not re.search(rf'\b{key}\b', page)}
    assert not untold
    assert all(f'`{name}`' in page for name in SHIPPED)


def test_the_files_in_the_docs_pass_the_schema():
    schema = json.loads(shared_file('config', 'schemas', 'embodiment.json').read_text())
    page = PAGE.read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r'```yaml\n(.*?)```', page, re.S)]
    assert sum('urdf' in block for block in blocks) == 3
    for block in blocks:
        if 'urdf' in block:
            jsonschema.validate(block['urdf'], {**schema['properties']['urdf'],
                                                '$defs': schema['$defs']})
