"""Action channels: robot units to the network's normalized channels and back."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
import torch

from lingbot_va_ros.policy.inference.normalization import denormalize, normalize

USED = (14, 28, 3)  # in the robot's order, which is not that of the channels
Q01, Q99 = np.zeros(30, np.float32), np.zeros(30, np.float32)
Q01[list(USED)], Q99[list(USED)] = [-1.0, 0.0, 2.0], [1.0, 0.5, 6.0]


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 1000))
def test_robot_units_survive_the_way_there_and_back(frames, actions, seed):
    robot = np.random.default_rng(seed).uniform(-3, 8, (3, frames, actions)).astype(np.float32)
    channels = normalize(robot, USED, Q01, Q99)
    assert channels.shape == (1, 30, frames, actions, 1) and channels.dtype == torch.float32
    np.testing.assert_allclose(denormalize(channels, USED, Q01, Q99), robot, atol=1e-4)


def test_the_quantiles_become_minus_one_and_one():
    robot = np.stack([Q01[list(USED)], Q99[list(USED)]], -1)[:, None]
    channels = normalize(robot, USED, Q01, Q99)[0, :, 0, :, 0]
    torch.testing.assert_close(
        channels[list(USED)], torch.tensor([[-1.0, 1.0]] * 3), rtol=0, atol=1e-5)


def test_each_row_goes_to_its_channel_and_unused_ones_are_zero():
    robot = np.array([0.5, 0.25, 3.0], np.float32).reshape(3, 1, 1)
    channels = normalize(robot, USED, Q01, Q99).flatten()
    assert channels[[14, 28, 3]].tolist() == pytest.approx([0.5, 0.0, -0.5], abs=1e-5)
    assert channels.count_nonzero() <= 3


def test_nothing_is_clipped():
    robot = np.full((3, 1, 1), 100.0)
    assert normalize(robot, USED, Q01, Q99).max() > 10


def test_a_channel_of_equal_quantiles_stays_finite():
    q = np.full(30, 0.7, np.float32)
    channels = normalize(np.full((3, 1, 1), 0.7, np.float32), USED, q, q)
    assert channels.isfinite().all()
    np.testing.assert_allclose(denormalize(channels, USED, q, q), 0.7, atol=1e-6)


@pytest.mark.parametrize('shape', [(2, 1, 4), (4, 1, 4), (3, 4)])
def test_another_shape_is_refused_with_the_one_expected(shape):
    with pytest.raises(ValueError, match=r'expected \[3, frames, actions\]'):
        normalize(np.zeros(shape), USED, Q01, Q99)
