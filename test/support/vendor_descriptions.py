"""
Stand-ins for the vendors' description packages, which are not installed where tests run.

Packages with files, macros, arguments, joint names and limits as the vendors document them.
"""

import math
from pathlib import Path

XACRO = 'xmlns:xacro="http://www.ros.org/wiki/xacro"'
DEGREE = math.pi / 180
# name: (type, lower, upper, velocity); rad and rad/s, m and m/s for prismatic joints.
FR3 = {
    'joint1': ('revolute', -2.7437, 2.7437, 2.62), 'joint2': ('revolute', -1.7837, 1.7837, 2.62),
    'joint3': ('revolute', -2.9007, 2.9007, 2.62), 'joint4': ('revolute', -3.0421, -0.1518, 2.62),
    'joint5': ('revolute', -2.8065, 2.8065, 5.26), 'joint6': ('revolute', 0.5445, 4.5169, 4.18),
    'joint7': ('revolute', -3.0159, 3.0159, 5.26)}
FRANKA_FINGER = ('prismatic', 0.0, 0.04, 0.2)
UR_REACH = {
    'shoulder_pan_joint': 360, 'shoulder_lift_joint': 360, 'elbow_joint': 180,
    'wrist_1_joint': 360, 'wrist_2_joint': 360, 'wrist_3_joint': 360}
UR5E = {name: ('revolute', -reach * DEGREE, reach * DEGREE, math.pi)
        for name, reach in UR_REACH.items()}
UR10E = {
    name: (*joint[:3], 120 * DEGREE if name.startswith('shoulder') else math.pi)
    for name, joint in UR5E.items()}
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
# With `limited`: 178.2 degrees in place of 360.
XARM_TURN = 0.99 * math.pi
XARM6 = {
    f'joint{number}': ('revolute', lower, upper, 3.14) for number, lower, upper in (
        (1, -XARM_TURN, XARM_TURN), (2, -2.059, 2.0944), (3, -XARM_TURN, 0.19198),
        (4, -XARM_TURN, XARM_TURN), (5, -1.69297, XARM_TURN), (6, -XARM_TURN, XARM_TURN))}
XARM7 = {
    f'joint{number}': ('revolute', lower, upper, 3.14) for number, lower, upper in (
        (1, -XARM_TURN, XARM_TURN), (2, -2.18, 2.18), (3, -XARM_TURN, XARM_TURN),
        (4, -0.11, XARM_TURN), (5, -XARM_TURN, XARM_TURN), (6, -1.75, XARM_TURN),
        (7, -XARM_TURN, XARM_TURN))}
XARM_GRIPPER = ('revolute', 0, 0.85, 2)
GEN3 = {
    f'joint_{number}': (
        'continuous' if reach is None else 'revolute', -(reach or 0), reach or 0, velocity)
    for number, reach, velocity in (
        (1, None, 1.3963), (2, 2.24, 1.3963), (3, None, 1.3963), (4, 2.57, 1.3963),
        (5, None, 1.2218), (6, 2.09, 1.2218), (7, None, 1.2218))}
SO101 = {
    'shoulder_pan': ('revolute', -1.91986, 1.91986, 10),
    'shoulder_lift': ('revolute', -1.74533, 1.74533, 10),
    'elbow_flex': ('revolute', -1.69, 1.69, 10), 'wrist_flex': ('revolute', -1.65806, 1.65806, 10),
    'wrist_roll': ('revolute', -2.74385, 2.84121, 10)}
SO101_GRIPPER = ('revolute', -0.174533, 1.74533, 10)


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
    ends = '' if kind == 'continuous' else f'lower="{lower}" upper="{upper}" '
    return (
        f'<joint name="{name}" type="{kind}"><parent link="{parent}"/><child link="{child}"/>'
        f'<origin xyz="0.1 0 0"/><axis xyz="0 0 1"/>'
        f'<limit {ends}velocity="{velocity}" effort="1"/>{more}</joint>')


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


def fr3():
    """Return one arm; its hand is left out where `hand` is false."""
    finger = '<mimic joint="fr3_finger_joint1"/>'
    hand = ''.join(
        f'<link name="fr3_finger{number}"/>' + joint(
            f'fr3_finger_joint{number}', FRANKA_FINGER[0], 'fr3_hand_tcp', f'fr3_finger{number}',
            *FRANKA_FINGER[1:], finger if number == 2 else '') for number in (1, 2))
    return (
        f'<robot name="fr3" {XACRO}><xacro:arg name="hand" default="false"/><link name="base"/>'
        '<link name="fr3_link0"/>' + joint('fr3_base_joint', 'fixed', 'base', 'fr3_link0')
        + chain('fr3_link0', FR3, 'fr3_hand_tcp', 'fr3_')
        + f'<xacro:if value="$(arg hand)">{hand}</xacro:if></robot>')


def ur():
    """Return one arm of the type that it is told."""
    arms = ''.join(
        f'<xacro:if value="${{\'$(arg ur_type)\' == \'{kind}\'}}">'
        + chain('base_link', joints, 'tool0') + '</xacro:if>'
        for kind, joints in (('ur5e', UR5E), ('ur10e', UR10E)))
    return (
        f'<robot name="$(arg name)" {XACRO}><xacro:arg name="ur_type" default="ur5x"/>'
        '<xacro:arg name="name" default="ur"/><link name="world"/><link name="base_link"/>'
        + joint('base_joint', 'fixed', 'world', 'base_link') + f'{arms}</robot>')


