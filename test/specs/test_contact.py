"""The contact limits of an embodiment file."""

import pytest
from specs.test_embodiment import mistakes_of, write_robot

from lingbot_va_ros.specs.contact import ContactLimits
from lingbot_va_ros.specs.embodiment import load_embodiment


def contact(section):
    return lambda data: data.update(contact=section)


def wrench(**entry):
    return contact({'wrenches': [entry]})


def test_there_are_no_limits_unless_a_file_has_some(tmp_path):
    assert load_embodiment(str(write_robot(tmp_path))).contact == ContactLimits()


def test_limits_are_read_by_joint_and_axis(tmp_path):
    limits = load_embodiment(str(write_robot(tmp_path, contact({
        'efforts': {'j1': 20, 'grip': 3.5},
        'wrenches': [{'topic': '/ft/wrench', 'force': [10, 20, 30], 'torque': 2.0},
                     {'topic': 'other', 'torque': [1, 1, 1], 'timeout': 0.5}]})))).contact
    assert limits.efforts == {'j1': 20.0, 'grip': 3.5}
    first, second = limits.wrenches
    assert first.limits == {
        'force x': 10.0, 'force y': 20.0, 'force z': 30.0,
        'torque x': 2.0, 'torque y': 2.0, 'torque z': 2.0}
    assert second.timeout == 0.5 and set(second.limits) == {'torque x', 'torque y', 'torque z'}


@pytest.mark.parametrize(('change', 'expected'), [
    (contact({}), 'contact:'),
    (contact({'efforts': {'j9': 1.0}}), "contact.efforts.j9: 'j9' is not a joint of the robot"),
    (contact({'efforts': {'j1': 0}}), 'contact.efforts.j1: 0 is less'),
    (contact({'efforts': {'j1': -3.0}}), 'contact.efforts.j1: -3.0 is less'),
    (contact({'efforts': {'j1': 'strong'}}), 'contact.efforts.j1:'),
    (contact({'efforts': {'j1': float('inf')}}), 'contact.efforts.j1: inf is not a finite'),
    (contact({'effort': {}}), 'contact: Additional properties'),
    (wrench(topic='ft'), 'contact.wrenches[0]: needs force or torque'),
    (wrench(force=1.0), "contact.wrenches[0]: 'topic' is a required"),
    (wrench(topic='f t', force=1.0), 'contact.wrenches[0].topic:'),
    (wrench(topic='ft', force=[1.0, 2.0]), 'contact.wrenches[0].force:'),
    (wrench(topic='ft', force=[1.0, 2.0, -1.0]), 'contact.wrenches[0].force[2]:'),
    (wrench(topic='ft', torque=1e9), 'contact.wrenches[0].torque:'),
    (wrench(topic='ft', force=1.0, timeout=0), 'contact.wrenches[0].timeout:'),
    (contact({'wrenches': [{'topic': 'a', 'force': 1}, {'topic': 'a', 'force': 2}]}),
     "contact.wrenches[1].topic: topic 'a' appears twice"),
])
def test_each_mistake_is_one_line_with_its_key(tmp_path, change, expected):
    lines = mistakes_of(tmp_path, change)
    assert len(lines) == 1, lines
    assert expected in lines[0]
