"""What a stage of training needs to go on where it was stopped: files that are whole or absent."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lingbot_va_ros.atomic_files import atomic_file


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values; a reader sees the old file or the new one, never a part."""
    with atomic_file(path, durable=True) as unfinished, open(unfinished, 'wb') as file:
        torch.save(state, file)


def load_state(path: Path, device: torch.device = torch.device('cpu')) -> dict[str, Any] | None:
    """
    Return what `save_state` wrote, or None where there is no file.

    :raises ValueError: the file is damaged; the message names it.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever unpickling makes of a damaged file
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
        raise ValueError(f'{path} is no state that can be read: {reason}') from None


class RunningMean:
    """
    A running mean of a module's weights, which act better than those of the last step.

    :param decay: for each step; less at first, so that the beginning is soon forgotten.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.tensors = {
            name: weight.detach().clone() for name, weight in module.named_parameters()}

    @torch.no_grad()
    def follow(self, module: nn.Module, step: int) -> None:
        """Take the weights after step `step`, counted from 1, into the mean."""
        decay = min(self.decay, step / (step + 9))
        for name, weight in module.named_parameters():
            self.tensors[name].lerp_(weight, 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Put the mean in the place of the module's weights."""
        for name, weight in module.named_parameters():
            weight.copy_(self.tensors[name])


def warm_cosine(step: int, warm_up: int, steps: int, floor: float = 0.05) -> float:
    """Return the share of the learning rate at a step: up in a line, then down in a cosine."""
    if step < warm_up:
        return (step + 1) / warm_up
    done = min(1.0, (step - warm_up) / max(1, steps - warm_up))
    return floor + (1 - floor) * 0.5 * (1 + float(torch.cos(torch.tensor(done * torch.pi))))


Stop = Callable[[], bool]
Report = Callable[[dict[str, Any]], None]
