"""A small embodiment file with its URDF, for tests that change it."""

import pytest
import yaml

from lingbot_va_ros.specs.embodiment import EmbodimentError, load_embodiment


def write_robot(folder, change=lambda data: None):
    """Write a two-joint arm with a gripper; `change` edits the data before it is written."""
    urdf = ['<robot name="r"><link name="base"/><link name="l1"/><link name="l2"/>'
            '<link name="finger"/><link name="finger_2"/>']
    for name, kind, parent, child, limit in (
            ('j1', 'revolute', 'base', 'l1', 'lower="-2" upper="2" velocity="3" effort="9"'),
            ('j2', 'revolute', 'l1', 'l2', 'lower="-1" upper="1.5" velocity="2" effort="9"'),
            ('grip', 'prismatic', 'l2', 'finger', 'lower="0" upper="0.04" velocity="0.2"')):
        urdf.append(
            f'<joint name="{name}" type="{kind}"><parent link="{parent}"/><child link="{child}"/>'
            f'<axis xyz="0 0 1"/><limit {limit}/></joint>')
    urdf.append(
        '<joint name="grip_2" type="prismatic"><parent link="l2"/><child link="finger_2"/>'
        '<limit lower="0" upper="0.04" velocity="0.2"/><mimic joint="grip"/></joint></robot>')
    (folder / 'arm.urdf').write_text(''.join(urdf))
    data = {
        'name': 'arm', 'urdf': 'arm.urdf',
        'arms': [{
            'side': 'left', 'joints': ['j1', 'j2'],
            'gripper': {'joint': 'grip', 'open': 0.04, 'closed': 0.0}}],
        'limits': {
            'j1': {'acceleration': 5.0, 'jerk': 50.0, 'upper': 1.0},
            'j2': {'acceleration': 6.0, 'jerk': 60.0},
            'grip': {'acceleration': 1.0, 'jerk': 10.0}},
        'home': {'j1': 0.5, 'j2': 0.0, 'grip': 0.04},
        'controllers': [
            {'topic': 'arm/joint_trajectory', 'kind': 'trajectory', 'joints': ['j1', 'j2']},
            {'topic': 'hand/joint_trajectory', 'kind': 'trajectory', 'joints': ['grip']}],
        'cameras': {'head': {'topic': 'camera/head/image_raw'}},
    }
    change(data)
    path = folder / 'arm.yaml'
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def mistakes_of(folder, change):
    with pytest.raises(EmbodimentError) as caught:
        load_embodiment(str(write_robot(folder, change)))
    return str(caught.value).splitlines()
