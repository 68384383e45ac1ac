"""The policy file that is derived from LeRobot's config.json and post-processor."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file
import yaml

from lingbot_va_ros.specs.lerobot_policy import camera_roles, lerobot_findings
from lingbot_va_ros.specs.policy_file import (
    find_policy_file,
    load_policy_file,
    PolicyFileError,
    Sampling,
)

STATE = 'policy_postprocessor_step_0_unnormalizer_processor.safetensors'
ROBOTWIN = [0, 1, 2, 3, 4, 5, 6, 28, 7, 8, 9, 10, 11, 12, 13, 29]


def change(folder, file='config.json', **fields):
    path = folder / file
    raw = json.loads(path.read_text()) if path.is_file() else {}
    raw.update(fields)
    path.write_text(json.dumps({name: value for name, value in raw.items() if value != 'gone'}))


def set_mode(folder, mode, **statistics):
    path = folder / 'policy_postprocessor.json'
    raw = json.loads(path.read_text())
    raw['steps'][0]['config']['norm_map']['ACTION'] = mode
    path.write_text(json.dumps(raw))
    save_file({f'action.{name}': np.array(values, np.float32)
               for name, values in statistics.items()}, folder / STATE)


def use_channels(folder, channels):
    change(folder, used_action_channel_ids=channels, output_features={
        'action': {'type': 'ACTION', 'shape': [len(channels)]}})
    path = folder / 'policy_postprocessor.json'
    raw = json.loads(path.read_text())
    raw['steps'][0]['config']['features']['action']['shape'] = [len(channels)]
    path.write_text(json.dumps(raw))
    save_file({'action.q01': -np.ones(len(channels), np.float32),
               'action.q99': np.ones(len(channels), np.float32)}, folder / STATE)


def load(folder):
    return load_policy_file(find_policy_file('', folder))


def mistakes(folder):
    with pytest.raises(PolicyFileError) as refusal:
        load(folder)
    return str(refusal.value).splitlines()


def remarks(folder):
    found = lerobot_findings(folder)
    assert {severity for severity, _, _ in found} == {'warning'}
    return ' '.join(line for _, _, line in found)


def test_every_field_comes_from_the_folder(lerobot_folder, untrained_checkpoint):
    change(lerobot_folder, guidance_scale=5.0, video_exec_step=3)
    policy = load(lerobot_folder)
    yaml_file = load_policy_file(untrained_checkpoint / 'policy.yaml')
    assert policy.cameras == ('head', 'left_wrist')
    assert policy.observation_keys == {
        'head': 'observation.images.cam_high',
        'left_wrist': 'observation.images.cam_left_wrist'}
    assert (policy.layout, policy.height, policy.width) == ('side_by_side', 64, 64)
    assert (policy.frames_per_chunk, policy.actions_per_frame) == (2, 8)
    assert policy.video == Sampling(steps=4, shift=5.0, guidance=5.0, exec_steps=3)
    assert policy.action == Sampling(steps=8, shift=1.0, guidance=1.0)
    assert policy.memory_chunks == 30
    assert policy.action_frame == 'joints'
    assert policy.used_channels == yaml_file.used_channels
    np.testing.assert_array_equal(policy.q01, yaml_file.q01)
    np.testing.assert_array_equal(policy.q99, yaml_file.q99)
    assert policy.trained and not policy.mirror_images and not policy.forward_dynamics


def test_the_folder_of_a_training_step_is_enough(lerobot_folder):
    assert load(lerobot_folder.parent).cameras == ('head', 'left_wrist')


def test_a_policy_config_comes_before_the_folder(lerobot_folder):
    assert find_policy_file('untrained', lerobot_folder).name == 'untrained.yaml'


def test_every_mistake_is_named_at_once(lerobot_folder):
    change(lerobot_folder, height='gone', snr_shift='gone', num_layers='gone',
           camera_layout='diagonal', action_per_frame=6, guidance_scale=float('nan'),
           attn_window=1.0)
    (lerobot_folder / STATE).unlink()
    found = '\n'.join(mistakes(lerobot_folder))
    for line in (
            'config.json: height: is missing', 'config.json: snr_shift: is missing',
            'config.json: num_layers: is missing', "config.json: camera_layout: 'diagonal'",
            'config.json: action_per_frame: 6', 'config.json: guidance_scale: nan',
            'config.json: attn_window: 1.0', f'{STATE}: cannot be read'):
        assert line in found


@pytest.mark.parametrize('fields, line', [
    ({'height': 72}, 'height: 72 is not a multiple of 16'),
    ({'camera_layout': 'robotwin_tshape'}, 'obs_cam_keys: camera_layout robotwin_tshape takes 3'),
    ({'video_exec_step': 9}, 'video_exec_step: 9; expected -1, or 1 to 5'),
    ({'obs_cam_keys': ['a.top', 'b.top']}, 'do not end in names that differ'),
    ({'used_action_channel_ids': [14, 15]}, 'output_features.action.shape: 7 actions for 2'),
    ({'used_action_channel_ids': [0, 1, 2, 14, 15, 16, 28]},
     'end-effector channels [0, 1, 2] beside joint channels [14, 15, 16]'),
])
def test_contradictions_are_named(lerobot_folder, fields, line):
    change(lerobot_folder, **fields)
    assert any(line in found for found in mistakes(lerobot_folder))


def test_a_width_that_the_post_processor_contradicts_is_named_everywhere(lerobot_folder):
    change(lerobot_folder, used_action_channel_ids=[14, 15], output_features={})
    found = '\n'.join(mistakes(lerobot_folder))
    assert 'features.action.shape: 7 actions for 2 used channels' in found
    assert 'action.q01: shape [7], expected [2]' in found


@pytest.mark.parametrize('mode, statistics, low, high', [
    ('QUANTILES', {'q01': [1] * 7, 'q99': [3] * 7}, 1, 3),
    ('QUANTILE10', {'q10': [1] * 7, 'q90': [3] * 7}, 1, 3),
    ('MIN_MAX', {'min': [1] * 7, 'max': [3] * 7}, 1, 3),
    ('MEAN_STD', {'mean': [2] * 7, 'std': [1] * 7}, 1, 3),
    ('IDENTITY', {'q01': [1] * 7, 'q99': [3] * 7}, -1, 1),
])
def test_each_way_back_to_robot_units(lerobot_folder, mode, statistics, low, high):
    set_mode(lerobot_folder, mode, **statistics)
    policy = load(lerobot_folder)
    used = list(policy.used_channels)
    np.testing.assert_allclose(policy.q01[used], low)
    np.testing.assert_allclose(policy.q99[used], high)


def test_actions_left_as_they_are_are_remarked(lerobot_folder):
    set_mode(lerobot_folder, 'IDENTITY', q01=[0] * 7)
    assert 'used as robot units' in remarks(lerobot_folder)


@pytest.mark.parametrize('mode, statistics, line', [
    ('QUANTILES', {'mean': [1] * 7}, 'action.q01, action.q99: is missing'),
    ('QUANTILES', {'q01': [2] * 7, 'q99': [1] * 7}, 'channel 14: action.q01 2.0 is above'),
    ('QUANTILES', {'q01': [np.nan] * 7, 'q99': [1] * 7}, 'action.q01: holds numbers that are not'),
    ('QUANTILES', {'q01': [[0] * 7] * 4, 'q99': [1] * 7}, 'action.q01: shape [4, 7]'),
    ('MEAN_STD', {'mean': [0] * 7, 'std': [-1] * 7}, 'channel 14: action.std -1.0 is below 0'),
    ('LOG', {'q01': [0] * 7}, "norm_map.ACTION: 'LOG'"),
])
def test_a_bad_post_processor_is_named(lerobot_folder, mode, statistics, line):
    set_mode(lerobot_folder, mode, **statistics)
    assert any(line in found for found in mistakes(lerobot_folder))


@pytest.mark.parametrize('steps, line', [
    ([], 'steps: none; expected unnormalizer_processor once'),
    ([{'registry_name': 'absolute_actions_processor'}], 'steps: absolute_actions_processor'),
    ([{'registry_name': 'unnormalizer_processor', 'config': {'norm_map': {'ACTION': 'QUANTILES'}},
       'state_file': '../elsewhere.safetensors'}], "state_file: '../elsewhere.safetensors'"),
])
def test_bad_steps_of_the_post_processor_are_named(lerobot_folder, steps, line):
    change(lerobot_folder, 'policy_postprocessor.json', steps=steps)
    assert any(line in found for found in mistakes(lerobot_folder))


def test_a_missing_post_processor_is_named(lerobot_folder):
    (lerobot_folder / 'policy_postprocessor.json').unlink()
    assert mistakes(lerobot_folder) == [
        f'{lerobot_folder / "policy_postprocessor.json"}: does not exist']


def test_findings_name_the_file_of_every_mistake(lerobot_folder, untrained_checkpoint):
    change(lerobot_folder, height='gone')
    errors = [finding for finding in lerobot_findings(lerobot_folder.parent)
              if finding[0] == 'error']
    assert errors == [('error', str(lerobot_folder / 'config.json'), 'height: is missing')]
    change(lerobot_folder, type='act')
    (severity, _, line), = lerobot_findings(lerobot_folder)
    assert severity == 'error' and "type is 'act'" in line
    assert lerobot_findings(untrained_checkpoint) == []


def test_loading_warns_of_values_that_the_folder_lacks(lerobot_folder):
    lines = []
    load_policy_file(find_policy_file('', lerobot_folder), lines.append)
    assert any('assuming 10 Hz' in line for line in lines)
    assert any('one frame late' in line for line in lines)


def test_fields_beside_the_config_come_before_it(lerobot_folder):
    (lerobot_folder / STATE).unlink()
    (lerobot_folder / 'policy.yaml').write_text(yaml.safe_dump({
        'action_rate': 25.0, 'quantiles': {'q01': [-1] * 7, 'q99': [1] * 7}}))
    policy = load(lerobot_folder)
    assert policy.action_rate == 25.0
    assert policy.frames_per_chunk == 2
    assert 'rate' not in remarks(lerobot_folder)


def test_a_wrong_field_beside_the_config_is_named(lerobot_folder):
    (lerobot_folder / 'policy.yaml').write_text('action_rate: -1\nrate: 3\n')
    found = '\n'.join(mistakes(lerobot_folder))
    assert 'action_rate' in found and "'rate' was unexpected" in found


@pytest.mark.parametrize('text, line', [
    ('[1, 2]', 'policy.yaml: top level: expected fields'), ('a: [', 'policy.yaml: cannot be read'),
    ('used_channels: 3', 'used_channels')])
def test_an_unusable_file_beside_the_config_is_named(lerobot_folder, text, line):
    (lerobot_folder / 'policy.yaml').write_text(text)
    assert any(line in found for found in mistakes(lerobot_folder))


def test_the_rate_is_that_of_the_data_where_it_is_at_hand(lerobot_folder, tmp_path):
    data = tmp_path / 'data' / 'meta'
    data.mkdir(parents=True)
    (data / 'info.json').write_text('{"fps": 15}')
    change(lerobot_folder, 'train_config.json',
           dataset={'repo_id': 'me/data', 'root': str(data.parent)}, env={'fps': 20})
    assert load(lerobot_folder).action_rate == 15


def test_else_it_is_that_of_the_environment(lerobot_folder):
    change(lerobot_folder, 'train_config.json', dataset={'repo_id': 'me/nowhere'},
           env={'fps': 20})
    assert load(lerobot_folder).action_rate == 20


def test_a_rate_that_nothing_says_is_slow_and_remarked(lerobot_folder):
    change(lerobot_folder, 'train_config.json', dataset={'repo_id': 'me/nowhere'}, env=None)
    assert load(lerobot_folder).action_rate == 10
    assert '(me/nowhere) is not on this machine: assuming 10 Hz' in remarks(lerobot_folder)


@pytest.mark.parametrize('channels, frame', [
    (ROBOTWIN, 'eef_relative'), (list(range(7)), 'eef_delta'), ([21, 22, 29], 'joints')])
def test_the_action_frame_follows_the_channels(lerobot_folder, channels, frame):
    use_channels(lerobot_folder, channels)
    assert load(lerobot_folder).action_frame == frame
    assert ('action_frame' in remarks(lerobot_folder)) == (frame != 'joints')


def test_the_frame_offset_of_training_is_always_a_warning(lerobot_folder):
    assert 'one frame late if lerobot-train trained these weights' in remarks(lerobot_folder)
    change(lerobot_folder, 'train_config.json', steps=1)
    assert 'are one frame late relative to its training data' in remarks(lerobot_folder)


def test_units_that_differ_between_training_and_inference_are_a_warning(lerobot_folder):
    assert 'the units differ' not in remarks(lerobot_folder)
    change(lerobot_folder, 'train_config.json', steps=1)
    assert ('training normalizes actions by IDENTITY, inference denormalizes them by QUANTILES'
            in remarks(lerobot_folder))


def test_mirrored_images_and_unmoved_channels_are_remarked(lerobot_folder):
    change(lerobot_folder, image_hflip=True)
    set_mode(lerobot_folder, 'QUANTILES', q01=[0] * 7, q99=[0] + [1] * 6)
    assert load(lerobot_folder).mirror_images
    assert 'image_hflip' in remarks(lerobot_folder)
    assert 'channels [14] are constant in the training data' in remarks(lerobot_folder)


@pytest.mark.parametrize('keys, roles', [
    (['observation.images.image', 'observation.images.image2'], ['head', 'left_wrist']),
    (['observation.images.top-View', 'observation.images.2'], ['top_view', 'camera_2']),
    (['observation.images.head_camera', 'observation.images.cam_high'],
     ['head_camera', 'cam_high']),
])
def test_roles_are_the_ends_of_the_keys(keys, roles):
    assert camera_roles(keys) == dict(zip(roles, keys))


# Names of the columns of an action


NAMES = [f'left_joint_{number}.pos' for number in range(1, 7)] + ['left_gripper.pos']


def write_info(folder, names, **fields):
    (folder / 'meta').mkdir(parents=True, exist_ok=True)
    (folder / 'meta' / 'info.json').write_text(json.dumps({
        'features': {'action': {'dtype': 'float32', 'shape': [7], 'names': names}}, **fields}))


@pytest.mark.parametrize('names', [NAMES, [NAMES], {'motors': NAMES}])
def test_the_names_of_the_columns_come_from_the_info_beside_the_policy(lerobot_folder, names):
    assert load(lerobot_folder).action_names == ()
    write_info(lerobot_folder, names, fps=25)
    assert load(lerobot_folder).action_names == tuple(NAMES)
    assert load(lerobot_folder).action_rate == 25


def test_the_names_come_from_the_training_data_where_none_are_beside_the_policy(
        lerobot_folder, tmp_path):
    write_info(tmp_path / 'data', NAMES)
    change(lerobot_folder, 'train_config.json', dataset={'root': str(tmp_path / 'data')})
    assert load(lerobot_folder).action_names == tuple(NAMES)
    write_info(lerobot_folder.parent, NAMES[::-1])
    assert load(lerobot_folder).action_names == tuple(NAMES[::-1])


@pytest.mark.parametrize('names, words', [
    (NAMES[:5], '5 names, 5 of them different, for 7 used channels'),
    ([NAMES[0]] * 7, '7 names, 1 of them different')])
def test_names_that_do_not_fit_the_channels_are_a_warning(lerobot_folder, names, words):
    write_info(lerobot_folder, names)
    assert load(lerobot_folder).action_names == ()
    assert any(words in line and file.endswith('meta/info.json')
               for _, file, line in lerobot_findings(lerobot_folder))


@pytest.mark.parametrize('names', [None, 7, ['action'], {'a': 'b'}, [None] * 7])
def test_names_in_no_known_form_are_none(lerobot_folder, names):
    before = lerobot_findings(lerobot_folder)
    write_info(lerobot_folder, names)
    assert load(lerobot_folder).action_names == ()
    assert lerobot_findings(lerobot_folder) == before


def test_an_info_that_is_no_file_or_nested_without_end_is_not_read(lerobot_folder):
    (lerobot_folder / 'meta').mkdir()
    path = lerobot_folder / 'meta' / 'info.json'
    os.mkfifo(path)
    assert load(lerobot_folder).action_names == ()
    path.unlink()
    path.write_text('[' * 100_000)
    assert load(lerobot_folder).action_names == ()


def test_names_in_policy_yaml_come_before_those_of_the_data(lerobot_folder):
    write_info(lerobot_folder, NAMES[::-1])
    (lerobot_folder / 'policy.yaml').write_text(yaml.safe_dump({'action_names': NAMES}))
    assert load(lerobot_folder).action_names == tuple(NAMES)
    (lerobot_folder / 'policy.yaml').write_text(yaml.safe_dump({'action_names': NAMES[:3]}))
    line, = mistakes(lerobot_folder)
    assert 'action_names: 3 names for 7 used channels' in line
