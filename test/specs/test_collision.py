"""The section collision of an embodiment file and its SRDF: every mistake by name."""

import pytest
from support.embodiment_file import mistakes_of, write_robot

from lingbot_va_ros.specs.collision import SLOW_DISTANCE, STOP_DISTANCE
from lingbot_va_ros.specs.embodiment import load_embodiment

TABLE = {'name': 'table', 'box': {'size': [1.0, 1.0, 0.1], 'xyz': [0.0, 0.0, -0.1]}}
FLOOR = {'name': 'floor', 'plane': {'normal': [0.0, 0.0, 2.0], 'offset': -0.7}}


def load(folder, **section):
    def change(data):
        data.update(base_frame='base', collision=section)
    return load_embodiment(str(write_robot(folder, change))).collision


def mistakes(folder, section, base_frame='base'):
    def change(data):
        data['collision'] = section
        if base_frame:
            data['base_frame'] = base_frame
    return '\n'.join(mistakes_of(folder, change))


def test_without_the_section_nothing_is_checked_and_an_empty_one_has_defaults(tmp_path):
    assert load_embodiment(str(write_robot(tmp_path))).collision is None
    found = load(tmp_path)
    assert (found.stop_distance, found.slow_distance) == (STOP_DISTANCE, SLOW_DISTANCE)
    assert not found.environment and not found.disabled and not found.ignored


def test_boxes_planes_and_ignored_pairs_are_read(tmp_path):
    found = load(tmp_path, environment=[TABLE, FLOOR], ignore=[['l2', 'base'], ['table', 'l1']])
    table, floor = found.environment
    assert list(table.size) == [1.0, 1.0, 0.1] and list(table.rpy) == [0.0, 0.0, 0.0]
    assert list(floor.normal) == [0.0, 0.0, 1.0] and floor.offset == -0.7
    assert found.ignored == {('base', 'l2'), ('l1', 'table')}


@pytest.mark.parametrize('section, mistake', [
    ({'stop_distance': 0.2, 'slow_distance': 0.1},
     'collision.slow_distance: 0.1 is not above stop_distance 0.2'),
    ({'stop_distance': 0.2}, 'collision.slow_distance: 0.1 is not above'),
    ({'stop_distance': 0.0}, 'collision.stop_distance: 0.0 is less than the minimum'),
    ({'stop_distance': float('nan')}, 'collision.stop_distance: nan is not a finite number'),
    ({'slow_distance': 9.0}, 'collision.slow_distance: 9.0 is greater than'),
    ({'slowdown': 1}, "collision: Additional properties are not allowed ('slowdown'"),
    ({'environment': [{'name': 'a'}]}, 'collision.environment[0]: needs either box or plane'),
    ({'environment': [{**TABLE, **FLOOR}]},
     'collision.environment[0]: needs either box or plane'),
    ({'environment': [TABLE, TABLE]}, "collision.environment[1].name: 'table' is there already"),
    ({'environment': [{**TABLE, 'name': 'l1'}]},
     "collision.environment[0].name: 'l1' is a link of the URDF"),
    ({'environment': [{'name': 'a', 'box': {'size': [1, 1, 0], 'xyz': [0, 0, 0]}}]},
     'collision.environment[0].box.size[2]: 0 is less than'),
    ({'environment': [{'name': 'a', 'box': {'size': [1, 1], 'xyz': [0, 0, 0]}}]},
     'collision.environment[0].box.size: [1, 1] is too short'),
    ({'environment': [{'name': 'a', 'plane': {'normal': [0, 0, 0], 'offset': 0}}]},
     'collision.environment[0].plane.normal: has no direction'),
    ({'environment': [{'name': 'a', 'plane': {'normal': [0, 0, 1]}}]},
     "collision.environment[0].plane: 'offset' is a required property"),
    ({'ignore': [['l1', 'wall']]},
     "collision.ignore[0]: 'wall' is neither a link of the URDF nor in environment"),
    ({'ignore': [['l1', 'l1']]}, "collision.ignore[0]: names 'l1' twice"),
    ({'ignore': [['l1']]}, "collision.ignore[0]: ['l1'] is too short"),
    ({'srdf': 'none.srdf'}, 'collision.srdf: none.srdf is neither in'),
    ({'srdf': {'file': 'package://no_such_package/arm.srdf'}},
     "collision.srdf: ROS package 'no_such_package' not found"),
    ({'srdf': {'files': 'a'}}, "collision.srdf: 'file' is a required property"),
])
def test_a_mistake_is_named(tmp_path, section, mistake):
    assert mistake in mistakes(tmp_path, section)


def test_obstacles_need_the_frame_in_which_they_are_given(tmp_path):
    assert 'collision.environment: needs base_frame' in mistakes(
        tmp_path, {'environment': [FLOOR]}, base_frame=None)


SRDF = """<robot name="r">
  <disable_collisions link1="l2" link2="base" reason="Never"/>
  <disable_collisions link1="l2" link2="camera" reason="Never"/>
  <disable_default_collisions link="finger"/>
  <enable_collisions link1="finger" link2="base"/>
</robot>"""


def test_an_srdf_disables_pairs_and_its_unknown_links_are_told(tmp_path):
    (tmp_path / 'arm.srdf').write_text(SRDF)
    found = load(tmp_path, srdf='arm.srdf')
    assert {('base', 'l2'), ('finger', 'l1'), ('finger', 'l2')} <= found.disabled
    assert ('base', 'finger') not in found.disabled
    assert found.unknown_links == ('camera',)


def test_several_srdf_files_have_prefixes(tmp_path):
    (tmp_path / 'one.srdf').write_text(
        '<robot name="r"><disable_collisions link1="1" link2="2"/></robot>')
    found = load(tmp_path, srdf=[{'file': 'one.srdf', 'link_prefix': 'l'}])
    assert found.disabled == {('l1', 'l2')} and not found.unknown_links


@pytest.mark.parametrize('text, mistake', [
    ('<robot', 'is not well-formed XML'), ('<srdf/>', 'its root is <srdf>, not <robot>'),
    ('<robot><disable_collisions link1="l1"/></robot>', "lacks the attribute 'link2'")])
def test_a_broken_srdf_is_one_line(tmp_path, text, mistake):
    (tmp_path / 'arm.srdf').write_text(text)
    found = mistakes(tmp_path, {'srdf': 'arm.srdf'})
    assert mistake in found and len(found.splitlines()) == 1
