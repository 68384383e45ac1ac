"""
The simulated controller beside measurements of the real one, with a plan of 0.5 rad/s.

Measured: the class of Jazzy (4.42) and Humble's, built from source and updated in real time with
mock interfaces, driven over DDS by a mux at 100 Hz; speeds in rad/s, accelerations in rad/s².
What depends on how late messages were is compared with messages up to 5 ms late.
"""

from typing import NamedTuple

import numpy as np
import pytest
from support.controllers import figures, Rig

from lingbot_va_ros.sim.controllers.settings import Replacement

TODAY = {'knots': 1, 'with_stamp': False}
ONE_PERIOD = {'knots': 1, 'with_stamp': True}
THREE_PERIODS = {'knots': 3, 'with_stamp': True}
LATE = {'delay': 0.0003, 'jitter': 0.005}


class Measured(NamedTuple):
    """A row of the table: a controller, what it was sent, and the figures."""

    rig: dict
    sent: dict
    least: float
    greatest: float
    acceleration: float
    mux_rate: int = 100


def from_measured(rate, tau=0.0, **more):
    """Return the arguments of a rig that joins from the measured state."""
    return {'rate': rate, 'tau': tau, 'joins_last_command': False, **more}


# Rows that hardly depend on phase and lateness: 25 % of the speeds' range.
ROWS = [
    Measured({'rate': 500}, TODAY, 0.353, 0.859, 245),
    Measured({'rate': 500, 'tau': 0.03}, TODAY, 0.353, 0.873, 244),
    Measured(from_measured(500, 0.03), TODAY, -8.6, 6.0, 6168),
    Measured({'rate': 1000}, TODAY, 0.417, 0.935, 497),
    Measured(from_measured(1000, 0.03), TODAY, -20.7, 7.4, 23_845),
    Measured({'rate': 250, 'tau': 0.03}, TODAY, 0.339, 0.678, 85),
    Measured({'rate': 500, 'tau': 0.03}, TODAY, 0.431, 0.947, 250, mux_rate=50),
    Measured(from_measured(500, 0.03), TODAY, -9.9, 2.3, 5710, mux_rate=50),
    Measured(from_measured(500, 0.03, controller='humble'), TODAY, -13.9, 7.0, 9000),
]
# Rows that depend on how late messages were.
LATE_ROWS = [
    Measured({'rate': 500}, ONE_PERIOD, 0.435, 0.642, 104),
    Measured({'rate': 1000}, ONE_PERIOD, 0.449, 0.657, 208),
    Measured(from_measured(500), TODAY, 0.412, 0.677, 127),
    Measured(from_measured(500), ONE_PERIOD, 0.438, 0.628, 95),
    Measured(from_measured(500, 0.03), ONE_PERIOD, 0.436, 0.637, 101),
    Measured({'rate': 100}, TODAY, 0.415, 0.585, 15),
    Measured({'rate': 100}, ONE_PERIOD, 0.420, 0.580, 15),
    Measured({'controller': 'humble'}, TODAY, 0.0, 0.80, 400),
]


def name_of(row):
    """Return the name of a row's test."""
    return '-'.join(map(str, (*row.rig.values(), *row.sent.values(), row.mux_rate)))


def of_phases(row, **rig):
    """Return least and greatest speed and acceleration over four phases of the controller."""
    found = np.array([
        figures(Rig(phase=phase, seed=seed, **row.rig, **rig).run(
            1.4, mux_rate=row.mux_rate, **row.sent))
        for seed, phase in enumerate((0.0002, 0.0007, 0.0012, 0.0017))])
    return found[:, 0].min(), found[:, 1].max(), found[:, 2].max()


@pytest.mark.parametrize('row', ROWS, ids=name_of)
def test_is_within_a_quarter_of_the_measured_controller(row):
    least, greatest, acceleration = of_phases(row)
    spread = row.greatest - row.least
    assert least == pytest.approx(row.least, abs=0.25 * spread)
    assert greatest == pytest.approx(row.greatest, abs=0.25 * spread)
    assert acceleration == pytest.approx(row.acceleration, rel=0.25)


