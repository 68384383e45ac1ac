"""ControllerActivity: what a controller_manager says about a controller, without ROS."""

from types import SimpleNamespace

import pytest

from lingbot_va_ros.nodes.command_mux.controller_activity import (
    ACTIVE,
    ControllerActivity,
    MEMORY_SECONDS,
)

INACTIVE = 2


def activity(**states):
    """Return a message with the state of each controller."""
    return SimpleNamespace(controllers=[
        SimpleNamespace(name=name, state=SimpleNamespace(
            id=state, label='active' if state == ACTIVE else 'inactive'))
        for name, state in states.items()])


@pytest.mark.parametrize('topic, manager, name', [
    ('/arm/commands', '/controller_manager', 'arm'),
    ('/cell/left/arm/joint_trajectory', '/cell/left/controller_manager', 'arm'),
    ('/hand/gripper_cmd', '/controller_manager', 'hand')])
def test_the_manager_is_beside_the_controller(topic, manager, name):
    watched = ControllerActivity(topic)
    assert (watched.manager, watched.name) == (manager, name)


def test_an_inactive_controller_is_a_fault_at_once_and_for_a_moment_after():
    watched = ControllerActivity('/arm/joint_trajectory')
    assert not watched.take(activity(arm=ACTIVE, other=INACTIVE), 10.0)
    assert watched.fault(10.0) == ''
    assert watched.take(activity(arm=INACTIVE), 11.0)
    assert watched.fault(99.0) == 'an active controller (/controller_manager has arm as inactive)'
    # Active again before a tick could see it: it would leap onto the motion.
    assert not watched.take(activity(arm=ACTIVE), 11.001)
    assert watched.fault(11.01) == 'an active controller (arm was inactive a moment ago)'
    assert watched.fault(11.0 + MEMORY_SECONDS) == ''


def test_a_controller_that_is_unloaded_is_a_fault():
    watched = ControllerActivity('/arm/joint_trajectory')
    watched.take(activity(arm=ACTIVE), 10.0)
    assert watched.take(activity(), 11.0)
    assert 'has arm as unloaded' in watched.fault(11.0)


def test_a_controller_that_the_manager_never_named_is_not_judged():
    watched = ControllerActivity('/arm/joint_trajectory')
    assert not watched.take(activity(other=INACTIVE), 10.0)
    assert watched.fault(10.0) == ''
