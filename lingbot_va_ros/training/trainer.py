"""
The training loop: draw, forward, backward, step, remember; stop and go on at any step.

A step depends on nothing but the weights, the optimiser's state and its own number, so that a run
that was stopped takes the very steps that it would have taken.
"""

import contextlib
import math
from pathlib import Path
import time

import torch
from torch import nn

from lingbot_va_ros.training.batch_sampling import Drawn, Episodes
from lingbot_va_ros.training.examples import draw_last_chunk_step, draw_step, Examples
from lingbot_va_ros.training.network import new_trained_network, TrainedNetwork
from lingbot_va_ros.training.process_group import shard, take_state, whole, whole_state, World
from lingbot_va_ros.training.settings import TrainingSettings
from lingbot_va_ros.training.state import (
    load_state,
    Report,
    RunningMean,
    save_state,
    Stop,
    warm_cosine,
)

SAVE_EVERY = 60.0  # seconds, at most; a state is a few MB for a small network
REPORT_EVERY = 10  # steps
LAST_CHUNK_PIECES = 8  # pairs of chunks that stand for an episode of a batch
FULL, LAST_CHUNK = 'full', 'last_chunk'


class Trainer:
    """
    A network in training, in the state that `path` has, or at its beginning.

    :param path: of the file with the state; every process may read it, the first one writes it.
    :param history: what a chunk is predicted from: `full`, or the `last_chunk` alone.
    :param initial: a transformer/ folder to begin with; None draws the weights.
    :param half: whether matrix products are in bfloat16 (autocast).
    :raises ValueError: the state is damaged, or of other settings; or the batch cannot be split.
    """

    def __init__(
        self, settings: TrainingSettings, examples: Examples, path: Path, world: World,
        history: str = FULL, chunk_frames: int = 2, half: bool = False,
        initial: Path | None = None,
    ):
        if settings.training.batch % world.size:
            raise ValueError(
                f'training.batch is {settings.training.batch}; expected a multiple of the '
                f'{world.size} processes')
        self.settings, self.examples, self.world = settings, examples, world
        self._path, self._history, self._chunk_frames = path, history, chunk_frames
        self._half = half
        self.model: TrainedNetwork = new_trained_network(
            settings, initial, examples.bodies).to(world.device)
        shard(self.model, world)
        self.mean = RunningMean(self.model, settings.training.ema)
        self.optimiser = torch.optim.AdamW(
            _groups(self.model, settings.training.weight_decay),
            lr=settings.training.learning_rate, betas=(0.9, 0.95))
        self.step = 0
        self.seconds = 0.0  # spent in steps, over all runs
        state = load_state(path)
        if state is not None:
            if state['history'] != history:
                raise ValueError(f'{path} was trained with the history {state["history"]}')
            try:
                take_state(self.model, self.optimiser, self.mean.tensors, state)
            except (RuntimeError, KeyError) as error:
                raise ValueError(
                    f'{path} belongs to other settings: {" ".join(str(error).split())[:200]}'
                ) from None
            self.step, self.seconds = state['step'], state['seconds']

    @property
    def done(self) -> bool:
        """Whether all steps were taken."""
        return self.step >= self.settings.training.steps

    def save(self) -> None:
        """Write the state; all processes must call this."""
        state = whole_state(self.model, self.optimiser, self.mean.tensors)
        if self.world.first:
            save_state(self._path, {
                **state, 'step': self.step, 'seconds': self.seconds, 'history': self._history})
        self.world.wait()

    def run(self, stop: Stop, report: Report, until: int | None = None) -> None:
        """
        Take steps until the last one (or number `until`), or until `stop`; then save.

        :param report: takes the figures of a step now and then, in the first process only.
        """
        last = self.settings.training.steps if until is None else until
        saved, told, steps = time.monotonic(), time.monotonic(), 0
        while self.step < last and not self.world.any(stop()):
            begun = time.monotonic()
            losses = self.take_step()
            self.seconds += time.monotonic() - begun
            steps += 1
            if self.step % REPORT_EVERY == 0 or self.step == last:
                figures = self._figures(losses)
                now = time.monotonic()
                figures['seconds_per_step'] = (now - told) / steps
                told, steps = now, 0
                if self.world.first:
                    report(figures)
            if self.world.any(time.monotonic() - saved > SAVE_EVERY):
                self.save()
                saved = time.monotonic()
        self.save()

    def take_step(self) -> dict[str, torch.Tensor]:
        """Take one step and return its losses, by name."""
        trainer = self.settings.training
        rate = trainer.learning_rate * warm_cosine(self.step, trainer.warm_up, trainer.steps)
        for group in self.optimiser.param_groups:
            group['lr'] = rate
        episodes, drawn = self._draw()
        device = self.world.device
        half = (torch.autocast(device.type, torch.bfloat16) if self._half
                else contextlib.nullcontext())
        with half:
            losses = self.model(episodes.to(device), drawn.to(device))
        self.optimiser.zero_grad(set_to_none=True)
        losses.total.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), trainer.gradient_norm)
        if hasattr(norm, 'full_tensor'):
            norm = norm.full_tensor()
        self.optimiser.step()
        self.step += 1
        self.mean.follow(self.model, self.step)
        found = {'total': losses.total.detach(), 'dynamics': losses.dynamics,
                 'forward_dynamics': losses.forward_dynamics, 'inverse': losses.inverse,
                 'gradient': norm.detach()}
        for name in ('events', 'places'):
            if getattr(losses, name) is not None:
                found[name] = getattr(losses, name)
        return found

    def mean_weights(self) -> dict[str, torch.Tensor]:
        """Return the mean weights of the network whole, on the CPU; all processes must call."""
        return {name.removeprefix('network.'): whole(tensor)
                for name, tensor in self.mean.tensors.items() if name.startswith('network.')}

    def _draw(self) -> tuple[Episodes, Drawn]:
        settings = self.settings.training
        count = settings.batch // self.world.size
        seed = (self.settings.seed, self.step, self.world.rank)
        if self._history == LAST_CHUNK:
            return draw_last_chunk_step(
                self.examples, count * LAST_CHUNK_PIECES, settings.draw, self._chunk_frames, seed)
        return draw_step(self.examples, count, settings.draw, seed)

    def _figures(self, losses: dict[str, torch.Tensor]) -> dict[str, float]:
        values = self.world.mean(torch.stack([value.float() for value in losses.values()]))
        # A batch without forward dynamics, say, has no such loss.
        there = {name: value for name, value in zip(losses, values.tolist())
                 if math.isfinite(value)}
        return {'step': self.step, 'steps': self.settings.training.steps,
                'learning_rate': self.optimiser.param_groups[0]['lr'], **there}


def _groups(module: nn.Module, weight_decay: float) -> list:
    """Matrices decay; biases, norms and modulations do not."""
    matrices = [weight for name, weight in module.named_parameters()
                if weight.dim() == 2 and 'modulation' not in name]
    others = [weight for name, weight in module.named_parameters()
              if weight.dim() != 2 or 'modulation' in name]
    return [{'params': matrices, 'weight_decay': weight_decay},
            {'params': others, 'weight_decay': 0.0}]
