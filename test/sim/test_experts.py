"""The experts' commands: within limits, smooth, ending at home; for either arm."""

import numpy as np
import pytest

from lingbot_va_ros.sim.experts import drive, make_expert, PERIOD
from lingbot_va_ros.sim.simulation import Simulation

TASKS = ('wipe_plate', 'open_boxes')


@pytest.mark.parametrize('task', TASKS)
def test_commands_stay_inside_the_limits_and_end_at_home(task):
    simulation = Simulation(task=task)
    limits = simulation.embodiment.limits
    for seed in range(20):
        simulation.reset(seed)
        commands = make_expert(simulation, np.random.default_rng(seed)).commands
        home = np.tile(simulation.embodiment.home, (2, 1))
        rows = np.concatenate([home, commands, home])
        velocity = np.diff(rows, axis=0) / PERIOD
        acceleration = np.diff(velocity, axis=0) / PERIOD
        assert (rows >= limits.lower).all() and (rows <= limits.upper).all()
        assert (np.abs(velocity) < limits.velocity).all()
        assert (np.abs(acceleration) < limits.acceleration).all()
        assert 8.0 < len(commands) * PERIOD < 18.0


@pytest.mark.parametrize('task', TASKS)
def test_the_arm_follows(task):
    simulation = Simulation(task=task, seed=3)
    expert = make_expert(simulation, np.random.default_rng(3))
    while not expert.finished:
        command = expert.act()
        drive(simulation, command)
        np.testing.assert_allclose(simulation.positions[:-1], command[:-1], atol=0.06)
    home = expert.act()
    np.testing.assert_allclose(home, simulation.embodiment.home, atol=1e-5)
    drive(simulation, home)
    np.testing.assert_array_equal(expert.act(), home)
    assert expert.finished


@pytest.mark.parametrize('arms', ['right', 'both'])
@pytest.mark.parametrize('task', TASKS)
def test_either_arm_can_do_it(task, arms):
    simulation = Simulation(task=task, arms=arms, seed=6)
    expert = make_expert(simulation, np.random.default_rng(6))
    while not expert.finished:
        drive(simulation, expert.act())
    simulation.step(0.5)
    assert simulation.task_state.success, simulation.task_state


@pytest.mark.parametrize('task', TASKS)
def test_the_generator_alone_decides(task):
    simulation = Simulation(task=task, seed=4)
    one, same, other = (
        make_expert(simulation, np.random.default_rng(seed)).commands for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert one.shape != other.shape or np.abs(one - other).max() > 0.01


def test_perturbing_leaves_the_way_by_little():
    simulation = Simulation(task='wipe_plate', seed=4)
    away = [make_expert(simulation, np.random.default_rng(seed), True).commands
            for seed in range(10)]
    plain = [make_expert(simulation, np.random.default_rng(seed), False).commands
             for seed in range(10)]
    off = [np.abs(a - b).max() for a, b in zip(away, plain) if a.shape == b.shape]
    assert np.mean(np.array(off) > 0.02) > 0.4
    assert max(off) < 0.3


def test_a_scene_without_a_goal_has_no_expert():
    with pytest.raises(ValueError, match="task: 'table' has no expert; expected one of wipe_plat"):
        make_expert(Simulation(task='table'), np.random.default_rng(0))
