"""The flow-matching schedule: noise levels from 1 to 0, and the Euler step."""


import torch
from torch import Tensor

TIMESTEP_SCALE = 1000.0


def noise_levels(steps: int, shift: float) -> Tensor:
    """
    Return the noise levels sigma of `steps` denoising steps, [steps] float32, decreasing from 1.

    Evenly spaced from 1 to 1 / steps, then shifted: s * x / (1 + (s - 1) * x). The level after the
    last step is 0.

    :raises ValueError: fewer than one step, or a shift that is not positive.
    """
    if steps < 1:
        raise ValueError(f'{steps} denoising steps; at least 1 is needed')
    if not shift > 0:
        raise ValueError(f'a shift of {shift}; it must be positive')
    return shifted(torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float32)[:-1], shift)


def shifted(levels: Tensor, shift: float) -> Tensor:
    """Shift noise levels in [0, 1], towards 1 if s > 1: s * x / (1 + (s - 1) * x)."""
    return shift * levels / (1 + (shift - 1) * levels)


def timesteps(steps: int, shift: float) -> list[float]:
    """Return the network's time step at each denoising step, 1000 sigma, as floats on the host."""
    return (noise_levels(steps, shift) * TIMESTEP_SCALE).tolist()


def euler_step(sample: Tensor, velocity: Tensor, index: int, levels: Tensor) -> Tensor:
    """
    Take one Euler step of a sample from noise level `index` to the next lower one.

    :param sample: any shape.
    :param velocity: the network's output, of the same shape.
    :param levels: result of `noise_levels`; 0 follows the last level.
    """
    following = float(levels[index + 1]) if index + 1 < len(levels) else 0.0
    return sample + velocity * (following - float(levels[index]))


def nearest_index(timestep: float, levels: Tensor) -> int:
    """Return the step with the nearest time step (the last one for 0)."""
    return int((levels * TIMESTEP_SCALE - timestep).abs().argmin())
