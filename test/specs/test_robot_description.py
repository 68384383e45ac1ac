"""Finding the URDF of an embodiment: files, packages, xacro, several parts."""

import sys
from xml.etree import ElementTree

import pytest

from lingbot_va_ros.specs.robot_description import DescriptionError, find_description, read_urdf

ARM = (
    '<robot name="arm"><link name="base"/><link name="tip"/><material name="grey"/>'
    '<joint name="turn" type="revolute"><parent link="base"/><child link="tip"/>'
    '<limit lower="-1" upper="1" velocity="2"/></joint>'
    '<joint name="follow" type="prismatic"><parent link="tip"/><child link="end"/>'
    '<mimic joint="turn"/></joint><link name="end"/><gazebo/></robot>')
XACRO = (
    '<robot name="arm" xmlns:xacro="http://www.ros.org/wiki/xacro">'
    '<xacro:arg name="speed" default="1"/><xacro:arg name="hand" default="false"/>'
    '<link name="base"/><link name="tip"/><joint name="turn" type="revolute">'
    '<parent link="base"/><child link="tip"/>'
    '<limit lower="-1" upper="1" velocity="$(arg speed)"/></joint>'
    '<xacro:if value="$(arg hand)"><link name="hand"/></xacro:if></robot>')


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder with arm.urdf and arm.urdf.xacro, and the package `vendor` beside it."""
    (tmp_path / 'arm.urdf').write_text(ARM)
    (tmp_path / 'arm.urdf.xacro').write_text(XACRO)
    package = tmp_path / 'prefix' / 'share' / 'vendor' / 'urdf'
    package.mkdir(parents=True)
    (package / 'arm.urdf').write_text(ARM)
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'{tmp_path / "none"}:{tmp_path / "prefix"}')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path


def find(folder, entry):
    return find_description(entry, folder / 'robot.yaml')


def refusal(folder, entry):
    with pytest.raises(DescriptionError) as caught:
        find(folder, entry)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_a_plain_urdf_is_taken_where_it_lies(folder):
    assert find(folder, 'arm.urdf') == folder / 'arm.urdf'
    assert find(folder, str(folder / 'arm.urdf')) == folder / 'arm.urdf'


def test_a_package_is_found_along_ament_prefix_path(folder):
    in_package = folder / 'prefix/share/vendor/urdf/arm.urdf'
    assert find(folder, 'package://vendor/urdf/arm.urdf') == in_package
    assert find(folder, {'file': 'package://vendor/urdf/arm.urdf'}) == in_package


def test_our_own_package_needs_no_prefix(folder):
    path = find(folder, 'package://lingbot_va_ros/urdf/sim_left.urdf')
    assert path.name == 'sim_left.urdf'


def test_a_package_that_is_missing_is_named_with_how_to_get_it(folder):
    line = refusal(folder, {'file': 'package://other/a.urdf', 'install': 'apt install other'})
    assert "'other'" in line and 'apt install other' in line


def test_every_package_that_a_file_needs_is_named_at_once(folder):
    line = refusal(folder, {'file': 'arm.urdf.xacro', 'needs': ['vendor', 'one', 'two']})
    assert "packages 'one', 'two' not found" in line


def test_a_file_that_the_package_has_not_is_named(folder):
    assert "package 'vendor' has no urdf/b.urdf" in refusal(folder, 'package://vendor/urdf/b.urdf')


def test_xacro_gets_the_arguments(folder):
    path = find(folder, {'file': 'arm.urdf.xacro', 'arguments': {'speed': 2.5, 'hand': True}})
    joints, links = read_urdf(path)
    assert joints['turn'].velocity == 2.5
    assert links == {'base', 'tip', 'hand'}


def test_the_same_description_is_written_once(folder):
    first = find(folder, 'arm.urdf.xacro')
    assert find(folder, 'arm.urdf.xacro') == first
    other = find(folder, {'file': 'arm.urdf.xacro', 'arguments': {'speed': 3}})
    assert other != first
    assert {path.suffix for path in first.parent.iterdir()} == {'.urdf'}


def test_the_error_of_xacro_is_reported(folder):
    (folder / 'bad.urdf.xacro').write_text(XACRO.replace('$(arg speed)', '${nonsense}'))
    line = refusal(folder, 'bad.urdf.xacro')
    assert 'xacro cannot read' in line and 'nonsense' in line


def test_without_xacro_the_error_names_the_package_to_install(folder, monkeypatch):
    monkeypatch.setattr(sys, 'executable', str(folder / 'python'))
    monkeypatch.setenv('PATH', str(folder))
    assert 'needs xacro, which is not installed' in refusal(folder, 'arm.urdf.xacro')


def test_parts_get_their_prefixes_and_places(folder):
    path = find(folder, [
        {'file': 'arm.urdf', 'joint_prefix': 'left_', 'link_prefix': 'l/', 'xyz': [0, 0.3, 0]},
        {'file': 'arm.urdf', 'joint_prefix': 'right_', 'link_prefix': 'r/', 'rpy': [0, 0, 3]}])
    joints, links = read_urdf(path)
    assert {'left_turn', 'right_turn'} < set(joints)
    assert joints['right_follow'].mimics == 'right_turn'
    assert links == {'world', 'l/base', 'l/tip', 'l/end', 'r/base', 'r/tip', 'r/end'}
    origins = [joint.find('origin').attrib for joint in ElementTree.parse(path).iter('joint')
               if joint.get('type') == 'fixed']
    assert origins == [{'xyz': '0.0 0.3 0.0', 'rpy': '0.0 0.0 0.0'},
                       {'xyz': '0.0 0.0 0.0', 'rpy': '0.0 0.0 3.0'}]


def test_parts_whose_names_collide_are_refused(folder):
    line = refusal(folder, [{'file': 'arm.urdf'}, {'file': 'arm.urdf', 'link_prefix': 'b/'}])
    assert "second joint 'turn'" in line and 'joint_prefix' in line


def test_a_cache_that_cannot_be_written_is_named(folder, monkeypatch):
    (folder / 'file').write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(folder / 'file'))
    assert 'cannot be written' in refusal(folder, 'arm.urdf.xacro')


def test_a_joint_that_appears_twice_is_refused(folder):
    (folder / 'twice.urdf').write_text(ARM.replace('name="follow"', 'name="turn"'))
    with pytest.raises(DescriptionError, match="two joints called 'turn'"):
        read_urdf(folder / 'twice.urdf')
