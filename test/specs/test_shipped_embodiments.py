"""
Every shipped embodiment against its vendor's joints and limits.

The vendors' packages are not installed where tests run, so stand-ins are written here: packages
with files, macros, joint names and limits as the vendors document them.
"""

import json
import math
from pathlib import Path
import re

import jsonschema
import numpy as np
import pytest
import yaml

from lingbot_va_ros.resources import shared_file
from lingbot_va_ros.specs.embodiment import EmbodimentError, load_embodiment

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'reference' / 'embodiment_files.md'
VENDORS = ('dual_franka', 'ur5e_robotiq_2f85', 'dual_viperx', 'piper')
SHIPPED = sorted(path.stem for path in shared_file('config', 'embodiments').glob('*.yaml'))

XACRO = 'xmlns:xacro="http://www.ros.org/wiki/xacro"'
DEGREE = math.pi / 180
# name: (type, lower, upper, velocity); rad and rad/s, m and m/s for prismatic joints.
FR3 = {
    'joint1': ('revolute', -2.7437, 2.7437, 2.62), 'joint2': ('revolute', -1.7837, 1.7837, 2.62),
    'joint3': ('revolute', -2.9007, 2.9007, 2.62), 'joint4': ('revolute', -3.0421, -0.1518, 2.62),
    'joint5': ('revolute', -2.8065, 2.8065, 5.26), 'joint6': ('revolute', 0.5445, 4.5169, 4.18),
    'joint7': ('revolute', -3.0159, 3.0159, 5.26)}
FRANKA_FINGER = ('prismatic', 0.0, 0.04, 0.2)
UR5E = {
    name: ('revolute', -reach * DEGREE, reach * DEGREE, math.pi) for name, reach in (
        ('shoulder_pan_joint', 360), ('shoulder_lift_joint', 360), ('elbow_joint', 180),
        ('wrist_1_joint', 360), ('wrist_2_joint', 360), ('wrist_3_joint', 360))}
KNUCKLE = ('revolute', 0.0, 0.8, 0.5)
VX300S = {
    'waist': ('revolute', -math.pi + 1e-5, math.pi - 1e-5, math.pi),
    'shoulder': ('revolute', -106 * DEGREE, 72 * DEGREE, math.pi),
    'elbow': ('revolute', -101 * DEGREE, 92 * DEGREE, math.pi),
    'forearm_roll': ('revolute', -math.pi + 1e-5, math.pi - 1e-5, math.pi),
    'wrist_angle': ('revolute', -107 * DEGREE, 128 * DEGREE, math.pi),
    'wrist_rotate': ('revolute', -math.pi + 1e-5, math.pi - 1e-5, math.pi)}
PIPER = {
    'joint1': ('revolute', -2.618, 2.618, 5), 'joint2': ('revolute', 0, 3.14, 5),
    'joint3': ('revolute', -2.967, 0, 5), 'joint4': ('revolute', -1.745, 1.745, 5),
    'joint5': ('revolute', -1.22, 1.22, 5), 'joint6': ('revolute', -2.0944, 2.0944, 3)}


def chain(base, joints, last, prefix='', link=lambda name: name):
    """Return the XML of links and joints in a row, from link `base` to link `last`."""
    xml, parent = [], base
    for index, (name, (kind, lower, upper, velocity)) in enumerate(joints.items()):
        child = last if index == len(joints) - 1 else link(f'after_{prefix}{name}')
        xml.append(f'<link name="{child}"/>' + joint(
            prefix + name, kind, parent, child, lower, upper, velocity))
        parent = child
    return ''.join(xml)


def joint(name, kind, parent, child, lower=0, upper=0, velocity=0, more=''):
    """Return the XML of one joint."""
    return (
        f'<joint name="{name}" type="{kind}"><parent link="{parent}"/><child link="{child}"/>'
        f'<origin xyz="0.1 0 0"/><axis xyz="0 0 1"/>'
        f'<limit lower="{lower}" upper="{upper}" velocity="{velocity}" effort="1"/>{more}</joint>')