def xarm():
    """Return the arm with as many joints as `dof` says, with its gripper."""
    arms = ''.join(
        f'<xacro:if value="$(arg limited)"><xacro:if value="${{$(arg dof) == {len(joints)}}}">'
        + chain('link_base', joints, 'link_eef') + '</xacro:if></xacro:if>'
        for joints in (XARM6, XARM7))
    return (
        f'<robot name="UF_ROBOT" {XACRO}><xacro:arg name="dof" default="7"/>'
        '<xacro:arg name="limited" default="false"/><xacro:arg name="robot_type" default="x"/>'
        '<xacro:arg name="add_gripper" default="false"/><link name="world"/>'
        '<link name="link_base"/>' + joint('world_joint', 'fixed', 'world', 'link_base') + arms
        + '<xacro:if value="$(arg add_gripper)"><link name="link_tcp"/><link name="left"/>'
        '<link name="right"/>' + joint('joint_tcp', 'fixed', 'link_eef', 'link_tcp')
        + joint('drive_joint', XARM_GRIPPER[0], 'link_eef', 'left', *XARM_GRIPPER[1:])
        + joint('right_outer_knuckle_joint', XARM_GRIPPER[0], 'link_eef', 'right',
                *XARM_GRIPPER[1:], '<mimic joint="drive_joint"/>') + '</xacro:if></robot>')


def gen3():
    """Return the arm of seven joints with the gripper that `gripper` names."""
    return (
        f'<robot name="gen3" {XACRO}><xacro:arg name="arm" default="gen3"/>'
        '<xacro:arg name="dof" default=""/><xacro:arg name="gripper" default=""/>'
        '<xacro:arg name="gripper_joint_name" default="finger_joint"/><link name="base_link"/>'
        '<xacro:if value="${$(arg dof) == 7}">' + chain('base_link', GEN3, 'end_effector_link')
        + '</xacro:if><xacro:if value="${\'$(arg gripper)\' == \'robotiq_2f_85\'}">'
        '<link name="knuckle"/>'
        + joint('robotiq_85_left_knuckle_joint', KNUCKLE[0], 'end_effector_link', 'knuckle',
                *KNUCKLE[1:]) + '</xacro:if></robot>')


def so101():
    """Return the arm with the follower's gripper."""
    return (
        f'<robot name="so101_arm" {XACRO}><xacro:arg name="variant" default="leader"/>'
        '<link name="base_link"/>' + chain('base_link', SO101, 'gripper_link')
        + '<link name="gripper_frame_link"/>'
        + joint('gripper_frame_joint', 'fixed', 'gripper_link', 'gripper_frame_link')
        + '<xacro:if value="${\'$(arg variant)\' == \'follower\'}"><link name="jaw"/>'
        + joint('gripper', SO101_GRIPPER[0], 'gripper_link', 'jaw', *SO101_GRIPPER[1:])
        + '</xacro:if></robot>')


def ur_macro():
    """Return the macro of the arm; it reads the limits' file that it is given, as the real one."""
    joints = {**UR5E, 'shoulder_pan_joint': (
        *UR5E['shoulder_pan_joint'][:3], "${limits['shoulder_velocity']}")}
    return (
        f'<robot {XACRO}><xacro:macro name="ur_robot" params="name tf_prefix parent *origin '
        'joint_limits_parameters_file kinematics_parameters_file physical_parameters_file '
        'visual_parameters_file"><xacro:property name="limits" '
        'value="${xacro.load_yaml(joint_limits_parameters_file)}"/>'
        '<link name="${tf_prefix}base_link"/><joint name="${tf_prefix}base_joint" type="fixed">'
        '<xacro:insert_block name="origin"/><parent link="${parent}"/>'
        '<child link="${tf_prefix}base_link"/></joint>'
        + chain('${tf_prefix}base_link', joints, '${tf_prefix}tool0', '${tf_prefix}')
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
           chain(link('base_link'), VX300S, link('ee_gripper_link'), link=link),
           f'<link name="{link("gripper_prop_link")}"/>', joint(
               'gripper', 'continuous', link('ee_gripper_link'), link('gripper_prop_link'),
               velocity=math.pi)]
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


def write_descriptions(prefix: Path) -> None:
    """Write stand-ins for the vendors' description packages into an ament prefix."""
    files = {
        'franka_description/robots/fr3_duo/fr3_duo.urdf.xacro': fr3_duo(),
        'franka_description/robots/fr3/fr3.urdf.xacro': fr3(),
        'ur_description/urdf/ur_macro.xacro': ur_macro(),
        'ur_description/urdf/ur.urdf.xacro': ur(),
        'robotiq_description/urdf/ur_to_robotiq_adapter.urdf.xacro': adapter_macro(),
        'robotiq_description/urdf/robotiq_2f_85_macro.urdf.xacro': gripper_macro(),
        'interbotix_xsarm_descriptions/urdf/aloha_vx300s.urdf.xacro': vx300s(),
        'piper_description/urdf/piper_description.urdf': piper(),
        'xarm_description/urdf/xarm_device.urdf.xacro': xarm(),
        'xarm_controller/config/xarm6_controllers.yaml': 'a: 1\n',
        'kortex_description/robots/gen3.xacro': gen3(),
        'so101_description/urdf/so101_arm.urdf.xacro': so101()}
    files.update({
        f'ur_description/config/{kind}/{name}.yaml': f'shoulder_velocity: {velocity}\n'
        for kind, velocity in (('ur5e', 3.14159), ('ur10e', 2.0944))
        for name in ('joint_limits', 'default_kinematics', 'physical_parameters',
                     'visual_parameters')})
    index = prefix / 'share' / 'ament_index' / 'resource_index' / 'packages'
    index.mkdir(parents=True)
    for name, text in files.items():
        path = prefix / 'share' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        (index / name.split('/')[0]).write_text('')
