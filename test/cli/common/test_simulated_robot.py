"""Resetting a scene: the arm is at home before an episode begins."""

import time
from types import SimpleNamespace

import pytest
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from lingbot_va_ros.cli.common import simulated_robot
from lingbot_va_ros.cli.common.failure import CommandFailed
from lingbot_va_ros.specs.embodiment import load_embodiment


class Robot:
    """Answers as sim_robot does; after the first resets a late stop leads the arm away."""

    def __init__(self, led_away):
        self.resets, self.led_away, self.heard = 0, led_away, 0

    def call(self, kind, _name, _request, may_repeat=False):
        if kind is Trigger:
            self.resets += 1
            return SimpleNamespace(success=True)
        return SimpleNamespace(results=[SimpleNamespace(successful=True)])

    def wait_until(self, condition, seconds, _what):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def newest(self):
        self.heard += 1
        embodiment = load_embodiment(simulated_robot.EMBODIMENT)
        off = 0.3 if self.resets <= self.led_away else 0.0
        return self.heard, JointState(
            name=list(embodiment.joints), position=[q + off for q in embodiment.home])


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(simulated_robot, 'RESET_SECONDS', 0.05)


@pytest.mark.parametrize('led_away', [0, 2])
def test_a_scene_is_reset_until_the_arm_stays_at_home(led_away):
    robot = Robot(led_away)
    simulated_robot.reset_scene(robot, robot.newest, seed=1)
    assert robot.resets == led_away + 1


def test_an_arm_that_never_stays_at_home_is_named():
    robot = Robot(99)
    with pytest.raises(CommandFailed, match='the arm is not at home after 4 resets'):
        simulated_robot.reset_scene(robot, robot.newest, seed=1)
