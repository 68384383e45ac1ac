"""The shipped policy files have the public values and are found by a checkpoint's name."""

import json
from pathlib import Path

import numpy as np
import pytest

from lingbot_va_ros.model.camera_layout import latent_size
from lingbot_va_ros.resources import shared_file
from lingbot_va_ros.robot.action_map import make_action_map
from lingbot_va_ros.specs.checkpoint_config import TransformerConfig
from lingbot_va_ros.specs.embodiment import load_embodiment
from lingbot_va_ros.specs.policy_file import (
    find_policy_file,
    load_policy_file,
    PolicyFileError,
    shipped_policies,
)

GOLDEN = json.loads(
    (Path(__file__).resolve().parents[1] / 'golden' / 'actions.json').read_text())
# image height and width, views, frames, actions per frame, steps of video and actions, shift of
# the actions, chunks in the memory
NUMBERS = {
    'robotwin': (256, 320, 3, 2, 16, 25, 50, 1.0, 36),
    'libero': (128, 128, 2, 4, 4, 20, 50, 0.05, 15),
    'franka': (224, 320, 3, 4, 20, 5, 10, 1.0, 15),
    'demo': (256, 256, 2, 4, 8, 5, 10, 1.0, 15),
}


def load(name):
    return load_policy_file(shared_file('config', 'policies', f'{name}.yaml'))


def checkpoint(folder, name):
    path = folder / name
    path.mkdir(parents=True)
    return path


def test_every_public_configuration_is_shipped():
    assert set(NUMBERS) == set(GOLDEN)
    assert set(NUMBERS) < set(shipped_policies())


@pytest.mark.parametrize('name', NUMBERS)
def test_channels_and_quantiles_are_the_public_ones(name):
    policy, public = load(name), GOLDEN[name]
    assert list(policy.used_channels) == public['used_action_channel_ids']
    used = list(policy.used_channels)
    for ours, theirs in ((policy.q01, public['q01']), (policy.q99, public['q99'])):
        np.testing.assert_array_equal(ours[used], np.array(theirs, np.float32)[used])


@pytest.mark.parametrize('name', NUMBERS)
def test_sizes_and_sampling_are_the_public_ones(name):
    policy = load(name)
    assert NUMBERS[name] == (
        policy.height, policy.width, len(policy.cameras), policy.frames_per_chunk,
        policy.actions_per_frame, policy.video.steps, policy.action.steps, policy.action.shift,
        policy.memory_chunks)
    assert policy.name == name
    assert policy.layout == ('tshape' if name == 'robotwin' else 'side_by_side')
    assert (policy.video.shift, policy.video.guidance, policy.video.exec_steps) == (5, 5, -1)
    assert policy.action.guidance == 1
    assert not policy.forward_dynamics
    assert list(policy.observation_keys) == list(policy.cameras)


@pytest.mark.parametrize('name', NUMBERS)
def test_every_latent_picture_is_cut_into_whole_patches(name):
    policy = load(name)
    rows, columns = latent_size(
        policy.layout, len(policy.cameras), policy.height, policy.width)
    patch = TransformerConfig(num_layers=1, heads=1, head_dim=12, ffn_dim=1).patch
    assert rows % patch[1] == 0 and columns % patch[2] == 0


@pytest.mark.parametrize('name, embodiment', [
    ('robotwin', 'sim_dual'), ('libero', 'sim_left'), ('franka', 'sim_dual'),
    ('untrained', 'sim_left'), ('tiny', 'sim_left')])
def test_a_policy_drives_a_robot_with_its_arms(name, embodiment):
    make_action_map(load_embodiment(embodiment), load(name))


def test_joints_in_end_effector_channels_drive_no_arm():
    with pytest.raises(ValueError, match='end-effector poses, and the action_frame is joints'):
        make_action_map(load_embodiment('sim_dual'), load('demo'))


@pytest.mark.parametrize('folder, shipped', [
    ('lingbot-va-posttrain-robotwin', 'robotwin'),
    ('lingbot-va-posttrain-libero-long', 'libero'),
    ('LingBot-VA-Posttrain-RoboTwin', 'robotwin'),
    ('models--robbyant--lingbot-va-posttrain-libero-long/snapshots/0123abcd', 'libero'),
])
def test_a_public_checkpoint_finds_its_policy_by_its_name(tmp_path, folder, shipped):
    lines = []
    path = find_policy_file('', checkpoint(tmp_path, folder), lines.append)
    assert load_policy_file(path).name == shipped
    assert len(lines) == 1 and shipped in lines[0]


def test_the_checkpoints_own_policy_comes_first(tmp_path):
    folder = checkpoint(tmp_path, 'my-robotwin')
    (folder / 'policy.yaml').write_text('name: mine')
    lines = []
    assert find_policy_file('', folder, lines.append) == folder / 'policy.yaml'
    assert lines == []


@pytest.mark.parametrize('name, folder', [
    ('', 'lingbot-va-base'), ('', 'robotwin-and-libero'), ('robotwim', 'robotwin'),
    ('./robotwin.yaml', 'robotwin')])
def test_where_nothing_fits_the_shipped_names_are_listed(tmp_path, monkeypatch, name, folder):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PolicyFileError, match='demo, franka, libero, robotwin, tiny, untrained'):
        find_policy_file(name, checkpoint(tmp_path, folder))


@pytest.mark.parametrize('keys, mistake', [
    ({'head': 'a'}, 'observation_keys: for head; expected one for each'),
    ({'head': 'a', 'left_wrist': 'a'}, 'two cameras have the same key'),
])
def test_observation_keys_name_every_camera_once(tmp_path, keys, mistake):
    text = shared_file('config', 'policies', 'untrained.yaml').read_text()
    path = tmp_path / 'policy.yaml'
    path.write_text(f'{text}\nobservation_keys: {json.dumps(keys)}\n')
    with pytest.raises(PolicyFileError, match=mistake):
        load_policy_file(path)
