"""Virtual time, the images rendered in it, and the arm that it moves."""

import numpy as np
import pytest

from lingbot_va_ros.evaluation.simulated_arm import SimulatedArm, TICK_NS
from lingbot_va_ros.evaluation.simulated_cameras import SimulatedCameras
from lingbot_va_ros.evaluation.virtual_clock import EpisodeOver, VirtualClock
from lingbot_va_ros.motion.plan import MotionLimits, Plan
from lingbot_va_ros.motion.plan_slot import PlanSlot
from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.sim.simulation import Simulation


@pytest.fixture(scope='module')
def simulation():
    simulation = Simulation('table', 'left', 0, 64, 64)
    yield simulation
    simulation.close()


class Robot:
    """An arm, its cameras and the clock that moves it; counts the rendered images."""

    def __init__(self, simulation, over=lambda: False):
        simulation.reset(3)
        self.simulation = simulation
        self.slot = PlanSlot(lambda: simulation.time_ns)
        limits = simulation.embodiment.limits
        self.slot.begin(MotionLimits(
            limits.lower, limits.upper, limits.velocity, limits.acceleration))
        self.cameras = SimulatedCameras(simulation, ('head', 'left_wrist'))
        self.arm = SimulatedArm(simulation, self.slot, self.cameras)
        self.clock = VirtualClock(self.arm, over)
        self.began_ns = simulation.time_ns

    @property
    def stamps(self):
        return [entry.stamp_ns - self.began_ns for entry in self.cameras._rings['head']]


@pytest.fixture
def robot(simulation):
    return Robot(simulation)


@pytest.mark.parametrize('seconds, ticks', [(0.0, 1), (0.005, 1), (0.02, 1), (0.021, 2), (0.1, 5)])
def test_a_wait_takes_whole_ticks_and_at_least_one(robot, seconds, ticks):
    robot.clock.wait(seconds)
    assert robot.clock.now_ns() == robot.began_ns + ticks * TICK_NS
    assert robot.clock.steady() == pytest.approx(ticks * 0.02)


def test_time_stands_still_between_waits(robot):
    before = robot.clock.now_ns()
    robot.clock.wake()
    assert robot.clock.now_ns() == before


def test_nothing_follows_the_tick_after_which_the_episode_is_over(simulation):
    ticks = []
    robot = Robot(simulation, over=lambda: len(ticks) == 2 or ticks.append(0))
    with pytest.raises(EpisodeOver):
        robot.clock.wait(1.0)
    assert robot.clock.now_ns() == robot.began_ns + 3 * TICK_NS


def test_images_are_rendered_at_the_times_that_were_asked_for_and_at_no_other(robot):
    wanted = [robot.began_ns + round(seconds * NANOSECONDS) for seconds in (0.03, 0.2 / 3, 0.1)]
    for time_ns in wanted:
        while not robot.cameras.reached(time_ns):
            robot.clock.wait(0.005)
        images = robot.cameras.pick(time_ns, 0.0)
        assert {name: entry.image.shape for name, entry in images.items()} == {
            'head': (64, 64, 3), 'left_wrist': (64, 64, 3)}
    assert robot.stamps == [time_ns - robot.began_ns for time_ns in wanted]


def test_a_time_that_is_past_gets_an_image_of_now(robot):
    robot.clock.wait(0.1)
    assert robot.cameras.reached(robot.began_ns + TICK_NS)
    assert robot.stamps == [5 * TICK_NS]


def test_the_newest_image_is_one_of_now_and_is_rendered_once(robot):
    robot.clock.wait(0.02)
    robot.cameras.newest(0.0)
    assert robot.cameras.newest(0.0)['head'].stamp_ns == robot.clock.now_ns()
    assert robot.stamps == [TICK_NS]


def test_the_arm_follows_the_plan_and_records_its_commands(robot):
    start = robot.arm.executed.newest()
    goal = start.copy()
    goal[0] += 0.1
    end_ns = robot.began_ns + NANOSECONDS
    robot.slot.put(Plan(
        np.array([robot.began_ns, end_ns]), np.stack((start, goal)), np.zeros((2, len(start)))),
        robot.slot.epoch)
    robot.clock.wait(1.5)
    assert robot.arm.executed.newest_ns == robot.clock.now_ns()
    np.testing.assert_allclose(robot.arm.executed.newest(), goal, atol=1e-3)
    np.testing.assert_allclose(robot.arm.joint_states.positions()[0], goal[0], atol=0.02)
    assert len(robot.arm.commands) == 1 + 75


def test_without_a_plan_the_arm_stays_where_it_is(robot):
    before = robot.arm.joint_states.positions()
    robot.clock.wait(0.2)
    np.testing.assert_allclose(robot.arm.joint_states.positions(), before, atol=0.01)
    assert len(robot.arm.commands) == 1
