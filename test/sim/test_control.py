"""The controller in the loop of the physics: rates, seeds, protective stop, late messages."""

import numpy as np
import pytest

from lingbot_va_ros.sim.controllers.messages import Trajectory, TrajectoryPoint, TrajectoryRejected
from lingbot_va_ros.sim.controllers.settings import controller_settings, CONTROLLERS
from lingbot_va_ros.sim.simulation import Simulation

SECOND = 1_000_000_000
AWAY = np.array([0.4, 0.1, -0.2, 0.1, 0.1, 0.2, -0.02])


@pytest.fixture
def make():
    made = []

    def build(controller='jazzy', rate=500.0, **more):
        made.append(Simulation(controller=controller_settings(controller, rate=rate), **more))
        return made[-1]

    yield build
    for simulation in made:
        simulation.close()


def move(simulation, goal, seconds, stamp_ns=0):
    still = np.zeros(len(goal))
    simulation.send(Trajectory(stamp_ns, simulation.joints, (
        TrajectoryPoint(round(seconds * SECOND), goal, still),)))


@pytest.mark.parametrize('controller', CONTROLLERS)
@pytest.mark.parametrize('rate', [100.0, 300.0, 1000.0])
def test_every_controller_leads_the_arm_to_its_goal_at_every_rate(make, controller, rate):
    simulation = make(controller, rate)
    goal = simulation.embodiment.home + AWAY
    move(simulation, goal, 1.0)
    simulation.step(0.5)
    halfway = simulation.embodiment.home + AWAY / 2
    np.testing.assert_allclose(simulation.control.command, halfway, atol=0.02)
    simulation.step(1.0)
    np.testing.assert_allclose(simulation.positions, goal, atol=1e-3)


def test_updates_come_at_their_rate_and_are_the_same_in_every_run(make):
    def commands(rate):
        simulation = make(rate=rate)
        move(simulation, simulation.embodiment.home + AWAY, 1.0)
        rows = []
        for _ in range(100):
            simulation.step(0.002)
            rows.append(simulation.control.command[0])
        return rows

    fast, slow = commands(500.0), commands(100.0)
    assert fast == commands(500.0)
    assert len(set(fast)) == 100 and len(set(slow)) == 20
    # A controller commands what is due one period later: no step is behind.
    np.testing.assert_allclose(slow[4::5], fast[4::5], atol=0.002)


def test_a_protective_stop_holds_the_arm_and_a_resumed_controller_begins_there(make):
    simulation = make()
    home = simulation.embodiment.home
    move(simulation, home + AWAY, 1.0)
    simulation.step(0.5)
    simulation.protective_stop()
    held = simulation.control.command
    np.testing.assert_array_equal(held, simulation.positions)
    assert not simulation.controller.active
    move(simulation, home, 0.2)
    simulation.step(1.0)
    np.testing.assert_allclose(simulation.positions, held, atol=2e-3)
    move(simulation, home, 0.2)  # is under way and lost
    simulation.resume()
    simulation.step(0.5)
    assert simulation.controller.active
    np.testing.assert_allclose(simulation.positions, held, atol=3e-3)
    move(simulation, home, 0.5)
    simulation.step(1.0)
    np.testing.assert_allclose(simulation.positions, home, atol=1e-3)


def test_a_reset_activates_a_stopped_controller_and_loses_messages(make):
    simulation = make(delay=0.1)
    move(simulation, simulation.embodiment.home + AWAY, 0.5)
    simulation.protective_stop()
    simulation.reset(1)
    simulation.step(1.0)
    assert simulation.controller.active and simulation.controller.accepted == 0
    np.testing.assert_allclose(simulation.positions, simulation.embodiment.home, atol=1e-3)


def test_a_late_message_is_judged_when_it_arrives(make):
    simulation = make(delay=0.3)
    simulation.step(1.0)
    goal = simulation.embodiment.home + AWAY
    move(simulation, goal, 0.2, simulation.time_ns)
    with pytest.raises(TrajectoryRejected, match=r'0\.100 s in the past'):
        simulation.step(0.5)
    reasons = []
    simulation.control.on_rejected = reasons.append
    move(simulation, goal, 0.2, simulation.time_ns)
    move(simulation, goal, 0.6, simulation.time_ns)
    simulation.step(1.0)
    assert len(reasons) == 1
    assert (simulation.controller.rejected, simulation.controller.accepted) == (2, 1)
    np.testing.assert_allclose(simulation.positions, goal, atol=2e-3)