def fr3_duo():
    """Return both arms, each with a hand, by the arguments' names of franka_description 1."""
    xml = ['<xacro:arg name="arm_ids" default="[]"/>'
           '<xacro:property name="ids" value="${$(arg arm_ids)}"/><link name="base"/>']
    for index, side in enumerate(('left', 'right')):
        arm = f'{side}_${{ids[{index}]}}_'
        first, hand = f'{arm}link0', f'{arm}hand_tcp'
        xml.append(f'<link name="{first}"/>' + joint(f'{side}_base_joint', 'fixed', 'base', first))
        xml.append(chain(first, FR3, hand, arm))
        for number, more in ((1, ''), (2, f'<mimic joint="{arm}finger_joint1"/>')):
            finger = f'{arm}finger{number}'
            xml.append(f'<link name="{finger}"/>' + joint(
                f'{arm}finger_joint{number}', FRANKA_FINGER[0], hand, finger, *FRANKA_FINGER[1:],
                more))
    return f'<robot name="fr3_duo" {XACRO}>{"".join(xml)}</robot>'


def ur_macro():
    """Return the macro of the arm; it reads the limits' file that it is given, as the real one."""
    return (
        f'<robot {XACRO}><xacro:macro name="ur_robot" params="name tf_prefix parent *origin '
        'joint_limits_parameters_file kinematics_parameters_file physical_parameters_file '
        'visual_parameters_file"><xacro:property name="limits" '
        'value="${xacro.load_yaml(joint_limits_parameters_file)}"/>'
        '<link name="${tf_prefix}base_link"/><joint name="${tf_prefix}base_joint" type="fixed">'
        '<xacro:insert_block name="origin"/><parent link="${parent}"/>'
        '<child link="${tf_prefix}base_link"/></joint>'
        + chain('${tf_prefix}base_link', UR5E, '${tf_prefix}tool0', '${tf_prefix}')
        + '</xacro:macro></robot>')


def adapter_macro():
    """Return the macro of the plate between arm and gripper."""
    return (
        f'<robot {XACRO}><xacro:macro name="ur_to_robotiq" params="prefix parent child '
        'rotation:=^|${0.0}"><link name="${child}"/>'
        + joint('${prefix}gripper_side_joint', 'fixed', '${parent}', '${child}')
        + '</xacro:macro></robot>')


def gripper_macro():
    """Return the macro of the gripper, with one of the joints that mimic the first."""
    base, left = '${prefix}robotiq_85_base_link', '${prefix}robotiq_85_left_knuckle_joint'
    return (
        f'<robot {XACRO}><xacro:macro name="robotiq_gripper" params="name prefix parent *origin '
        f'include_ros2_control:=true"><link name="{base}"/><joint name="${{prefix}}robotiq_base" '
        f'type="fixed"><xacro:insert_block name="origin"/><parent link="${{parent}}"/>'
        f'<child link="{base}"/></joint><link name="left"/><link name="right"/>'
        + joint(left, KNUCKLE[0], base, 'left', *KNUCKLE[1:])
        + joint('${prefix}robotiq_85_right_knuckle_joint', 'revolute', base, 'right', -0.8, 0,
                0.5, f'<mimic joint="{left}" multiplier="-1"/>')
        + '</xacro:macro></robot>')


def vx300s():
    """Return one arm as Interbotix has it: links with the robot's name, joints without."""
    def link(name):
        return f'$(arg robot_name)/{name}'
    xml = [f'<xacro:arg name="robot_name" default="x"/><link name="{link("base_link")}"/>',
           chain(link('base_link'), VX300S, link('ee_gripper_link'), link=link)]
    for finger, limits, more in (
            ('left_finger', (0.021, 0.057), ''),
            ('right_finger', (-0.057, -0.021), '<mimic joint="left_finger" multiplier="-1"/>')):
        xml.append(f'<link name="{link(finger)}_link"/>' + joint(
            finger, 'prismatic', link('ee_gripper_link'), link(finger) + '_link', *limits, 1,
            more))
    return f'<robot name="vx300s" {XACRO}>{"".join(xml)}</robot>'


