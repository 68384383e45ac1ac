"""What a 1 kHz controller of an FR3 makes of our commands keeps libfranka's limits."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import yaml

from lingbot_va_ros.mux.command_stream import CommandStream
from lingbot_va_ros.mux.goal import even_goal
from lingbot_va_ros.specs.embodiment import JointLimits

# libfranka, include/franka/rate_limiting.h: rad/s² and rad/s³ of every joint.
ACCELERATION, JERK = 10.0, 5000.0
PERIOD, CYCLE = 10_000_000, 1_000_000
SHIPPED = Path(__file__).parents[2] / 'config' / 'embodiments'
ARMS = (('dual_franka', 'left_fr3'), ('dual_franka', 'right_fr3'), ('single_fr3', 'fr3'))


def shipped_limits(name='dual_franka', arm='left_fr3'):
    """Return the limits of an arm's joints as the embodiment file ships them."""
    section = yaml.safe_load((SHIPPED / f'{name}.yaml').read_text())['limits']
    rows = [section[f'{arm}_joint{number}'] for number in range(1, 8)]
    columns = {
        key: np.array([float(row[key]) for row in rows])
        for key in ('lower', 'upper', 'velocity', 'acceleration', 'jerk', 'stop_jerk')}
    return JointLimits(**columns)


@pytest.mark.parametrize('delay_ns', [0, 3_000_000, 9_000_000])
@pytest.mark.parametrize('ends_with', ['emergency stop', 'gentle stop', 'retreat', 'no command'])
def test_every_cycle_of_a_motion_and_its_stop_is_inside_libfrankas_limits(ends_with, delay_ns):
    limits = shipped_limits()
    middle, half = (limits.lower + limits.upper) / 2, (limits.upper - limits.lower) / 2
    random = np.random.default_rng(3)
    for _ in range(4):
        stream = CommandStream(limits, PERIOD)
        stream.begin(0, middle, np.zeros(7))
        sent = []  # (time from which the controller follows it, command)
        ticks = int(random.integers(20, 80))
        for tick in range(ticks):
            if tick % 16 == 0:
                goal = even_goal(middle + half * random.uniform(-1, 1, 7))
            now = tick * PERIOD
            sent.append((now + delay_ns, stream.follow(now, lambda _: (goal, 1.0))))
        now = ticks * PERIOD
        if ends_with == 'retreat':
            sent.append((now + delay_ns, stream.retreat(now, middle)))
        elif ends_with != 'no command':
            sent.append((now + delay_ns, stream.stop(now, ends_with == 'gentle stop')))
        positions = [middle] * 4
        for now in range(delay_ns, sent[-1][1].end_ns + 3 * CYCLE, CYCLE):
            command = [each for begin, each in sent if begin <= now][-1]
            positions.append(command.sample(now)[0])
        speeds = np.diff(positions, axis=0) / (CYCLE * 1e-9)
        accelerations = np.diff(speeds, axis=0) / (CYCLE * 1e-9)
        jerks = np.diff(accelerations, axis=0) / (CYCLE * 1e-9)
        assert np.abs(speeds[-1]).max() < 1e-6, 'it does not end at rest'
        assert np.abs(speeds).max(axis=0).max() > 0.3
        assert np.all(np.abs(speeds) <= limits.velocity * (1 + 1e-3))
        assert np.abs(accelerations).max() <= ACCELERATION
        assert np.abs(jerks).max() <= JERK


@pytest.mark.parametrize('name, arm', ARMS)
def test_the_shipped_limits_are_inside_libfrankas(name, arm):
    limits = shipped_limits(name, arm)
    assert np.all(limits.acceleration < ACCELERATION)
    assert np.all(limits.jerk < JERK) and np.all(limits.stop_jerk < JERK)


@pytest.mark.parametrize('name, arm', ARMS)
def test_all_arms_have_the_limits_of_the_tested_one(name, arm):
    """So the motions above speak for each of them."""
    for field in dataclasses.fields(JointLimits):
        np.testing.assert_array_equal(
            getattr(shipped_limits(name, arm), field.name), getattr(shipped_limits(), field.name))
