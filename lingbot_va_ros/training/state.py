"""State files of stages, the EMA of weights and the learning-rate schedule."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lingbot_va_ros.atomic_files import atomic_file


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values atomically: a reader sees the old file or the new one."""
    with atomic_file(path, durable=True) as unfinished, open(unfinished, 'wb') as file:
        torch.save(state, file)


def load_state(path: Path, device: torch.device = torch.device('cpu')) -> dict[str, Any] | None:
    """
    Return the state that `save_state` wrote, or None if there is no file.

    :raises ValueError: the file is damaged; the message names it.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        return None
    except Exception as error:  # unpickling a damaged file may raise anything
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
        raise ValueError(f'{path} is not a readable state: {reason}') from None


class EMA:
    """
    Exponential moving average of a module's weights, which predicts better than the last weights.

    :param decay: decay per step; smaller during the first steps.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.tensors = {
            name: weight.detach().clone() for name, weight in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Add the weights after step `step`, counted from 1, to the average."""
        decay = min(self.decay, step / (step + 9))
        for name, weight in module.named_parameters():
            self.tensors[name].lerp_(weight, 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Replace the module's weights by the average."""
        for name, weight in module.named_parameters():
            weight.copy_(self.tensors[name])


def warmup_cosine(step: int, warm_up: int, steps: int, floor: float = 0.05) -> float:
    """Return the factor of the learning rate at a step: linear warm-up, then cosine decay."""
    if step < warm_up:
        return (step + 1) / warm_up
    done = min(1.0, (step - warm_up) / max(1, steps - warm_up))
    return floor + (1 - floor) * 0.5 * (1 + float(torch.cos(torch.tensor(done * torch.pi))))


Stop = Callable[[], bool]
Report = Callable[[dict[str, Any]], None]
