"""Reads and checks the settings of a training run: one YAML file."""

from dataclasses import asdict, dataclass, fields, is_dataclass, MISSING, replace
import json
from pathlib import Path
import types
import typing
from typing import Any

import yaml

from lingbot_va_ros.resources import shared_file
from lingbot_va_ros.specs.strict_schema import described, StrictValidator
from lingbot_va_ros.specs.yaml_lines import read_yaml
from lingbot_va_ros.training.batch_sampling import BatchSamplingSettings


class SettingsError(ValueError):
    """A settings file cannot be used; the message lists every mistake, one per line."""


@dataclass(frozen=True)
class DataSettings:
    """
    The recordings.

    :param episodes: episodes of each task, with consecutive seeds from `first_seed`.
    :param held_out: number of the first episodes of each task that are not trained on.
    :param idle: minimum and maximum time at rest after the expert has finished, s.
    :param longest: time limit of the expert, s.
    """

    episodes: int
    held_out: int
    first_seed: int
    idle: tuple[float, float]
    longest: float


@dataclass(frozen=True)
class VideoVaeSettings:
    """
    Sizes and training of the video VAE.

    :param base: channels of the encoder's first stage; `decoder_base` of the decoder's last.
    :param channels: latent channels.
    :param blocks: residual blocks in each stage.
    :param episodes: episodes of each task to train on, whose images are kept in memory.
    :param clips: clips in a batch, of `images` images of every camera each.
    :param steps: training steps of the encoder; `decoder_steps` of the decoder.
    :param marked_weight: weight of the error of marked pixels, added to the error of all pixels.
    :param kl: weight of the KL divergence per latent number.
    :param places: weight of the linear regression of body positions from the latents.
    :param ema: decay of the exponential moving average of the weights, which is saved.
    """

    base: int
    decoder_base: int
    channels: int
    blocks: int
    episodes: int
    steps: int
    decoder_steps: int
    clips: int
    images: int
    learning_rate: float
    warm_up: int
    marked_weight: float
    kl: float
    places: float
    ema: float


@dataclass(frozen=True)
class TextSettings:
    """Sizes of the text encoder; its weights are not trained."""

    dim: int
    layers: int
    heads: int


@dataclass(frozen=True)
class NetworkSettings:
    """
    Sizes of the transformer.

    :param action_dim: width of the action stream; 0: video and actions share the backbone.
    """

    layers: int
    heads: int
    head_dim: int
    ffn_dim: int
    time_frequencies: int
    action_dim: int


@dataclass(frozen=True)
class TrainerSettings:
    """
    Training settings of the transformer.

    :param batch: episodes per step, over all processes.
    :param gradient_norm: maximum norm of the gradient, which is clipped to it.
    :param ema: decay of the exponential moving average of the weights, which is exported.
    :param inverse: weight of the action loss (the paper's lambda).
    :param events: weight of the auxiliary loss of the number of events so far.
    :param most_events: largest number of events that this loss distinguishes.
    :param places: weight of the auxiliary loss of body positions.
    :param draw: see `BatchSamplingSettings`.
    """

    steps: int
    batch: int
    learning_rate: float
    warm_up: int
    weight_decay: float
    gradient_norm: float
    ema: float
    inverse: float
    events: float
    most_events: int
    draw: BatchSamplingSettings
    places: float = 0.0


@dataclass(frozen=True)
class TrainingSettings:
    """
    All inputs of a training run except its code.

    :param policy: a shipped policy file or a path; its quantiles are replaced by the data's.
    :param tasks: instructions by task of the simulation.
    """

    name: str
    policy: str
    seed: int
    tasks: dict[str, list[str]]
    data: DataSettings
    codec: VideoVaeSettings
    text: TextSettings
    network: NetworkSettings
    training: TrainerSettings


def load_settings(name: str) -> TrainingSettings:
    """
    Read and check a settings file.

    :param name: name of a file in config/training, or a path.
    :raises SettingsError: the file does not exist, is not YAML, or has wrong or missing fields.
    """
    path = Path(name).expanduser()
    if '/' not in name and not name.endswith(('.yaml', '.yml')):
        try:
            path = shared_file('config', 'training', f'{name}.yaml')
        except FileNotFoundError:
            raise SettingsError(
                f'settings {name!r}: expected a path or one of the shipped '
                f'{", ".join(shipped_settings())}') from None
    try:
        raw, _ = read_yaml(path)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    return settings_from(raw, str(path))


