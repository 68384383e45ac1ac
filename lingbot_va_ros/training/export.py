"""Writes a checkpoint folder in the public layout from the parts of a run."""

from collections.abc import Mapping
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

CHECKPOINT_PARTS = ('transformer', 'vae', 'text_encoder', 'tokenizer')


def export_checkpoint(
    folder: Path, config: TransformerConfig, weights: Mapping[str, Tensor], vae: Path, text: Path,
    policy: Mapping[str, Any], readme: str,
) -> int:
    """
    Write the folder atomically, replacing an older one.

    Transformer and text encoder are float32, the video VAE bfloat16.

    :param weights: weights of the network, by parameter name.
    :param vae: a vae/ folder.
    :param text: a folder with text_encoder/ and tokenizer/.
    :param policy: the fields of its policy.yaml.
    :param readme: the model card, Markdown.
    :returns: the size of the folder in bytes.
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
        (unfinished / 'README.md').write_text(readme)
        return sum(path.stat().st_size for path in unfinished.rglob('*') if path.is_file())
