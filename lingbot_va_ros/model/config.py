"""The sizes of a network, as a checkpoint's transformer/config.json gives them."""

import json
from dataclasses import dataclass
from pathlib import Path

from lingbot_va_ros.model.errors import CheckpointError

IMAGES_PER_FRAME = 4  # of a latent frame, after the first, which is one image

_FIELDS = {
    'num_layers': 'num_layers',
    'num_attention_heads': 'heads',
    'attention_head_dim': 'head_dim',
    'ffn_dim': 'ffn_dim',
    'in_channels': 'latent_channels',
    'action_dim': 'action_channels',
    'text_dim': 'text_dim',
    'freq_dim': 'time_frequencies',
}


@dataclass(frozen=True)
class TransformerConfig:
    """
    Sizes of the shared-backbone network (public checkpoints; Wan2.2-5B shaped).

    `patch` is (frames, rows, columns) of one video token in latent pixels; the frame part is 1.
    """

    num_layers: int
    heads: int
    head_dim: int
    ffn_dim: int
    latent_channels: int = 48
    action_channels: int = 30
    text_dim: int = 4096
    time_frequencies: int = 256
    patch: tuple = (1, 2, 2)
    text_norm: bool = True
    eps: float = 1e-6

    @property
    def dim(self) -> int:
        """Width of the residual stream."""
        return self.heads * self.head_dim

    @property
    def patch_features(self) -> int:
        """Numbers in one video token's input and output."""
        return self.latent_channels * self.patch[1] * self.patch[2]


def read_transformer_config(path: Path) -> TransformerConfig:
    """
    Read a diffusers-style config.json.

    `attn_mode` and what else only steers the public code is left unread: any value of it works.

    :raises CheckpointError: the file is missing, is no JSON, or lacks a size; all are named.
    """
    try:
        raw = json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise CheckpointError(f'{path} does not exist') from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f'{path} is no JSON: {error}') from None
    missing = [key for key in _FIELDS if not isinstance(raw.get(key), int)]
    if missing:
        raise CheckpointError(
            f'{path} is not the config of a LingBot-VA transformer: '
            f'no whole number under {", ".join(missing)}')
    patch = tuple(raw.get('patch_size', (1, 2, 2)))
    if len(patch) != 3 or patch[0] != 1:
        raise CheckpointError(f'{path}: patch_size is {list(patch)}, expected [1, rows, columns]')
    if raw.get('out_channels', raw['in_channels']) != raw['in_channels']:
        raise CheckpointError(
            f'{path}: out_channels is {raw["out_channels"]}, expected in_channels '
            f'({raw["in_channels"]})')
    if (raw['attention_head_dim'] // 3) % 2 or raw['attention_head_dim'] % 2:
        raise CheckpointError(
            f'{path}: attention_head_dim is {raw["attention_head_dim"]}, expected an even number '
            'whose third (rounded down) is even')
    return TransformerConfig(
        **{ours: raw[theirs] for theirs, ours in _FIELDS.items()},
        patch=patch,
        text_norm=bool(raw.get('cross_attn_norm', True)),
        eps=float(raw.get('eps', 1e-6)))
