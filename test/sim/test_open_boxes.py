"""The task open_boxes: the order of the moves, and that the scene does not reveal the next one."""

import numpy as np
import pytest

from lingbot_va_ros.sim.experts import drive, make_expert
from lingbot_va_ros.sim.scenes.open_boxes import CLOSED, OPEN
from lingbot_va_ros.sim.simulation import Simulation


@pytest.fixture(scope='module')
def simulation():
    made = Simulation(task='open_boxes', camera_width=64, camera_height=64)
    yield made
    made.close()


def play(simulation, expert, idle=0.6):
    """Run an expert to its end and a while longer; return its task states."""
    states = []
    while not expert.finished:
        drive(simulation, expert.act())
        states.append(simulation.task_state)
    for _ in range(round(idle / 0.1)):
        drive(simulation, expert.act())
        states.append(simulation.task_state)
    return states


def rests(simulation, expert):
    """Return the first and last row of each rest at home that is followed by a motion."""
    at_home = np.abs(expert.commands - simulation.embodiment.home).max(axis=1) < 1e-5
    ends = np.flatnonzero(at_home[:-1] & ~at_home[1:])
    begins = np.flatnonzero(at_home & ~np.roll(at_home, 1))
    begins = np.concatenate([[0], begins[begins > 0]])[:len(ends)]
    return list(zip(begins, ends))


@pytest.mark.parametrize('perturb', [False, True])
@pytest.mark.parametrize('seed', range(1000, 1006))
def test_the_expert_opens_a_closes_a_opens_b_and_goes_home(simulation, seed, perturb):
    simulation.reset(seed)
    states = play(simulation, make_expert(simulation, np.random.default_rng(seed), perturb))
    assert states[-1].done and states[-1].success, states[-1]
    assert states[-1].counts == {'opened_a': 1, 'closed_a': 1, 'opened_b': 1, 'closed_b': 0}
    # Not before the arm is home.
    opened = next(i for i, state in enumerate(states) if state.counts['opened_b'])
    assert not states[opened + 3].done


@pytest.mark.parametrize('order, detail', [
    (('b open',), 'B was opened before A'),
    (('a open', 'b open'), 'B was opened while A was open'),
    (('a open', 'a close', 'a open'), 'A was opened twice')])
def test_another_order_fails_at_once(simulation, order, detail):
    simulation.reset(7)
    order = tuple(tuple(step.split()) for step in order)
    states = play(simulation, make_expert(simulation, np.random.default_rng(7), order=order))
    assert states[-1].done and not states[-1].success
    assert states[-1].detail == detail
    failed = next(i for i, state in enumerate(states) if state.done)
    assert failed < len(states) - 10  # well before the arm is home again


@pytest.mark.parametrize('order', [(), ('a open',), ('a open', 'a close')])
def test_it_is_not_done_halfway(simulation, order):
    simulation.reset(8)
    order = tuple(tuple(step.split()) for step in order)
    if order:
        play(simulation, make_expert(simulation, np.random.default_rng(8), order=order), idle=2.0)
    else:
        simulation.step(2.0)
    assert not simulation.task_state.done and not simulation.task_state.success


def test_a_box_b_that_was_closed_again_is_no_success(simulation):
    simulation.reset(9)
    order = (('a', 'open'), ('a', 'close'), ('b', 'open'))
    expert = make_expert(simulation, np.random.default_rng(9), order=order)
    while not simulation.task_state.counts['opened_b']:
        drive(simulation, expert.act())
    while simulation.data.joint('lid_b').qvel[0] > 1e-3:
        drive(simulation, expert.act())
    simulation.data.joint('lid_b').qpos[0] = 0.0
    while not expert.finished:
        drive(simulation, expert.act())
    simulation.step(1.0)
    assert not simulation.task_state.success
    assert simulation.task_state.counts['closed_b'] == 1


def test_after_closing_a_all_is_as_it_was_before(simulation):
    for seed in (11, 12):
        simulation.reset(seed)
        expert = make_expert(simulation, np.random.default_rng(seed))
        ends = [end for _, end in rests(simulation, expert)]
        seen = []
        for row in range(len(expert.commands)):
            drive(simulation, expert.act())
            if row in ends:
                seen.append((simulation.data.qpos.copy(), [
                    simulation.render(name).astype(int) for name in simulation.cameras]))
        (first, before), (_, between), (third, after) = seen
        np.testing.assert_allclose(third, first, atol=5e-4)
        for a, b, c in zip(before, after, between):
            assert np.abs(a - b).max() <= 4
            assert np.abs(a - c).max() > 100  # whereas an open lid is plain to see


def test_rests_before_each_step_overlap(simulation):
    lengths = []
    for seed in range(20):
        simulation.reset(seed)
        expert = make_expert(simulation, np.random.default_rng(seed))
        found = rests(simulation, expert)
        assert len(found) == 3
        lengths.append([end - begin for begin, end in found])
    lengths = np.array(lengths)
    assert lengths.min(axis=0).max() + 4 <= lengths.max(axis=0).min()
    # The mean says as little: they are drawn alike.
    assert np.ptp(lengths.mean(axis=0)) < 2.0
    assert lengths.max() < 25  # no long rests


def test_lids_stay_where_they_are_left(simulation):
    simulation.reset(0)
    lid = simulation.data.joint('lid_a')
    for place in (0.0, CLOSED / 2, OPEN + 0.02):
        lid.qpos[0] = place
        lid.qvel[0] = 0.0
        simulation.step(0.5)
        assert lid.qpos[0] == pytest.approx(place, abs=5e-4)


def test_lids_move_only_when_they_are_touched(simulation):
    simulation.reset(5)
    expert = make_expert(simulation, np.random.default_rng(5), order=(('a', 'open'),))
    knob = simulation.model.geom('knob_a').id
    lid = simulation.data.joint('lid_a')
    touched = False
    while not expert.finished:
        before = lid.qpos[0]
        drive(simulation, expert.act())
        touched |= any(knob in contact.geom for contact in simulation.data.contact)
        assert touched or abs(lid.qpos[0] - before) < 1e-5
    assert lid.qpos[0] > OPEN
