"""The flow-matching schedule: noise levels, time steps and Euler steps."""

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest
import torch

from lingbot_va_ros.model.flow_matching import euler_step, nearest_index, noise_levels, timesteps


@given(st.integers(1, 100), st.floats(0.01, 20))
@settings(deadline=None, max_examples=60)
def test_noise_levels_fall_from_one_and_stay_above_zero(steps, shift):
    levels = noise_levels(steps, shift)
    assert levels.shape == (steps,) and levels.dtype == torch.float32
    assert levels[0] == pytest.approx(1, abs=1e-6)
    assert (levels.diff() < 0).all() and levels[-1] > 0


def test_without_a_shift_noise_levels_are_evenly_spaced():
    torch.testing.assert_close(noise_levels(4, 1.0), torch.tensor([1.0, 0.75, 0.5, 0.25]))


def test_a_shift_above_one_keeps_the_noise_longer():
    torch.testing.assert_close(noise_levels(2, 5.0), torch.tensor([1.0, 5 / 6]))


def test_time_steps_are_a_thousand_times_the_noise_levels():
    assert timesteps(2, 1.0) == [1000.0, 500.0]


def test_all_steps_together_go_the_whole_way_along_a_constant_velocity():
    levels = noise_levels(7, 5.0)
    noise, data = torch.randn(3, 4), torch.randn(3, 4)
    sample = noise
    for index in range(7):
        sample = euler_step(sample, noise - data, index, levels)
    torch.testing.assert_close(sample, data)


def test_a_time_step_of_zero_is_the_last_step():
    assert nearest_index(0.0, noise_levels(5, 5.0)) == 4


@given(st.integers(1, 60), st.sampled_from([0.05, 1.0, 5.0]))
@settings(deadline=None, max_examples=40)
def test_every_time_step_is_found_again(steps, shift):
    levels = noise_levels(steps, shift)
    assert [nearest_index(time, levels) for time in timesteps(steps, shift)] == list(range(steps))


@pytest.mark.parametrize('steps', [0, -1])
def test_fewer_than_one_step_is_refused(steps):
    with pytest.raises(ValueError, match=f'{steps} denoising steps'):
        noise_levels(steps, 1.0)


@pytest.mark.parametrize('shift', [0.0, -1.0, float('nan')])
def test_a_shift_that_is_not_positive_is_refused(shift):
    with pytest.raises(ValueError, match='a shift of'):
        noise_levels(5, shift)
