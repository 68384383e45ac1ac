"""Device and dtype of the model, from the names in options and parameters."""

import os

import torch


def choose_device(name: str) -> torch.device:
    """
    Return the device of `auto`, `cuda` or `cpu`.

    :raises ValueError: the name is cuda and there is no CUDA device.
    """
    available = torch.cuda.is_available()
    if name == 'cuda' and not available:
        raise ValueError('device is cuda, but torch finds no CUDA device; expected auto or cpu')
    return torch.device('cuda' if name != 'cpu' and available else 'cpu')


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of a name; `auto` is bfloat16 on cuda and float32 elsewhere."""
    if name == 'auto':
        name = 'bfloat16' if device.type == 'cuda' else 'float32'
    return getattr(torch, name)


def reserve_one_core() -> None:
    """Let torch use all cores but one on the calling thread, for callbacks and control."""
    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))
