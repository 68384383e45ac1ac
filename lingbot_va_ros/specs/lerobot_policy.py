"""
Derives the fields of a policy file from a LeRobot folder. No torch here.

config.json has the sizes and sampling settings; policy_postprocessor.json has the conversion of
actions to robot units (huggingface/lerobot, policies/lingbot_va/configuration_lingbot_va.py and
processor/normalize_processor.py). LeRobot saves neither the rate nor the frame of the actions.
They, and any other field of a policy file, can be given in `policy.yaml` beside config.json.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import math
import os
from pathlib import Path
import re
from typing import Any

import numpy as np
from safetensors import safe_open, SafetensorError

from lingbot_va_ros.specs import ranges
from lingbot_va_ros.specs.action_names import flat_names
from lingbot_va_ros.specs.channels import CHANNELS, GRIPPER_CHANNELS, JOINT_CHANNELS, POSE_CHANNELS
from lingbot_va_ros.specs.checkpoint_config import read_json_object
from lingbot_va_ros.specs.errors import CheckpointError
from lingbot_va_ros.specs.lerobot_data import data_infos, json_or_nothing, table
from lingbot_va_ros.specs.lerobot_folder import (
    CONFIG,
    find_lerobot_folder,
    POSTPROCESSOR,
    PREPROCESSOR,
    TRAIN_CONFIG,
)
from lingbot_va_ros.specs.strict_schema import described, StrictValidator
from lingbot_va_ros.specs.yaml_lines import read_yaml

OVERRIDES = 'policy.yaml'
LAYOUTS = {'width_concat': 'side_by_side', 'robotwin_tshape': 'tshape'}
# A slow default: the folder does not have the rate of the demonstrations.
UNKNOWN_RATE = 10.0  # Hz
TEXT_TOKENS = 512

# The roles of LeRobot's camera names.
_ROLES = {
    'cam_high': 'head', 'head_camera': 'head', 'image': 'head', 'agentview_rgb': 'head',
    'cam_left_wrist': 'left_wrist', 'left_camera': 'left_wrist', 'image2': 'left_wrist',
    'eye_in_hand_rgb': 'left_wrist', 'cam_right_wrist': 'right_wrist',
    'right_camera': 'right_wrist'}
# The statistics of each mode (x - low) / (high - low) * 2 - 1; MEAN_STD is converted to it.
_STATISTICS = {
    'QUANTILES': ('q01', 'q99'), 'QUANTILE10': ('q10', 'q90'), 'MIN_MAX': ('min', 'max'),
    'MEAN_STD': ('mean', 'std')}
_HARMLESS_STEPS = ('device_processor', 'to_batch_processor', 'identity_processor')


_REQUIRED = {
    **{size: ranges.whole(1, 1_000_000) for size in (
        'num_layers', 'num_attention_heads', 'attention_head_dim', 'ffn_dim', 'in_channels',
        'text_dim', 'freq_dim')},
    'action_dim': {'const': CHANNELS},
    'obs_cam_keys': {'type': 'array', 'items': {'type': 'string', 'minLength': 1}, 'minItems': 1,
                     'maxItems': ranges.CAMERAS, 'uniqueItems': True},
    'camera_layout': {'enum': list(LAYOUTS)},
    'height': ranges.IMAGE_SIDE, 'width': ranges.IMAGE_SIDE,
    'frame_chunk_size': ranges.FRAMES_PER_CHUNK,
    'action_per_frame': ranges.ACTIONS_PER_FRAME,
    # LeRobot counts the video and the actions of a chunk separately.
    'attn_window': ranges.whole(2, 2 * ranges.MOST_MEMORY_CHUNKS),
    'num_inference_steps': ranges.STEPS, 'action_num_inference_steps': ranges.STEPS,
    'guidance_scale': ranges.GUIDANCE, 'action_guidance_scale': ranges.GUIDANCE,
    'snr_shift': ranges.SHIFT, 'action_snr_shift': ranges.SHIFT,
    'used_action_channel_ids': {
        'type': 'array', 'minItems': 1, 'uniqueItems': True,
        'items': ranges.whole(0, CHANNELS - 1)}}
SCHEMA = {
    'type': 'object', 'required': list(_REQUIRED), 'properties': {
        **_REQUIRED,
        'video_exec_step': ranges.EXEC_STEPS,
        'image_hflip': {'type': 'boolean'},
        'max_sequence_length': {'const': TEXT_TOKENS}}}
# The field of the policy file that each field of config.json determines.
_GIVES = {
    'obs_cam_keys': 'cameras', 'camera_layout': 'layout', 'height': 'image', 'width': 'image',
    'frame_chunk_size': 'frames_per_chunk', 'action_per_frame': 'actions_per_frame',
    'attn_window': 'memory_chunks', 'num_inference_steps': 'video', 'guidance_scale': 'video',
    'snr_shift': 'video', 'video_exec_step': 'video', 'action_num_inference_steps': 'action',
    'action_guidance_scale': 'action', 'action_snr_shift': 'action',
    'used_action_channel_ids': 'used_channels', 'image_hflip': 'mirror_images'}


@dataclass
class LeRobotPolicy:
    """
    The policy file that a LeRobot folder implies.

    :param fields: of the policy file; complete if there are no mistakes.
    :param mistakes: (file, message) for each value that is missing, wrong or contradictory.
    :param warnings: (file, message) for each assumption to check before a robot moves.
    """

    folder: Path
    fields: dict[str, Any] = field(default_factory=dict)
    mistakes: list[tuple[Path, str]] = field(default_factory=list)
    warnings: list[tuple[Path, str]] = field(default_factory=list)

    def wrong(self, file: str, line: str) -> None:
        """Add a mistake in one of the folder's files."""
        self.mistakes.append((self.folder / file, line))

    def warn(self, file: str, line: str) -> None:
        """Add an assumption to check before a robot moves, and its file."""
        self.warnings.append((self.folder / file, line))


