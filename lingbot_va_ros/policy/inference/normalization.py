"""Action channels: robot units to the network's normalized channels and back."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# Keeps the division finite if both quantiles are equal; the value of the public code.
QUANTILE_FLOOR = 1e-6


def normalize(
    actions: np.ndarray, used: Sequence[int], q01: np.ndarray, q99: np.ndarray,
) -> Tensor:
    """
    Return normalized actions, [1, C, F, N, 1] float32, unused channels 0.

    Quantile normalization: q01 becomes -1 and q99 becomes 1; nothing is clipped.

    :param actions: [used, F, N] in robot units, in the order of `used`.
    :param used: the model channel of each row.
    :param q01: per model channel [C], as `q99`.
    :raises ValueError: the number of rows is not that of the used channels.
    """
    if actions.ndim != 3 or actions.shape[0] != len(used):
        raise ValueError(
            f'actions of shape {list(actions.shape)}; expected [{len(used)}, frames, actions]')
    channels = torch.zeros((1, len(q01), *actions.shape[1:], 1), dtype=torch.float32)
    low, high = _columns(q01, used), _columns(q99, used)
    values = torch.from_numpy(np.ascontiguousarray(actions, dtype=np.float32))
    channels[0, list(used), ..., 0] = (values - low) / (high - low + QUANTILE_FLOOR) * 2 - 1
    return channels


def denormalize(
    channels: Tensor, used: Sequence[int], q01: np.ndarray, q99: np.ndarray,
) -> np.ndarray:
    """Return robot units, [used, F, N] float32, of normalized actions [1, C, F, N, 1]."""
    low, high = _columns(q01, used), _columns(q99, used)
    values = channels[0, list(used), ..., 0].float().cpu()
    return ((values + 1) / 2 * (high - low + QUANTILE_FLOOR) + low).numpy()


def _columns(quantiles: np.ndarray, used: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.asarray(quantiles, np.float32)[list(used)])[:, None, None]
