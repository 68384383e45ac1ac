"""The RViz and Foxglove files: they parse, and every topic and field in them exists."""

import json
from pathlib import Path
import re

import pytest
import yaml

from lingbot_va_ros.resources import shared_file

CHECKOUT = Path(__file__).resolve().parents[1]
NODES = ('lingbot_va_policy', 'command_mux')


@pytest.fixture(scope='module')
def rviz():
    return yaml.safe_load(shared_file('config', 'rviz', 'lingbot_va.rviz').read_text())


@pytest.fixture(scope='module')
def foxglove():
    return json.loads(shared_file('config', 'foxglove', 'lingbot_va.json').read_text())


@pytest.fixture(scope='module')
def topics() -> set[str]:
    """Return the topics that the nodes name in their sources, and the cameras of sim_dual."""
    found = set()
    for path in (*(CHECKOUT / 'lingbot_va_ros/nodes').rglob('*.py'),
                 *(CHECKOUT / 'lingbot_va_ros/launching').rglob('*.py')):
        found.update(re.findall(r"'(/?~?/?[a-z][a-z_]*(?:/[a-z_]+)*)'", path.read_text()))
    robot = yaml.safe_load(shared_file('config', 'embodiments', 'sim_dual.yaml').read_text())
    return found | {camera['topic'] for camera in robot['cameras'].values()}


def named(topic: str, topics: set[str]) -> bool:
    """Tell whether a full topic name is one of `topics`, which are relative, private or full."""
    node, _, rest = topic.lstrip('/').partition('/')
    return bool({topic, topic.lstrip('/')} & topics) or (node in NODES and f'~/{rest}' in topics)


def displays(rviz):
    return rviz['Visualization Manager']['Displays']


def paths_in(panel) -> list[str]:
    """Return the topics and message paths that a Foxglove panel reads."""
    return [path for path in (
        *(entry['value'] for entry in panel.get('paths', [])), panel.get('topicPath'),
        panel.get('topicToRender'), panel.get('imageMode', {}).get('imageTopic')) if path]


def test_rviz_shows_cameras_imagined_pictures_and_the_robot(rviz, topics):
    images = {display['Topic']['Value'] for display in displays(rviz)
              if display['Class'] == 'rviz_default_plugins/Image'}
    assert images == {
        '/camera/head/image_raw', '/camera/left_wrist/image_raw', '/camera/right_wrist/image_raw',
        '/lingbot_va_policy/predicted_video'}
    assert all(named(topic, topics) for topic in images)
    assert any(display['Class'].endswith('/RobotModel') for display in displays(rviz))


def test_rviz_asks_for_no_more_than_cameras_offer(rviz):
    """A reliable reader gets nothing from a best effort camera."""
    for display in displays(rviz):
        if display.get('Topic', {}).get('Value', '').startswith('/camera/'):
            assert display['Topic']['Reliability Policy'] == 'Best Effort'


def test_the_foxglove_layout_uses_existing_topics(foxglove, topics):
    used = {path.split('.')[0] for panel in foxglove['configById'].values()
            for path in paths_in(panel)}
    assert {topic for topic in used if not named(topic, topics)} == set()
    assert {'/policy/joint_trajectory', '/lingbot_va_policy/status', '/command_mux/mode',
            '/lingbot_va_policy/predicted_video', '/camera/head/image_raw'} <= used


def test_foxglove_places_every_panel_once(foxglove):
    def leaves(node):
        if isinstance(node, str):
            return [node]
        assert node['direction'] in ('row', 'column') and 0 < node['splitPercentage'] < 100
        return leaves(node['first']) + leaves(node['second'])
    assert sorted(leaves(foxglove['layout'])) == sorted(foxglove['configById'])


def test_foxglove_reads_fields_that_the_messages_have(foxglove):
    from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

    from lingbot_va_ros.msg import ControlMode, PolicyStatus
    fields = {
        '/lingbot_va_policy/status': PolicyStatus, '/command_mux/mode': ControlMode,
        '/policy/joint_trajectory': JointTrajectory, '/executed': JointTrajectory}
    read = 0
    for panel in foxglove['configById'].values():
        for path in paths_in(panel):
            topic, _, rest = path.partition('.')
            if not rest:
                continue
            first, _, second = (re.sub(r'\[.*?\]', '', part) for part in rest.partition('.'))
            assert first in fields[topic].get_fields_and_field_types(), path
            assert not second or second in JointTrajectoryPoint.get_fields_and_field_types(), path
            read += 1
    assert read > 10
