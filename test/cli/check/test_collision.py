"""What `check` says about the collision section of an embodiment file."""

from dataclasses import replace

import numpy as np
import pytest
from support.dual_arms import ROBOT

from lingbot_va_ros.cli.check.collision import collision_findings
from lingbot_va_ros.specs.collision import Box, Collision


def findings(collision, urdf=ROBOT.urdf):
    return [(finding.severity, finding.message) for finding in collision_findings(
        'robot', replace(ROBOT, collision=collision, urdf=urdf))]


def test_the_shipped_section_has_no_findings():
    assert not findings(ROBOT.collision)
    assert not findings(None)


def test_unknown_links_of_the_srdf_are_named():
    (severity, message), = findings(replace(
        ROBOT.collision, unknown_links=tuple(f'link_{number}' for number in range(9))))
    assert severity == 'warning' and 'link_0' in message and 'and 3 more' in message


def test_what_touches_at_home_is_named():
    box = Box('crate', np.full(3, 0.1), np.array([0.0, 0.25, 0.42]), np.zeros(3))
    messages = [message for _, message in findings(replace(
        ROBOT.collision, environment=(box,)))]
    assert any('crate' in message and 'apart at home' in message for message in messages)


def test_what_is_always_in_contact_is_named():
    # Neither the SRDF nor home says that these two overlap.
    box = Box('ceiling', np.array([4.0, 4.0, 4.0]), np.array([0.0, 0.0, 2.35]), np.zeros(3))
    messages = [message for _, message in findings(replace(
        ROBOT.collision, environment=(box,)))]
    assert any('ceiling' in message for message in messages)


def test_a_missing_mesh_is_an_error(tmp_path):
    text = ROBOT.urdf.read_text().replace(
        '<box size="0.044 0.124 0.04"/>', '<mesh filename="package://no_such/hand.stl"/>')
    (tmp_path / 'robot.urdf').write_text(text)
    (severity, message), = findings(Collision(), tmp_path / 'robot.urdf')
    assert severity == 'error' and 'package://no_such/hand.stl' in message


@pytest.mark.parametrize('strip', ['left_', ''])
def test_arms_without_shapes_are_named(tmp_path, strip):
    from xml.etree import ElementTree
    tree = ElementTree.parse(ROBOT.urdf)
    for link in tree.getroot().findall('link'):
        for shape in link.findall('collision'):
            if link.get('name').startswith(strip):
                link.remove(shape)
    tree.write(tmp_path / 'robot.urdf')
    messages = findings(Collision(), tmp_path / 'robot.urdf')
    if strip:
        assert ('warning', 'collision: no link of the left arm has a collision shape in the URDF: '
                'it is not checked') in messages
    else:
        assert messages == [(
            'error', 'collision: robot.urdf has no two links with a collision shape to check')]
