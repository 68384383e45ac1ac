"""
The training loop of the transformer; it can stop and resume at any step.

A step depends only on the weights, the optimizer's state and its index, so a resumed run is equal
to an uninterrupted one.
"""

import contextlib
import math
from pathlib import Path
import time

import torch
from torch import nn

from lingbot_va_ros.training.batch_sampling import BatchSample, EpisodeBatch
from lingbot_va_ros.training.examples import Examples, sample_last_chunk_step, sample_step
from lingbot_va_ros.training.network import new_trained_network, TrainedNetwork
from lingbot_va_ros.training.process_group import (
    full_state,
    full_tensor,
    load_full_state,
    ProcessGroup,
    shard,
)
from lingbot_va_ros.training.settings import TrainingSettings
from lingbot_va_ros.training.state import EMA, load_state, Report, save_state, Stop, warmup_cosine

SAVE_EVERY = 60.0  # seconds; the state of a small network is a few MB
REPORT_EVERY = 10  # steps
PAIRS_PER_EPISODE = 8  # chunk pairs that replace an episode of a batch
FULL, LAST_CHUNK = 'full', 'last_chunk'


class Trainer:
    """
    A network in training, resumed from the state in `path`, or new.

    :param path: the state file; every process reads it, the main process writes it.
    :param history: the history that a chunk is predicted from: `full` or `last_chunk`.
    :param chunk_frames: latent frames of a chunk, for the history `last_chunk`.
    :param bf16: whether matrix products are computed in bfloat16 (autocast).
    :param initial: a transformer/ folder with the initial weights; None: random.
    :raises ValueError: the state is damaged or has other settings, or the batch cannot be split.
    """

    def __init__(
        self, settings: TrainingSettings, examples: Examples, path: Path, group: ProcessGroup,
        history: str = FULL, chunk_frames: int = 2, bf16: bool = False,
        initial: Path | None = None,
    ):
        if settings.training.batch % group.size:
            raise ValueError(
                f'training.batch is {settings.training.batch}; expected a multiple of the '
                f'{group.size} processes')
        self.settings, self.examples, self.group = settings, examples, group
        self._path, self._history, self._chunk_frames = path, history, chunk_frames
        self._bf16 = bf16
        self.model: TrainedNetwork = new_trained_network(
            settings, initial, examples.bodies).to(group.device)
        shard(self.model, group)
        self.ema = EMA(self.model, settings.training.ema)
        self.optimizer = torch.optim.AdamW(
            _groups(self.model, settings.training.weight_decay),
            lr=settings.training.learning_rate, betas=(0.9, 0.95))
        self.step = 0
        self.seconds = 0.0  # in steps, over all sessions of the run
        state = load_state(path)
        if state is not None:
            if state['history'] != history:
                raise ValueError(f'{path} was trained with the history {state["history"]}')
            try:
                load_full_state(self.model, self.optimizer, self.ema.tensors, state)
            except (RuntimeError, KeyError) as error:
                raise ValueError(
                    f'{path} belongs to other settings: {" ".join(str(error).split())[:200]}'
                ) from None
            self.step, self.seconds = state['step'], state['seconds']

    @property
    def done(self) -> bool:
        """Return whether all steps were taken."""
        return self.step >= self.settings.training.steps

    def save(self) -> None:
        """Write the state; all processes must call this."""
        state = full_state(self.model, self.optimizer, self.ema.tensors)
        if self.group.is_main:
            save_state(self._path, {
                **state, 'step': self.step, 'seconds': self.seconds, 'history': self._history})
        self.group.barrier()

    def run(self, stop: Stop, report: Report, until: int | None = None) -> None:
        """
        Take steps until the last one (or number `until`), or until `stop`; then save.

        :param report: receives the figures of every tenth step, in the main process only.
        """
        last = self.settings.training.steps if until is None else until
        saved, reported, steps = time.monotonic(), time.monotonic(), 0
        while self.step < last and not self.group.any(stop()):
            begun = time.monotonic()
            losses = self.take_step()
            self.seconds += time.monotonic() - begun
            steps += 1
            if self.step % REPORT_EVERY == 0 or self.step == last:
                figures = self._figures(losses)
                now = time.monotonic()
                figures['seconds_per_step'] = (now - reported) / steps
                reported, steps = now, 0
                if self.group.is_main:
                    report(figures)
            if self.group.any(time.monotonic() - saved > SAVE_EVERY):
                self.save()
                saved = time.monotonic()
        self.save()

    def take_step(self) -> dict[str, torch.Tensor]:
        """Take one step and return its losses, by name."""
        trainer = self.settings.training
        rate = trainer.learning_rate * warmup_cosine(self.step, trainer.warm_up, trainer.steps)
        for group in self.optimizer.param_groups:
            group['lr'] = rate
        episodes, sample = self._sample_step()
        device = self.group.device
        autocast = (torch.autocast(device.type, torch.bfloat16) if self._bf16
                    else contextlib.nullcontext())
        with autocast:
            losses = self.model(episodes.to(device), sample.to(device))
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), trainer.gradient_norm)
        if hasattr(norm, 'full_tensor'):
            norm = norm.full_tensor()
        self.optimizer.step()
        self.step += 1
        self.ema.update(self.model, self.step)
        found = {'total': losses.total.detach(), 'dynamics': losses.dynamics,
                 'forward_dynamics': losses.forward_dynamics, 'inverse': losses.inverse,
                 'gradient': norm.detach()}
        for name in ('events', 'places'):
            if getattr(losses, name) is not None:
                found[name] = getattr(losses, name)
        return found

    def ema_weights(self) -> dict[str, torch.Tensor]:
        """Return the full EMA weights of the network, on the CPU; all processes must call this."""
        return {name.removeprefix('network.'): full_tensor(tensor)
                for name, tensor in self.ema.tensors.items() if name.startswith('network.')}

    def _sample_step(self) -> tuple[EpisodeBatch, BatchSample]:
        settings = self.settings.training
        count = settings.batch // self.group.size
        seed = (self.settings.seed, self.step, self.group.rank)
        if self._history == LAST_CHUNK:
            return sample_last_chunk_step(
                self.examples, count * PAIRS_PER_EPISODE, settings.draw, self._chunk_frames, seed)
        return sample_step(self.examples, count, settings.draw, seed)

    def _figures(self, losses: dict[str, torch.Tensor]) -> dict[str, float]:
        values = self.group.mean(torch.stack([value.float() for value in losses.values()]))
        # A loss without frames in the batch is NaN.
        finite = {name: value for name, value in zip(losses, values.tolist())
                 if math.isfinite(value)}
        return {'step': self.step, 'steps': self.settings.training.steps,
                'learning_rate': self.optimizer.param_groups[0]['lr'], **finite}


def _groups(module: nn.Module, weight_decay: float) -> list:
    """Return parameter groups: matrices with weight decay; biases, norms, modulations without."""
    matrices = [weight for name, weight in module.named_parameters()
                if weight.dim() == 2 and 'modulation' not in name]
    others = [weight for name, weight in module.named_parameters()
              if weight.dim() != 2 or 'modulation' in name]
    return [{'params': matrices, 'weight_decay': weight_decay},
            {'params': others, 'weight_decay': 0.0}]