def derive_policy(folder: Path) -> LeRobotPolicy:
    """
    Derive a policy file from LeRobot's config.json, post-processor and training config.

    :param folder: holds config.json.
    :raises CheckpointError: config.json is missing or not a JSON object.
    """
    folder = Path(folder)
    found = LeRobotPolicy(folder)
    config = read_json_object(folder / CONFIG)
    overrides = _overrides(found)

    def mistake(file: str, what: str, message: str, gives: str = '') -> None:
        if gives not in overrides:
            found.wrong(file, f'{what}: {message}')

    wrong = set()
    for error in StrictValidator(SCHEMA).iter_errors(config):
        if error.absolute_path:
            name, message = str(error.absolute_path[0]), described(error)
        else:  # one error for each name that is missing
            name = next(name for name in _REQUIRED
                        if name not in config and f"'{name}'" in error.message)
            message = 'is missing'
        wrong.add(name)
        mistake(CONFIG, name, message, _GIVES.get(name, ''))
    config = {name: value for name, value in config.items() if name not in wrong}
    for name, message in _contradictions(config):
        mistake(CONFIG, name, message, _GIVES.get(name, ''))

    used = overrides.get('used_channels', config.get('used_action_channel_ids'))
    if not isinstance(used, list):  # overrides are checked as part of the policy file
        used = None
    quantiles = None
    if used is not None and 'quantiles' not in overrides:
        quantiles = _quantiles(found, used)
    fields = {
        'name': _name(config, folder), 'quantiles': quantiles, 'used_channels': used,
        'layout': LAYOUTS.get(config.get('camera_layout', '')),
        'frames_per_chunk': config.get('frame_chunk_size'),
        'actions_per_frame': config.get('action_per_frame'),
        'image': {side: config.get(side) for side in ('height', 'width')},
        'video': {
            'steps': config.get('num_inference_steps'), 'shift': config.get('snr_shift'),
            'guidance': config.get('guidance_scale'),
            'exec_steps': config.get('video_exec_step', -1)},
        'action': {
            'steps': config.get('action_num_inference_steps'),
            'shift': config.get('action_snr_shift'),
            'guidance': config.get('action_guidance_scale')},
        'memory_chunks': config.get('attn_window', 0) // 2,
        'mirror_images': config.get('image_hflip', False),
        'forward_dynamics': False, 'trained': True}
    if 'obs_cam_keys' in config:
        roles = camera_roles(config['obs_cam_keys'])
        fields['cameras'] = list(roles)
        fields['observation_keys'] = roles
        if len(roles) != len(config['obs_cam_keys']):
            mistake(CONFIG, 'obs_cam_keys',
                    f'{config["obs_cam_keys"]} do not end in names that differ', 'cameras')
    if 'action_rate' not in overrides:
        fields['action_rate'] = _action_rate(found)
    if used is not None and 'action_names' not in overrides:
        names = _action_names(found, used)
        if names is not None:
            fields['action_names'] = names
    if used is not None and 'action_frame' not in overrides:
        fields['action_frame'] = _action_frame(found, used)
    fields.update(overrides)
    if 'cameras' in overrides and 'observation_keys' not in overrides:
        fields['observation_keys'] = {}
    found.fields = fields
    _warn_of_training(found, config)
    return found


