"""Reads the sizes of a transformer from a checkpoint's transformer/config.json."""

from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any

from lingbot_va_ros.specs.errors import CheckpointError

IMAGES_PER_FRAME = 4  # the first latent frame of a stream encodes one image

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
    Sizes of a network. Public checkpoints have those of Wan2.2-5B, with one shared backbone.

    :param patch: (frames, rows, columns) of one video token in latent pixels; frames is 1.
    :param action_hidden_dim: width of the action stream of the paper's mixture of transformers;
        None: video and actions share the backbone.
    """

    num_layers: int
    heads: int
    head_dim: int
    ffn_dim: int
    latent_channels: int = 48
    action_channels: int = 30
    text_dim: int = 4096
    time_frequencies: int = 256
    patch: tuple[int, int, int] = (1, 2, 2)
    text_norm: bool = True
    eps: float = 1e-6
    action_hidden_dim: int | None = None

    @property
    def dim(self) -> int:
        """Width of the residual stream; in a mixture of transformers, of the video's."""
        return self.heads * self.head_dim

    @property
    def action_ffn_dim(self) -> int:
        """Width of the action stream's feed-forward layers, in proportion to the video's."""
        if self.action_hidden_dim is None:
            return self.ffn_dim
        return max(1, self.ffn_dim * self.action_hidden_dim // self.dim)

    @property
    def patch_features(self) -> int:
        """Number of values in one video token's input and output."""
        return self.latent_channels * self.patch[1] * self.patch[2]


def read_json_object(path: Path) -> dict[str, Any]:
    """
    Read a JSON file that holds an object.

    :raises CheckpointError: the file is missing, unreadable, not JSON, or holds another type.
    """
    try:
        raw = json.loads(Path(path).read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise CheckpointError(f'{path} does not exist') from None
    except OSError as error:
        raise CheckpointError(f'{path} cannot be read: {error.strerror}') from None
    except ValueError as error:
        raise CheckpointError(f'{path} is not JSON: {error}') from None
    if not isinstance(raw, dict):
        raise CheckpointError(f'{path} does not hold a JSON object')
    return raw


def read_transformer_config(path: Path) -> TransformerConfig:
    """
    Read a diffusers-style config.json.

    `attn_mode` and other keys that select code paths of the public implementation are ignored.

    :raises CheckpointError: the file is missing, is not JSON, or sizes are missing or wrong.
    """
    raw = read_json_object(path)
    missing = [key for key in _FIELDS if not _is_size(raw.get(key))]
    if missing:
        raise CheckpointError(
            f'{path} is not the config of a LingBot-VA transformer: '
            f'no whole number above 0 under {", ".join(missing)}')
    patch = raw.get('patch_size', [1, 2, 2])
    if not isinstance(patch, list) or len(patch) != 3 or patch[0] != 1 or not all(
            map(_is_size, patch)):
        raise CheckpointError(f'{path}: patch_size is {patch!r}, expected [1, rows, columns]')
    eps = raw.get('eps', 1e-6)
    if not isinstance(eps, (int, float)) or not 0 <= eps < 1:
        raise CheckpointError(f'{path}: eps is {eps!r}, expected a small number')
    if raw.get('out_channels', raw['in_channels']) != raw['in_channels']:
        raise CheckpointError(
            f'{path}: out_channels is {raw["out_channels"]}, expected in_channels '
            f'({raw["in_channels"]})')
    if (raw['attention_head_dim'] // 3) % 2 or raw['attention_head_dim'] % 2:
        raise CheckpointError(
            f'{path}: attention_head_dim is {raw["attention_head_dim"]}, expected an even number '
            'whose third (rounded down) is even')
    action_dim = raw.get('action_hidden_dim')
    if action_dim is not None and not _is_size(action_dim):
        raise CheckpointError(
            f'{path}: action_hidden_dim is {action_dim!r}, expected the width of the action '
            'stream, or none for a shared backbone')
    return TransformerConfig(
        **{ours: raw[theirs] for theirs, ours in _FIELDS.items()},
        patch=(patch[0], patch[1], patch[2]),
        text_norm=bool(raw.get('cross_attn_norm', True)),
        eps=float(eps),
        action_hidden_dim=action_dim)


def config_json(config: TransformerConfig) -> dict[str, Any]:
    """Return the config.json from which `read_transformer_config` reads `config`."""
    raw = {
        '_class_name': 'WanTransformer3DModel',
        **{theirs: getattr(config, ours) for theirs, ours in _FIELDS.items()},
        'out_channels': config.latent_channels, 'patch_size': list(config.patch),
        'cross_attn_norm': config.text_norm, 'eps': config.eps, 'attn_mode': 'torch'}
    if config.action_hidden_dim is not None:
        raw['action_hidden_dim'] = config.action_hidden_dim
    return raw


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