def piper():
    """Return the arm with its two fingers, neither of which mimics the other."""
    fingers = ''.join(
        f'<link name="{child}"/>' + joint(name, 'prismatic', 'link6', child, lower, upper, 1)
        for name, child, lower, upper in (
            ('joint7', 'link7', 0, 0.035), ('joint8', 'link8', -0.035, 0)))
    return (f'<robot name="piper"><link name="base_link"/>{chain("base_link", PIPER, "link6")}'
            f'{fingers}</robot>')


@pytest.fixture(scope='module')
def vendors(tmp_path_factory) -> Path:
    """Return an ament prefix with stand-ins for the vendors' description packages."""
    prefix = tmp_path_factory.mktemp('vendors')
    files = {
        'franka_description/robots/fr3_duo/fr3_duo.urdf.xacro': fr3_duo(),
        'ur_description/urdf/ur_macro.xacro': ur_macro(),
        'robotiq_description/urdf/ur_to_robotiq_adapter.urdf.xacro': adapter_macro(),
        'robotiq_description/urdf/robotiq_2f_85_macro.urdf.xacro': gripper_macro(),
        'interbotix_xsarm_descriptions/urdf/aloha_vx300s.urdf.xacro': vx300s(),
        'piper_description/urdf/piper_description.urdf': piper()}
    files.update({
        f'ur_description/config/ur5e/{name}.yaml': 'a: 1\n' for name in (
            'joint_limits', 'default_kinematics', 'physical_parameters', 'visual_parameters')})
    index = prefix / 'share' / 'ament_index' / 'resource_index' / 'packages'
    index.mkdir(parents=True)
    for name, text in files.items():
        path = prefix / 'share' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        (index / name.split('/')[0]).write_text('')
    return prefix


@pytest.fixture
def installed(vendors, monkeypatch):
    """Let the stand-ins be found as installed packages are."""
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(vendors))
    return vendors


def test_the_arms_that_people_have_are_shipped():
    assert set(VENDORS) < set(SHIPPED)


@pytest.mark.parametrize('name', SHIPPED)
def test_it_fits_the_vendors_joints_and_limits(name, installed):
    embodiment = load_embodiment(name)
    assert embodiment.name == name
    limits = embodiment.limits
    assert (limits.lower <= embodiment.home).all() and (embodiment.home <= limits.upper).all()
    for values in (limits.velocity, limits.acceleration, limits.jerk):
        assert np.isfinite(values).all() and (values > 0).all()
    in_controllers = [joint for c in embodiment.controllers for joint in c.joints]
    assert sorted(in_controllers) == sorted(embodiment.joints)
    assert set(embodiment.cameras) == {'head'} | {f'{arm.side}_wrist' for arm in embodiment.arms}


@pytest.mark.parametrize('name', VENDORS)
def test_frames_are_named_and_speeds_are_low(name, installed):
    embodiment = load_embodiment(name)
    fastest = dict(zip(embodiment.joints, embodiment.limits.velocity))
    for arm in embodiment.arms:
        assert arm.base_frame and arm.tool_frame and arm.gripper
        assert max(fastest[joint] for joint in arm.joints) <= 1.5


@pytest.mark.parametrize('name, packages', [
    ('dual_franka', ['franka_description']),
    ('ur5e_robotiq_2f85', ['ur_description', 'robotiq_description']),
    ('dual_viperx', ['interbotix_xsarm_descriptions']),
    ('piper', ['piper_description'])])
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
                     'right/franka_robot_state_broadcaster/robot_state'])])
def test_the_status_inputs_count_once_their_lines_are_no_comments(
        name, topics, installed, tmp_path):
    assert not load_embodiment(name).status_inputs
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


def test_only_the_franka_hand_needs_an_action(installed):
    """An action needs control_msgs and goes by steps: the others do without."""
    with_action = {
        name for name in SHIPPED
        if any(c.kind == 'gripper_action' for c in load_embodiment(name).controllers)}
    assert with_action == {'dual_franka'}


def test_two_arms_with_equal_joint_names_get_prefixes(installed):
    embodiment = load_embodiment('dual_viperx')
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
