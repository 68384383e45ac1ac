"""Write a checkpoint folder in the public layout from a run's parts, and its model card."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import json
from pathlib import Path
import shutil
from typing import Any

import torch
from torch import Tensor
import yaml

from lingbot_va_ros.atomic_files import atomic_folder
from lingbot_va_ros.model.checkpoint import save_transformer, transformer_tensors
from lingbot_va_ros.model.mixture_of_transformers import make_network
from lingbot_va_ros.specs.checkpoint_config import TransformerConfig

PARTS = ('transformer', 'vae', 'text_encoder', 'tokenizer')


@dataclass(frozen=True)
class Facts:
    """
    What a model card says; everything comes from the run itself.

    :param command: what trained it, as it can be typed again.
    :param rows: a title and what there is to say to it.
    :param settings: all of them, as YAML.
    :param notes: what a person wrote about the run.
    :param success: per task, schedule or memory, a line of closed-loop figures.
    """

    name: str
    command: str
    rows: Mapping[str, str]
    settings: str
    success: Sequence[str] = field(default_factory=tuple)
    notes: str = ''


def export_checkpoint(
    folder: Path, config: TransformerConfig, weights: Mapping[str, Tensor], vae: Path, text: Path,
    policy: Mapping[str, Any], facts: Facts,
) -> int:
    """
    Write the folder anew, whole or not at all, and return its size in bytes.

    Transformer and text encoder are float32, the codec bfloat16.

    :param weights: of the network, by the names of its parameters.
    :param vae: a vae/ folder; `text` a folder with text_encoder/ and tokenizer/.
    :param policy: the fields of its policy.yaml.
    """
    with torch.device('meta'):
        network = make_network(config)
    network.load_state_dict(dict(weights), assign=True)
    with atomic_folder(Path(folder)) as unfinished:
        save_transformer(unfinished / 'transformer', config, transformer_tensors(network))
        shutil.copytree(vae, unfinished / 'vae')
        for part in ('text_encoder', 'tokenizer'):
            shutil.copytree(text / part, unfinished / part)
        (unfinished / 'policy.yaml').write_text(
            yaml.safe_dump(dict(policy), sort_keys=False, default_flow_style=None))
        (unfinished / 'README.md').write_text(model_card(facts))
        return sum(path.stat().st_size for path in unfinished.rglob('*') if path.is_file())


def model_card(facts: Facts) -> str:
    """Return README.md of a checkpoint."""
    lines = [
        f'# {facts.name}',
        'A small LingBot-VA (an autoregressive video-action world model) for the simulated arm '
        'of this package, in the layout of the public checkpoints.', '']
    lines += ['| | |', '|---|---|']
    lines += [f'| {title} | {text} |' for title, text in facts.rows.items()]
    lines += ['', '```', facts.command, '```', '']
    lines += ['## Closed loop', *(facts.success or ['Not measured.']), '']
    if facts.notes:
        lines += ['## Notes', facts.notes.strip(), '']
    lines += ['## Settings', '```yaml', facts.settings.rstrip(), '```', '']
    return '\n'.join(lines)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log; one that was cut off while it was written is left out."""
    lines = []
    if path.is_file():
        for line in path.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
    return lines
