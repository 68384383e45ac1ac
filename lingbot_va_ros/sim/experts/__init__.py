"""
Scripted experts, which solve the tasks with the ground-truth state and inverse kinematics.

    simulation = Simulation(task='wipe_plate', seed=3)
    expert = make_expert(simulation, np.random.default_rng(3))
    while not expert.finished:
        drive(simulation, expert.act())
    assert simulation.task_state.success
"""

from lingbot_va_ros.sim.experts.expert import (
    commands_along,
    drive,
    Expert,
    make_expert,
    path_from,
    path_from_home,
    PERIOD,
)

__all__ = [
    'PERIOD', 'Expert', 'commands_along', 'drive', 'make_expert', 'path_from', 'path_from_home']