def settings_from(raw: Any, where: str) -> TrainingSettings:
    """
    Return the settings from the content of a file or a saved state.

    :param where: the source that error messages name.
    :raises SettingsError: fields are wrong or missing; the message names all of them.
    """
    mistakes = [
        f'{where}: {".".join(map(str, error.absolute_path)) or "top level"}: {described(error)}'
        for error in StrictValidator(_schema(TrainingSettings)).iter_errors(raw)]
    if mistakes:
        raise SettingsError('\n'.join(mistakes))
    try:
        settings = _build(TrainingSettings, raw)
    except ValueError as error:
        raise SettingsError('\n'.join(
            f'{where}: training.draw: {line}' for line in str(error).splitlines())) from None
    if settings.data.held_out >= settings.data.episodes:
        mistakes.append(f'data.held_out: {settings.data.held_out} of '
                        f'{settings.data.episodes} episodes leave none to train on')
    if settings.codec.images % 4 != 1 or settings.codec.images < 5:
        mistakes.append(f'codec.images: {settings.codec.images}; expected 5, 9, 13, …')
    if settings.data.idle[0] > settings.data.idle[1]:
        mistakes.append(f'data.idle: {list(settings.data.idle)}; expected minimum, maximum')
    if (settings.network.head_dim // 3) % 2 or settings.network.head_dim % 2:
        mistakes.append(
            f'network.head_dim: {settings.network.head_dim}; expected an even number whose third '
            '(rounded down) is even')
    for section in ('data', 'codec', 'text', 'network', 'training'):
        may_be_zero = {
            'first_seed', 'held_out', 'idle', 'marked_weight', 'kl', 'places', 'ema', 'action_dim',
            'weight_decay', 'inverse', 'events', 'decoder_steps', 'draw'}
        mistakes += [
            f'{section}.{name}: 0; expected above 0' for name, value in raw[section].items()
            if value == 0 and name not in may_be_zero]
    mistakes += [f'{name}.ema: {value}; expected less than 1' for name, value in (
        ('codec', settings.codec.ema), ('training', settings.training.ema)) if value >= 1]
    if mistakes:
        raise SettingsError('\n'.join(f'{where}: {mistake}' for mistake in mistakes))
    return settings


def with_steps(settings: TrainingSettings, steps: int | None) -> TrainingSettings:
    """Return settings with another number of transformer steps; None changes nothing."""
    if steps is None:
        return settings
    return replace(settings, training=replace(settings.training, steps=steps))


def settings_text(settings: TrainingSettings) -> str:
    """Return the settings as YAML."""
    return yaml.safe_dump(json.loads(json.dumps(asdict(settings))), sort_keys=False)


def shipped_settings() -> list[str]:
    """Return the names of the settings files that come with the package, sorted."""
    return sorted(path.stem for path in shared_file('config', 'training').glob('*.yaml'))


def _schema(kind: Any) -> dict:
    """Return the JSON schema of a field's type; no number is below 0."""
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return {'type': 'object', 'additionalProperties': False,
                'properties': {field.name: _schema(hints[field.name]) for field in fields(kind)},
                'required': [field.name for field in fields(kind) if field.default is MISSING]}
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):  # Optional
        return {'anyOf': [_schema(inner[0]), {'type': 'null'}]}
    if origin is tuple:
        return {'type': 'array', 'minItems': len(inner), 'maxItems': len(inner),
                'items': _schema(inner[0])}
    if origin is list:
        return {'type': 'array', 'minItems': 1, 'items': _schema(inner[0])}
    if origin is dict:
        return {'type': 'object', 'minProperties': 1, 'additionalProperties': _schema(inner[1])}
    return {int: {'type': 'integer', 'minimum': 0}, float: {'type': 'number', 'minimum': 0},
            str: {'type': 'string', 'minLength': 1}}[kind]


def _build(kind: Any, raw: Any) -> Any:
    if is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        return kind(**{name: _build(hints[name], value) for name, value in raw.items()})
    if typing.get_origin(kind) is tuple:
        return tuple(_build(typing.get_args(kind)[0], value) for value in raw)
    return float(raw) if kind is float else raw