@pytest.mark.parametrize('row', LATE_ROWS, ids=name_of)
def test_late_messages_disturb_it_as_much_as_the_measured_controller(row):
    least, greatest, acceleration = of_phases(row, **LATE)
    spread = row.greatest - row.least
    assert least == pytest.approx(row.least, abs=0.4 * spread)
    assert greatest == pytest.approx(row.greatest, abs=0.4 * spread)
    assert acceleration == pytest.approx(row.acceleration, rel=0.6)


@pytest.mark.parametrize('controller', ['humble', 'jazzy', 'kilted', 'ur_scaled'])
@pytest.mark.parametrize('joins_last_command', [False, True])
@pytest.mark.parametrize('rate, mux_rate', [(100, 50), (100, 100), (500, 100), (1000, 100)])
def test_three_periods_behind_a_knot_at_the_stamp_are_followed_exactly(
        controller, joins_last_command, rate, mux_rate):
    for late in ({}, LATE):
        rig = Rig(controller, rate=rate, tau=0.03, joins_last_command=joins_last_command, **late)
        least, greatest, acceleration = figures(
            rig.run(0.8, mux_rate=mux_rate, **THREE_PERIODS))
        assert (least, greatest) == (pytest.approx(0.5), pytest.approx(0.5))
        assert acceleration < 0.1


def test_messages_up_to_8_ms_late():
    """Measured: the knot alone 0.39 … 0.87, with three periods 0.500."""
    late = {'delay': 0.0, 'jitter': 0.008}
    least, greatest, _ = figures(Rig(rate=1000, **late).run(1.4, **ONE_PERIOD))
    assert (least, greatest) == (pytest.approx(0.39, abs=0.05), pytest.approx(0.87, abs=0.1))
    assert figures(Rig(**late).run(1.4, **THREE_PERIODS))[:2] == (
        pytest.approx(0.5), pytest.approx(0.5))


def test_three_periods_without_the_knot_do_not_help():
    """Measured: 0.33 … 0.88."""
    least, greatest, _ = figures(Rig().run(1.4, knots=3, with_stamp=False))
    assert (least, greatest) == (pytest.approx(0.33, abs=0.05), pytest.approx(0.88, abs=0.1))


@pytest.mark.parametrize('joins_last_command', [False, True])
def test_humble_at_the_rate_of_the_mux_repeats_its_last_command(joins_last_command):
    """Measured: 0.000 rad/s, depending on the phase."""
    rig = Rig('humble', rate=100, joins_last_command=joins_last_command, phase=0.0015)
    assert figures(rig.run(1.4)) == (0.0, 0.0, 0.0)


def test_at_the_rate_of_the_mux_todays_messages_may_look_perfect():
    """Measured: 0.500 in 5 runs, 0.415 … 0.585 in others."""
    assert figures(Rig(rate=100, phase=0.0015).run(1.4))[:2] == (
        pytest.approx(0.5), pytest.approx(0.5))
    assert figures(Rig(rate=100, phase=0.0007).run(1.4))[1] > 0.54


def test_a_gap_of_40_ms_leads_into_the_tail():
    """Measured: 0.40 … 0.82, 211 rad/s²."""
    rig = Rig()
    rig.run(0.5, **THREE_PERIODS)
    gap, after = rig.run(0.02, messages=False), rig.run(0.3, **THREE_PERIODS)
    speeds = np.diff(np.concatenate((gap.commands, after.commands)), axis=0) / gap.period
    assert speeds.min() == pytest.approx(0.40, abs=0.05)
    assert 0.55 < speeds.max() < 1.0


def test_rolling_counts_a_message_from_the_update_that_takes_it():
    """
    Read in the source (after 6.9): lateness of a message becomes a jump of the command.

    Without `allow_trajectory_replacement` it is as Jazzy.
    """
    still = Rig('rolling', delay=0.0003, jitter=0.0).run(1.4, **THREE_PERIODS)
    assert figures(still)[:2] == (pytest.approx(0.5), pytest.approx(0.5))
    least, greatest, _ = figures(Rig('rolling', **LATE).run(1.4, **THREE_PERIODS))
    assert least < 0.0 and greatest > 1.0
    off = Rig('rolling', replacement=Replacement.IMMEDIATE, **LATE).run(1.4, **THREE_PERIODS)
    assert figures(off)[:2] == (pytest.approx(0.5), pytest.approx(0.5))


def test_the_same_seed_gives_the_same_commands():
    runs = [Rig(seed=seed, **LATE).run(0.5, **ONE_PERIOD).commands for seed in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])
