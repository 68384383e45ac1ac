"""The task wipe_plate: strokes, success, and that the scene does not reveal the count."""

import numpy as np
import pytest

from lingbot_va_ros.sim.experts import commands_along, drive, Expert, make_expert, path_from_home
from lingbot_va_ros.sim.scenes.wipe_plate import PLATE_TOP, SPONGE_REACH
from lingbot_va_ros.sim.simulation import Simulation

DOWN = PLATE_TOP + SPONGE_REACH - 0.01
UP = PLATE_TOP + SPONGE_REACH + 0.03


@pytest.fixture(scope='module')
def simulation():
    made = Simulation(task='wipe_plate', camera_width=64, camera_height=64)
    yield made
    made.close()


def play(simulation, expert, idle=0.6):
    """Run an expert to its end and a while longer; return the counts after every command."""
    counts = []
    while not expert.finished:
        drive(simulation, expert.act())
        counts.append(simulation.task_state.counts['strokes'])
    for _ in range(round(idle / 0.1)):
        drive(simulation, expert.act())
    return np.array(counts)


def wipe_at(simulation, *legs):
    """Go down at the plate's left, move by `legs` (y or z in metres), and go home."""
    simulation.reset(0)
    path = path_from_home(simulation)
    x, y = simulation.scene.plate
    path.to(1.2, x, y + 0.05, UP)
    path.to(0.4, z=DOWN)
    for leg in legs:
        path.to(0.7, **{name: y + way if name == 'y' else way for name, way in leg.items()})
    path.to(0.4, z=UP)
    path.to(1.2, *path.start)
    play(simulation, Expert(commands_along(simulation, path)))
    return simulation.task_state


@pytest.mark.parametrize('perturb', [False, True])
@pytest.mark.parametrize('seed', range(1000, 1006))
def test_the_expert_wipes_six_times_and_goes_home(simulation, seed, perturb):
    simulation.reset(seed)
    assert not simulation.task_state.done
    play(simulation, make_expert(simulation, np.random.default_rng(seed), perturb))
    state = simulation.task_state
    assert state.done and state.success, state
    assert state.counts == {'strokes': 6}
    assert 'exactly 6' in state.detail


@pytest.mark.parametrize('strokes', [1, 5, 7, 8])
def test_another_number_of_strokes_fails(simulation, strokes):
    simulation.reset(3)
    counts = play(simulation, make_expert(
        simulation, np.random.default_rng(3), strokes=strokes))
    assert counts.max() == min(strokes, 7)
    state = simulation.task_state
    assert state.done and not state.success
    assert str(strokes if strokes < 6 else 'more than 6') in state.detail


def test_motion_after_the_first_return_does_not_count(simulation):
    simulation.reset(4)
    play(simulation, make_expert(simulation, np.random.default_rng(4)))
    play(simulation, make_expert(simulation, np.random.default_rng(5), strokes=2))
    assert simulation.task_state.success
    assert simulation.task_state.counts == {'strokes': 6}


def test_standing_at_home_is_no_return(simulation):
    simulation.reset(0)
    simulation.step(2.0)
    assert not simulation.task_state.done


@pytest.mark.parametrize('legs, strokes', [
    ([{'y': -0.05}], 1),
    ([{'y': 0.01}], 0),  # too short
    ([{'z': UP}, {'y': -0.05}], 0),  # above the plate
    ([{'y': -0.05}, {'y': 0.05}, {'y': -0.05}], 3),  # back and forth
    ([{'y': 0.01}, {'y': 0.04}, {'y': 0.01}, {'y': 0.04}], 0),  # rubbing on one spot
    ([{'y': 0.01}, {'z': UP}, {'z': DOWN}, {'y': -0.03}], 0),  # two halves
    ([{'y': -0.025}, {'y': -0.01}, {'y': -0.05}], 1)])  # a small way back in between
def test_a_stroke_is_a_way_in_touch_with_the_plate(simulation, legs, strokes):
    assert wipe_at(simulation, *legs).counts == {'strokes': strokes}


def test_nothing_touches_the_plate_before_the_arm_moves(simulation):
    for seed in range(10):
        simulation.reset(seed)
        simulation.step(0.2)
        assert simulation.data.sensor('sponge').data[0] == 0.0
        assert simulation.data.ncon == 0


def test_the_arm_presses_gently(simulation):
    simulation.reset(0)
    expert = make_expert(simulation, np.random.default_rng(0))
    force = []
    while not expert.finished:
        drive(simulation, expert.act())
        force.append(simulation.data.sensor('sponge').data[0])
    assert 0.5 < max(force) < 10.0  # N


def test_elapsed_time_does_not_give_the_count_away(simulation):
    def seconds(strokes):
        simulation.reset(0)
        return [len(make_expert(simulation, np.random.default_rng(seed), strokes=strokes).commands)
                for seed in range(16)]

    assert min(seconds(6)) < np.quantile(seconds(4), 0.9)
    # When the fifth stroke has come to its end and when the sixth has.
    ends = np.empty((14, 6))
    for seed in range(len(ends)):
        simulation.reset(seed)
        counts = play(simulation, make_expert(simulation, np.random.default_rng(seed)), idle=0.0)
        ends[seed] = [np.argmax(counts == number) for number in range(1, 7)]
    fifth, sixth = ends[:, 4], ends[:, 5]
    best = max(((fifth < bound).mean() + (sixth >= bound).mean()) / 2 for bound in sixth)
    assert best < 0.8


def test_all_strokes_look_the_same(simulation):
    """At the same place of the arm the pictures are the same, whatever was wiped before."""
    simulation.reset(2)
    path = path_from_home(simulation)
    x, y = simulation.scene.plate
    path.to(1.2, x, y + 0.05, UP)
    lows = []
    for _ in range(3):
        path.to(0.4, z=DOWN)
        path.to(0.6, y=y - 0.05)
        path.to(0.4, z=UP)
        path.to(0.7, y=y + 0.05)
        path.wait(0.5)
        lows.append(round(path.time / 0.1))
    expert = Expert(commands_along(simulation, path))
    pictures = []
    for step in range(len(expert.commands)):
        drive(simulation, expert.act())
        if step + 1 in lows:
            pictures.append([simulation.render(name).astype(int) for name in simulation.cameras])
    assert simulation.task_state.counts == {'strokes': 3}
    for later in pictures[1:]:
        assert max(np.abs(a - b).mean() for a, b in zip(pictures[0], later)) < 0.1