def lerobot_findings(checkpoint: Path) -> list[tuple[str, str, str]]:
    """
    Check the policy in a LeRobot folder without reading weights.

    :returns: (severity, file, message) of each finding, where the severity is 'error' or
        'warning'; empty for a checkpoint in another layout.
    """
    try:
        folder = find_lerobot_folder(checkpoint)
        if folder is None:
            return []
        found = derive_policy(folder)
    except CheckpointError as error:
        return [('error', str(checkpoint), str(error))]
    return [
        *(('error', str(file), line) for file, line in found.mistakes),
        *(('warning', str(file), line) for file, line in found.warnings)]


def camera_roles(keys: Sequence[str]) -> dict[str, str]:
    """
    Return {role: key} in the order of LeRobot's camera keys.

    The role is the last part of the key, translated to `head`, `left_wrist` or `right_wrist` where
    LeRobot has another name. Keys with equal roles collapse to one entry.
    """
    plain = []
    for key in keys:
        name = re.sub(r'[^a-z0-9_]+', '_', key.rpartition('.')[2].lower()).strip('_')
        plain.append(name if re.match('[a-z]', name) else f'camera_{name}')
    roles = [_ROLES.get(name, name) for name in plain]
    return dict(zip(roles if len(set(roles)) == len(keys) else plain, keys))


def _overrides(found: LeRobotPolicy) -> dict[str, Any]:
    path = found.folder / OVERRIDES
    if not path.is_file():
        return {}
    try:
        raw, _ = read_yaml(path)
    except ValueError as error:
        for line in str(error).splitlines():
            found.wrong(OVERRIDES, line.removeprefix(str(path)).lstrip(': '))
        return {}
    if raw is not None and not isinstance(raw, dict):
        found.wrong(OVERRIDES, 'top level: expected fields of a policy file')
        return {}
    return raw or {}


