"""Finds the parts of a checkpoint in the public layout or in LeRobot's, and loads the network."""

from dataclasses import dataclass
from pathlib import Path

import torch

from lingbot_va_ros.lerobot.lora import Adapter
from lingbot_va_ros.lerobot.weights import frozen_folder, lerobot_weights, local_folder
from lingbot_va_ros.model.attention import Attention, sdpa
from lingbot_va_ros.model.checkpoint import build_transformer
from lingbot_va_ros.model.network_weights import NetworkWeights, public_weights
from lingbot_va_ros.model.transformer import Network
from lingbot_va_ros.specs.lerobot_folder import find_lerobot_folder


@dataclass(frozen=True)
class CheckpointParts:
    """
    The parts of a checkpoint, found in the public layout or in LeRobot's.

    :param adapter: is merged into the weights when they are loaded; None without an adapter.
    :param frozen: folder with vae/, text_encoder/ and tokenizer/.
    """

    weights: NetworkWeights
    adapter: Adapter | None
    frozen: Path

    def load_transformer(
        self, device: torch.device, dtype: torch.dtype, attention: Attention = sdpa,
    ) -> Network:
        """
        Load the network. An adapter is merged in float32 on the device, then cast to `dtype`.

        :raises CheckpointError: a tensor is missing, extra, misshapen or unreadable.
        """
        return build_transformer(
            self.weights.config, self.weights.files, self.weights.where, device, dtype, attention,
            self.weights.prefix, self.adapter.merge if self.adapter else None)


def find_parts(
    checkpoint: Path, wan_pretrained_path: str = '', adapter_base: str = '',
) -> CheckpointParts:
    """
    Find the parts of a checkpoint folder, in the public layout or in LeRobot's.

    :param wan_pretrained_path: folder with vae/, text_encoder/ and tokenizer/; empty takes the
        checkpoint's own folder, or the one that LeRobot's config.json names.
    :param adapter_base: checkpoint that a LoRA adapter was trained on; empty takes the one that
        adapter_config.json names.
    :raises CheckpointError: a part is missing or not on this machine (nothing is downloaded), or
        an adapter does not fit its base.
    """
    checkpoint = Path(checkpoint)
    folder = find_lerobot_folder(checkpoint)
    if folder is not None:
        weights, adapter = lerobot_weights(folder, adapter_base)
        return CheckpointParts(weights, adapter, frozen_folder(folder, wan_pretrained_path))
    frozen = checkpoint
    if wan_pretrained_path:
        frozen = local_folder(wan_pretrained_path, checkpoint, 'wan_pretrained_path')
    return CheckpointParts(public_weights(checkpoint), None, frozen)
