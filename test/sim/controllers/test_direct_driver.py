"""A driver of positions or velocities, without ROS and physics."""

import numpy as np

from lingbot_va_ros.sim.controllers.direct_driver import DirectDriver

MS = 1_000_000
LOWER, UPPER = np.array([-1.0, -1.0]), np.array([1.0, 1.0])


def measure():
    raise AssertionError('a direct driver measures nothing')


def driver(takes_velocities, timeout=0.0):
    made = DirectDriver(LOWER, UPPER, takes_velocities, timeout)
    made.begin(0, np.array([0.1, 0.2]))
    return made


def test_positions_are_held_from_their_time_on():
    positions = driver(False)
    positions.send(np.array([0.5, np.nan]), 10 * MS)
    np.testing.assert_array_equal(positions.advance(9 * MS, measure), [0.1, 0.2])
    np.testing.assert_array_equal(positions.advance(10 * MS, measure), [0.5, 0.2])
    positions.send(np.array([7.0, -7.0]), 20 * MS)
    np.testing.assert_array_equal(positions.advance(900 * MS, measure), [1.0, -1.0])


def test_velocities_go_on_without_a_timeout():
    velocities = driver(True)
    velocities.send(np.array([0.5, -0.1]), 10 * MS)
    np.testing.assert_allclose(velocities.advance(110 * MS, measure), [0.15, 0.19])
    np.testing.assert_allclose(velocities.advance(1110 * MS, measure), [0.65, 0.09])
    np.testing.assert_allclose(velocities.advance(9000 * MS, measure), [1.0, -0.699])


def test_velocities_end_after_the_timeout():
    velocities = driver(True, timeout=0.1)
    velocities.send(np.array([0.5, 0.0]), 0)
    for time_ms in range(2, 1000, 2):
        velocities.advance(time_ms * MS, measure)
    np.testing.assert_allclose(velocities.command, [0.15, 0.2], atol=0.002)


def test_a_stopped_driver_takes_nothing():
    positions = driver(False)
    positions.stop(np.array([0.3, 0.3]))
    positions.send(np.array([0.5, 0.5]), 10 * MS)
    np.testing.assert_array_equal(positions.advance(20 * MS, measure), [0.3, 0.3])
    assert not positions.active