def _contradictions(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    layout, keys = config.get('camera_layout'), config.get('obs_cam_keys')
    multiple = 32 if layout == 'robotwin_tshape' else 16
    lines.extend(
        (side, f'{config[side]} is not a multiple of {multiple}')
        for side in ('height', 'width') if config.get(side, 0) % multiple)
    if layout == 'robotwin_tshape' and keys is not None and len(keys) != 3:
        lines.append(('obs_cam_keys', f'camera_layout {layout} takes 3 cameras, got {len(keys)}'))
    steps, kept = config.get('num_inference_steps'), config.get('video_exec_step', -1)
    if steps is not None and (kept == 0 or kept > steps + 1):
        lines.append(('video_exec_step', f'{kept}; expected -1, or 1 to {steps + 1}'))
    used, width = config.get('used_action_channel_ids'), _action_width(config.get(
        'output_features'))
    if used is not None and width not in (None, len(used)):
        lines.append((
            'output_features.action.shape',
            f'{width} actions for {len(used)} channels in used_action_channel_ids'))
    return lines


def _action_width(features: Any) -> int | None:
    """Return the width of the action in a LeRobot table of features, or None."""
    action = features.get('action') if isinstance(features, dict) else None
    shape = action.get('shape') if isinstance(action, dict) else None
    return shape[0] if isinstance(shape, list) and len(shape) == 1 else None


def _quantiles(found: LeRobotPolicy, used: Sequence[int]) -> dict[str, list[float]] | None:
    """Return the robot units of the network's -1 (q01) and 1 (q99), one per used channel."""
    path = found.folder / POSTPROCESSOR
    try:
        steps = read_json_object(path).get('steps')
    except CheckpointError as error:
        found.wrong(POSTPROCESSOR, str(error).removeprefix(str(path)).lstrip(': '))
        return None
    steps = steps if isinstance(steps, list) else []
    names = [_step_name(step) for step in steps]
    unknown = [name for name in names
               if name != 'unnormalizer_processor' and name not in _HARMLESS_STEPS]
    if names.count('unnormalizer_processor') != 1 or unknown:
        found.wrong(
            POSTPROCESSOR,
            f'steps: {", ".join(names) or "none"}; expected unnormalizer_processor once and '
            f'besides it only {", ".join(_HARMLESS_STEPS)}')
        return None
    step = steps[names.index('unnormalizer_processor')]
    settings = table(step.get('config'))
    width = _action_width(settings.get('features'))
    if width not in (None, len(used)):
        found.wrong(
            POSTPROCESSOR, f'features.action.shape: {width} actions for {len(used)} used channels')
    mode = _action_mode(settings)
    if mode == 'IDENTITY':
        found.warn(
            POSTPROCESSOR, 'norm_map does not normalize actions (IDENTITY): the output of the '
            'network is used as robot units, as in LeRobot')
        return {'q01': [-1.0] * len(used), 'q99': [1.0] * len(used)}
    if mode not in _STATISTICS:
        found.wrong(
            POSTPROCESSOR, f'norm_map.ACTION: {mode!r}; expected IDENTITY or one of '
            f'{", ".join(_STATISTICS)}')
        return None
    return _read_range(found, step.get('state_file'), mode, used)


def _read_range(
    found: LeRobotPolicy, file: Any, mode: str, used: Sequence[int],
) -> dict[str, list[float]] | None:
    names = _STATISTICS[mode]
    if not isinstance(file, str) or not file or Path(file).name != file:
        found.wrong(
            POSTPROCESSOR, f'state_file: {file!r}; expected the file beside it that holds '
            f'action.{names[0]} and action.{names[1]} ({mode})')
        return None
    try:
        with safe_open(str(found.folder / file), framework='np') as tensors:
            present = set(tensors.keys())
            missing = [f'action.{name}' for name in names if f'action.{name}' not in present]
            if missing:
                found.wrong(file, f'{", ".join(missing)}: is missing ({mode})')
                return None
            first, second = (
                np.asarray(tensors.get_tensor(f'action.{name}'), np.float64) for name in names)
    except (SafetensorError, OSError, TypeError) as error:
        found.wrong(file, f'cannot be read: {error}')
        return None
    wrong = [
        f'action.{name}: shape {list(values.shape)}, expected [{len(used)}]'
        for name, values in zip(names, (first, second)) if values.shape != (len(used),)]
    wrong.extend(
        f'action.{name}: holds numbers that are not finite'
        for name, values in zip(names, (first, second)) if not np.isfinite(values).all())
    if not wrong:
        low, high = (first - second, first + second) if mode == 'MEAN_STD' else (first, second)
        wrong = [
            f'channel {channel}: action.{names[0]} {a} is above action.{names[1]} {b}'
            if mode != 'MEAN_STD' else f'channel {channel}: action.std {b} is below 0'
            for channel, a, b, below, above in zip(used, first, second, low, high)
            if below > above]
    for line in wrong:
        found.wrong(file, line)
    if wrong:
        return None
    constant = [channel for channel, below, above in zip(used, low, high) if below == above]
    if constant:
        found.warn(
            file, f'channels {constant} are constant in the training data: any other '
            'position is far outside the training distribution')
    return {'q01': low.tolist(), 'q99': high.tolist()}


def _step_name(step: Any) -> str:
    """Return the name under which LeRobot registers a processor step."""
    if not isinstance(step, dict):
        return repr(step)
    return str(step.get('registry_name') or step.get('class') or '?')


def _action_mode(settings: Any) -> str:
    table = settings.get('norm_map') if isinstance(settings, dict) else None
    return str(table.get('ACTION', 'IDENTITY')) if isinstance(table, dict) else 'IDENTITY'


def _action_names(found: LeRobotPolicy, used: Sequence[int]) -> list[str] | None:
    """Return what the training data call the columns of an action, or None."""
    for path, info in data_infos(found.folder):
        names = flat_names(table(table(info.get('features')).get('action')).get('names'))
        if names is None:
            continue
        if len(names) == len(used) and len(set(names)) == len(names):
            return names
        if len(names) > 1:
            found.warnings.append((
                path, f'features.action.names: {len(names)} names, {len(set(names))} of them '
                f'different, for {len(used)} used channels: they are not compared with the '
                f'embodiment; set action_names in {OVERRIDES} beside config.json'))
        return None
    return None


def _action_rate(found: LeRobotPolicy) -> float:
    """Return the frame rate of the training data, or `UNKNOWN_RATE` with a warning."""
    for _, info in data_infos(found.folder):
        rate = _rate(info.get('fps'))
        if rate:
            return rate
    train = json_or_nothing(found.folder / TRAIN_CONFIG)
    rate = _rate(table(train.get('env')).get('fps'))
    if rate:
        return rate
    data = table(train.get('dataset'))
    data_name = f' ({data["repo_id"]})' if isinstance(data.get('repo_id'), str) else ''
    found.warn(
        CONFIG, f'LeRobot does not save the rate of the actions and the data{data_name} is not '
        f'on this machine: assuming {UNKNOWN_RATE:g} Hz; set action_rate in {OVERRIDES} beside '
        'config.json')
    return UNKNOWN_RATE


def _rate(value: Any) -> float | None:
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if numeric and 0 < value < math.inf else None


def _action_frame(found: LeRobotPolicy, used: Sequence[int]) -> str | None:
    """Return the action frame that the channels imply; LeRobot does not save it."""
    poses = [channel for channel in used if channel in POSE_CHANNELS]
    joints = [channel for channel in used if channel in JOINT_CHANNELS]
    if poses and joints:
        found.wrong(
            CONFIG, f'used_action_channel_ids: end-effector channels {poses} '
            f'beside joint channels {joints}; expected one kind')
        return None
    if not poses:
        return 'joints'
    # LIBERO has its gripper in channel 6; poses with a quaternion have separate gripper channels.
    has_gripper = any(channel in GRIPPER_CHANNELS for channel in used)
    frame = 'eef_relative' if has_gripper else 'eef_delta'
    found.warn(
        CONFIG, 'LeRobot does not save what the end-effector actions are relative to: assuming '
        f'{frame}, as in the public checkpoint with these channels; set action_frame in '
        f'{OVERRIDES} beside config.json if yours differs')
    return frame


def _warn_of_training(found: LeRobotPolicy, config: Mapping[str, Any]) -> None:
    trained_here = (found.folder / TRAIN_CONFIG).is_file()
    found.warn(
        CONFIG, "LeRobot's training pairs latent frame 0 with the actions after the first image "
        'and has single chunks without history, while its inference, which is reproduced here, '
        'neither executes nor predicts the first action frame of an episode: '
        + ('actions of this policy are one frame late relative to its training data'
           if trained_here else
           'actions are one frame late if lerobot-train trained these weights '
           f'(unknown without {TRAIN_CONFIG})'))
    before = _mode_in(found.folder / PREPROCESSOR, 'normalizer_processor')
    after = _mode_in(found.folder / POSTPROCESSOR, 'unnormalizer_processor')
    if trained_here and before and after and before != after:
        found.warn(
            PREPROCESSOR, f'training normalizes actions by {before}, inference denormalizes '
            f'them by {after}: the units differ')
    if config.get('image_hflip'):
        found.warn(
            CONFIG, 'image_hflip: the images of all cameras are mirrored left to right, as '
            'LeRobot does at inference but not in training')
    inputs = config.get('input_features')
    absent = [key for key in config.get('obs_cam_keys', ())
              if isinstance(inputs, dict) and inputs and key not in inputs]
    if absent:
        found.warn(
            CONFIG, f'obs_cam_keys {", ".join(absent)} are not among input_features')


def _mode_in(path: Path, name: str) -> str:
    steps = json_or_nothing(path).get('steps')
    for step in steps if isinstance(steps, list) else ():
        if _step_name(step) == name:
            return _action_mode(step.get('config'))
    return ''


def _name(config: Mapping[str, Any], folder: Path) -> str:
    repository = config.get('repo_id')
    if isinstance(repository, str) and repository:
        return repository.rpartition('/')[2]
    parts = [part for part in Path(os.path.abspath(folder)).parts
             if part not in ('pretrained_model', 'checkpoints', 'last') and not part.isdigit()]
    return parts[-1]
