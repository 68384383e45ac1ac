"""Reads the policy file: a checkpoint's cameras, action layout, and sampling settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
import os
from pathlib import Path
from typing import Any

import numpy as np

from lingbot_va_ros.resources import shared_file
from lingbot_va_ros.specs import ranges
from lingbot_va_ros.specs.action_names import LONGEST_NAME
from lingbot_va_ros.specs.channels import CHANNELS
from lingbot_va_ros.specs.errors import CheckpointError
from lingbot_va_ros.specs.lerobot_folder import CONFIG as LEROBOT_CONFIG
from lingbot_va_ros.specs.lerobot_folder import find_lerobot_folder
from lingbot_va_ros.specs.lerobot_policy import derive_policy
from lingbot_va_ros.specs.strict_schema import described, StrictValidator
from lingbot_va_ros.specs.yaml_lines import read_yaml

ACTION_FRAMES = ('joints', 'eef_relative', 'eef_absolute', 'eef_delta')
LAYOUTS = ('side_by_side', 'tshape')
# Words in the names of public checkpoint folders; each has a shipped policy file of that name.
PUBLIC_CHECKPOINTS = ('robotwin', 'libero')


class PolicyFileError(ValueError):
    """A policy file cannot be used; the message lists every mistake, one a line."""


@dataclass(frozen=True)
class Sampling:
    """
    The denoising settings of one modality.

    :param shift: of the flow-matching time steps.
    :param guidance: classifier-free guidance scale; above 1 the negative prompt is computed too.
    :param exec_steps: number of forward passes to compute, from the first one; -1: all.
    :param noise_scale: factor of the initial noise, without a change of its noise level; below 1
        samples tend to the mean of the learned distribution.
    """

    steps: int
    shift: float
    guidance: float
    exec_steps: int = -1
    noise_scale: float = 1.0


@dataclass(frozen=True)
class DeltaScale:
    """The scale of an end-effector delta: m and rad for 1 (defaults of robosuite)."""

    translation: float = 0.05
    rotation: float = 0.5


@dataclass(frozen=True)
class PolicyFile:
    """
    The inputs and outputs of a checkpoint, and its sampling settings.

    :param cameras: roles, in the order of the checkpoint.
    :param height: of the encoded images, pixels.
    :param width: of the encoded images, pixels.
    :param action_rate: Hz.
    :param used_channels: channel of each column of an action.
    :param q01: quantiles in robot units per model channel, [30] float32; as `q99`.
    :param memory_chunks: number of chunks in the KV cache.
    :param observation_keys: camera names of the public clients, by role; may be empty.
    :param mirror_images: mirror all images left to right before they are encoded.
    :param delta_scale: used with the action frame `eef_delta` only.
    :param action_names: what the training data call each column of an action; may be empty.
    """

    name: str
    cameras: tuple[str, ...]
    layout: str
    height: int
    width: int
    frames_per_chunk: int
    actions_per_frame: int
    action_rate: float
    action_frame: str
    used_channels: tuple[int, ...]
    q01: np.ndarray
    q99: np.ndarray
    video: Sampling
    action: Sampling
    memory_chunks: int
    forward_dynamics: bool
    trained: bool
    observation_keys: dict[str, str] = field(default_factory=dict)
    mirror_images: bool = False
    delta_scale: DeltaScale = DeltaScale()
    action_names: tuple[str, ...] = ()

    @property
    def action_period(self) -> float:
        """Seconds between two actions."""
        return 1.0 / self.action_rate

    @property
    def images_every(self) -> int:
        """Actions between two images of one latent frame."""
        return self.actions_per_frame // 4


def _fields(
    required: Mapping[str, ranges.Schema], optional: Mapping[str, ranges.Schema] = {},
) -> ranges.Schema:
    return {
        'type': 'object', 'additionalProperties': False, 'required': list(required),
        'properties': {**required, **optional}}


_SAMPLING = {'steps': ranges.STEPS, 'shift': ranges.SHIFT, 'guidance': ranges.GUIDANCE}
_OPTIONAL_SAMPLING = {'noise_scale': ranges.NOISE_SCALE}
_QUANTILES = {'type': 'array', 'items': ranges.QUANTILE, 'maxItems': CHANNELS}
SCHEMA = _fields(
    {
        'name': {'type': 'string', 'minLength': 1},
        'cameras': {'type': 'array', 'items': {'type': 'string', 'pattern': '^[a-z][a-z0-9_]*$'},
                    'minItems': 1, 'maxItems': ranges.CAMERAS, 'uniqueItems': True},
        'layout': {'enum': list(LAYOUTS)},
        'image': _fields({'height': ranges.IMAGE_SIDE, 'width': ranges.IMAGE_SIDE}),
        'frames_per_chunk': ranges.FRAMES_PER_CHUNK,
        'actions_per_frame': ranges.ACTIONS_PER_FRAME,
        'action_rate': ranges.ACTION_RATE,
        'action_frame': {'enum': list(ACTION_FRAMES)},
        'used_channels': {
            'type': 'array', 'minItems': 1, 'uniqueItems': True,
            'items': ranges.whole(0, CHANNELS - 1)},
        'quantiles': _fields({'q01': _QUANTILES, 'q99': _QUANTILES}),
        'video': _fields(_SAMPLING, {'exec_steps': ranges.EXEC_STEPS, **_OPTIONAL_SAMPLING}),
        'action': _fields(_SAMPLING, _OPTIONAL_SAMPLING),
        'memory_chunks': ranges.MEMORY_CHUNKS,
    },
    {
        'forward_dynamics': {'type': 'boolean'}, 'trained': {'type': 'boolean'},
        'observation_keys': {
            'type': 'object', 'additionalProperties': {'type': 'string', 'minLength': 1}},
        'mirror_images': {'type': 'boolean'},
        'delta_scale': _fields({'translation': ranges.DELTA, 'rotation': ranges.DELTA}),
        'action_names': {
            'type': 'array', 'minItems': 1, 'maxItems': CHANNELS, 'uniqueItems': True,
            'items': {'type': 'string', 'minLength': 1, 'maxLength': LONGEST_NAME}},
    })


def shipped_policies() -> list[str]:
    """Return the names of the policy files that come with the package, sorted."""
    return sorted(path.stem for path in shared_file('config', 'policies').glob('*.yaml'))


def find_policy_file(
    name: str, checkpoint: Path, log: Callable[[str], None] = lambda line: None,
) -> Path:
    """
    Return the policy file that the parameter `policy_config` names.

    :param name: the name of a shipped file, or a path. Empty takes config.json of a LeRobot
        folder, else the checkpoint's policy.yaml, else the shipped file of the public checkpoint
        that the folder's name contains.
    :param log: receives a line if the folder's name selects the file.
    :raises PolicyFileError: there is no such file; the message lists the shipped ones.
    """
    if not name:
        lerobot = _lerobot_folder(Path(checkpoint))
        if lerobot is not None:
            return lerobot / LEROBOT_CONFIG
        path = Path(checkpoint) / 'policy.yaml'
        if path.is_file():
            return path
        return _by_folder_name(Path(checkpoint), log)
    if '/' in name or name.endswith(('.yaml', '.yml')):
        path = Path(name).expanduser()
        if not path.is_file():
            raise PolicyFileError(
                f'policy_config {name!r}: {path} does not exist; expected a path or one of the '
                f'shipped {", ".join(shipped_policies())}')
        return path
    if name not in shipped_policies():
        raise PolicyFileError(
            f'policy_config {name!r} is not a shipped policy file; expected a path or one of '
            f'{", ".join(shipped_policies())}')
    return shared_file('config', 'policies', f'{name}.yaml')


def _by_folder_name(checkpoint: Path, log: Callable[[str], None]) -> Path:
    folder = Path(os.path.abspath(checkpoint))
    # huggingface_hub downloads to models--<owner>--<name>/snapshots/<revision>.
    named = folder.parents[1] if folder.parent.name == 'snapshots' else folder
    found = [name for name in PUBLIC_CHECKPOINTS if name in named.name.lower()]
    if len(found) != 1:
        raise PolicyFileError(
            f'{checkpoint} holds no policy.yaml, and its name does not contain that of one public '
            f'checkpoint: set policy_config to a path or one of {", ".join(shipped_policies())}, '
            'or put policy.yaml beside the weights')
    log(f'{checkpoint} holds no policy.yaml: using the shipped policy file {found[0]}, which the '
        f'folder name {named.name} contains')
    return shared_file('config', 'policies', f'{found[0]}.yaml')


def _lerobot_folder(checkpoint: Path) -> Path | None:
    try:
        return find_lerobot_folder(checkpoint)
    except CheckpointError as error:
        raise PolicyFileError(str(error)) from None


def load_policy_file(
    path: Path, warn: Callable[[str], None] = lambda line: None,
) -> PolicyFile:
    """
    Read and check a policy file, or derive one from the config.json of a LeRobot folder.

    :param warn: receives each warning about a derived policy file.
    :raises PolicyFileError: the file is not YAML, or fields are wrong or missing; the message
        lists all of them.
    """
    path = Path(path)
    if path.name == LEROBOT_CONFIG:
        return _from_lerobot(path, warn)
    try:
        raw, _ = read_yaml(path)
    except ValueError as error:
        raise PolicyFileError(str(error)) from None
    return _from_fields(raw, path)


def _from_lerobot(path: Path, warn: Callable[[str], None]) -> PolicyFile:
    folder = _lerobot_folder(path.parent)
    if folder is None:
        raise PolicyFileError(
            f'{path} is not a config.json of LeRobot: the type of policy is missing')
    try:
        found = derive_policy(folder)
    except CheckpointError as error:
        raise PolicyFileError(str(error)) from None
    if found.mistakes:
        raise PolicyFileError('\n'.join(f'{file}: {line}' for file, line in found.mistakes))
    policy = _from_fields(found.fields, folder)
    for file, line in found.warnings:
        warn(f'{file}: {line}')
    return policy


def _from_fields(raw: Any, path: Path) -> PolicyFile:
    mistakes = [
        f'{path}: {".".join(str(part) for part in error.absolute_path) or "top level"}: '
        f'{described(error)}'
        for error in StrictValidator(SCHEMA).iter_errors(raw)]
    if not mistakes:
        mistakes = [f'{path}: {mistake}' for mistake in _inconsistencies(raw)]
    if mistakes:
        raise PolicyFileError('\n'.join(mistakes))
    used = tuple(raw['used_channels'])
    return PolicyFile(
        name=raw['name'], cameras=tuple(raw['cameras']), layout=raw['layout'],
        height=raw['image']['height'], width=raw['image']['width'],
        frames_per_chunk=raw['frames_per_chunk'], actions_per_frame=raw['actions_per_frame'],
        action_rate=float(raw['action_rate']), action_frame=raw['action_frame'],
        used_channels=used, q01=_per_channel(raw['quantiles']['q01'], used),
        q99=_per_channel(raw['quantiles']['q99'], used), video=Sampling(**raw['video']),
        action=Sampling(**raw['action']), memory_chunks=raw['memory_chunks'],
        forward_dynamics=raw.get('forward_dynamics', False), trained=raw.get('trained', True),
        observation_keys=dict(raw.get('observation_keys', {})),
        mirror_images=raw.get('mirror_images', False),
        delta_scale=DeltaScale(**raw.get('delta_scale', {})),
        action_names=tuple(raw.get('action_names', ())))


def _inconsistencies(raw: Mapping[str, Any]) -> list[str]:
    found, used = [], len(raw['used_channels'])
    q01, q99 = raw['quantiles']['q01'], raw['quantiles']['q99']
    for name, values in (('q01', q01), ('q99', q99)):
        if len(values) != used:
            found.append(
                f'quantiles.{name}: {len(values)} numbers for {used} used channels')
    if len(raw.get('action_names', raw['used_channels'])) != used:
        found.append(f'action_names: {len(raw["action_names"])} names for {used} used channels')
    found.extend(
        f'quantiles: channel {channel} has q01 {low} above q99 {high}'
        for channel, low, high in zip(raw['used_channels'], q01, q99) if low > high)
    multiple = 32 if raw['layout'] == 'tshape' else 16
    found.extend(
        f'image.{side}: {raw["image"][side]} is not a multiple of {multiple}'
        for side in ('height', 'width') if raw['image'][side] % multiple)
    if raw['layout'] == 'tshape' and len(raw['cameras']) != 3:
        found.append(f'cameras: layout tshape takes 3, got {len(raw["cameras"])}')
    keys = raw.get('observation_keys', {})
    if keys and set(keys) != set(raw['cameras']):
        found.append(
            f'observation_keys: for {", ".join(sorted(keys))}; expected one for each of the '
            f'cameras {", ".join(raw["cameras"])}')
    if len(set(keys.values())) != len(keys):
        found.append('observation_keys: two cameras have the same key')
    if 'delta_scale' in raw and raw['action_frame'] != 'eef_delta':
        found.append(f'delta_scale: the action_frame is {raw["action_frame"]}, not eef_delta')
    exec_steps = raw['video'].get('exec_steps', -1)
    if exec_steps == 0 or exec_steps > raw['video']['steps'] + 1:
        found.append(
            f'video.exec_steps: {exec_steps}; expected -1, or 1 to {raw["video"]["steps"] + 1}')
    return found


def _per_channel(values: list[float], used: tuple[int, ...]) -> np.ndarray:
    full = np.zeros(CHANNELS, np.float32)
    full[list(used)] = values
    return full
