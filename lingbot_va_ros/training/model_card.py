"""The model card of a trained checkpoint, generated from the files of the run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import json
import os
from pathlib import Path
import platform
from typing import Any

import numpy as np
import torch

from lingbot_va_ros.training.run_folder import RunFolder
from lingbot_va_ros.training.settings import settings_text, TrainingSettings
from lingbot_va_ros.training.trainer import FULL, LAST_CHUNK, PAIRS_PER_EPISODE

FIRST_CHECK_SEED = 0  # of the scenes of closed-loop checks, which are not trained on


@dataclass(frozen=True)
class ModelCard:
    """
    The contents of a checkpoint's README.md.

    :param command: the command line that reproduces the training.
    :param rows: title and text of each row of the table.
    :param settings: all settings, as YAML.
    :param success: per task, schedule or memory, a line of closed-loop figures.
    :param notes: the user's text about the run.
    """

    name: str
    command: str
    rows: Mapping[str, str]
    settings: str
    success: Sequence[str] = field(default_factory=tuple)
    notes: str = ''

    def text(self) -> str:
        """Return the card as Markdown."""
        lines = [
            f'# {self.name}',
            'A small LingBot-VA (an autoregressive video-action world model) for the simulated '
            'arm of this package, in the layout of the public checkpoints.', '']
        lines += ['| | |', '|---|---|']
        lines += [f'| {title} | {text} |' for title, text in self.rows.items()]
        lines += ['', '```', self.command, '```', '']
        lines += ['## Closed loop', *(self.success or ['Not measured.']), '']
        if self.notes:
            lines += ['## Notes', self.notes.strip(), '']
        lines += ['## Settings', '```yaml', self.settings.rstrip(), '```', '']
        return '\n'.join(lines)


def make_model_card(run: RunFolder, step: int, command: str | None) -> ModelCard:
    """Return the card of a run's weights at a step of the transformer."""
    settings, log = run.settings, read_log(run.log)
    newest = {line['stage']: line for line in read_log(run.folder / 'log.jsonl')}
    data = settings.data
    examples: Mapping[str, Any] = next(
        (line for line in reversed(log) if line['stage'] == 'examples'), {})
    trained = [line for line in log if line['stage'] == 'network']
    full = run.history == FULL
    pieces = ('episodes' if full
              else f'times {PAIRS_PER_EPISODE} pairs of consecutive chunks')
    begin = 'weights, video VAE' if full else 'video VAE'
    rows = {
        'Data': f'{examples.get("episodes", 0)} episodes ({examples.get("frames", 0)} '
        f'latent frames) of {" and ".join(settings.tasks)} by scripted experts, seeds from '
        f'{data.first_seed} on; the first {data.held_out} of each were held out',
        **({'Began with': f'the {begin} and text encoder of an earlier checkpoint'}
           if run.initial.is_dir() else {}),
        'Network': f'mixture of transformers, {settings.network.layers} layers, video '
        f'{settings.network.heads * settings.network.head_dim} wide, actions '
        f'{settings.network.action_dim or "in the same stream"}',
        'Steps': f'{step} of {settings.training.batch} {pieces}, seed {settings.seed}, mean '
        f'weights (decay {settings.training.ema:g})',
        'Memory in training': 'the whole episode' if full
        else 'the last chunk alone (a baseline)',
        'Auxiliary losses': _auxiliary_losses(settings),
        'Hardware': f'{run.group.size} x {_hardware(run.group.device)}',
        'Weights': 'transformer and text encoder float32, video VAE bfloat16',
    }
    if trained:
        rows['Time'] = f'{_training_seconds(log) / 60:.0f} min in steps of the transformer'
        rows['Losses at the end'] = _last_losses(trained)
    if 'probe' in newest:
        rows['Linear probe of the latents, held-out episodes'] = '; '.join(
            f'{task}: ' + ', '.join(f'{body} {error:.1f} mm' for body, error in found.items())
            for task, found in newest['probe']['mm'].items())
    if 'pictures' in newest:
        rows['Reconstruction, held-out episodes'] = '; '.join(
            f'{task}: {found["all"]:.1f} dB, marked pixels {found["marked"]:.1f} dB'
            for task, found in newest['pictures']['decibel'].items())
    notes = run.own / 'notes.md'
    checks = [line for line in log if line['stage'] == 'check' and line['step'] == step]
    return ModelCard(
        settings.name + ('' if full else f' ({LAST_CHUNK})'), command or 'lingbot_va train', rows,
        settings_text(settings), tuple(
            f'- {line["task"]}, in process, schedule sync: {line["successes"]} of '
            f'{line["episodes"]} (seeds from {FIRST_CHECK_SEED} on; counts: '
            + '; '.join(f'{count} x {what}' for what, count in line['counts'].items()) + ')'
            for line in checks),
        notes.read_text() if notes.is_file() else '')


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a run's log, without a line that a crash truncated."""
    lines = []
    if path.is_file():
        for line in path.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
    return lines


def _auxiliary_losses(settings: TrainingSettings) -> str:
    there = [f'{what}, weight {weight:g}' for what, weight in (
        ('the number of events so far', settings.training.events),
        ('where the bodies are', settings.training.places)) if weight]
    if not there:
        return 'none'
    return f'{" and ".join(there)}; their heads are not used for inference, nor in the files'


def _training_seconds(log: Sequence[dict[str, Any]]) -> float:
    lines = [line for line in log if line['stage'] == 'network' and 'seconds_per_step' in line]
    total, before = 0.0, 0
    for line in lines:
        total += line['seconds_per_step'] * max(0, line['step'] - before)
        before = line['step']
    return total


def _last_losses(lines: Sequence[dict[str, Any]]) -> str:
    found = []
    for name in ('dynamics', 'forward_dynamics', 'inverse', 'events', 'places'):
        values = [line[name] for line in lines[-20:] if name in line]
        if values:
            found.append(f'{name.replace("_", " ")} {np.mean(values):.4f}')
    return ', '.join(found)


def _hardware(device: torch.device) -> str:
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    try:
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                name = line.partition(':')[2].strip()
                break
    except OSError:
        pass
    return f'CPU ({name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads)'
