"""load_engine: errors before weights are loaded, and the reported steps."""

import dataclasses
import json
import shutil

import pytest
import torch

from lingbot_va_ros.model import prompt_embeddings as prompts
from lingbot_va_ros.model.attention import choose_attention
from lingbot_va_ros.policy.inference import load as load_module
from lingbot_va_ros.policy.inference.load import EngineConfig, load_engine
from lingbot_va_ros.specs.errors import CheckpointError
from lingbot_va_ros.specs.policy_file import load_policy_file

CPU = torch.device('cpu')


@pytest.fixture
def checkpoint(untrained_checkpoint, tmp_path):
    return shutil.copytree(untrained_checkpoint, tmp_path / 'checkpoint')


@pytest.fixture
def nothing_is_loaded(monkeypatch):
    """Fail where weights of the video VAE are loaded after all."""
    monkeypatch.setattr(load_module, 'load_video_vae', lambda *ignored: pytest.fail('loaded'))


def load(checkpoint, progress=lambda line: None, change=lambda policy: policy, **options):
    policy = change(load_policy_file(checkpoint / 'policy.yaml'))
    return load_engine(EngineConfig.of_policy(checkpoint, policy, **options), progress)


def change_config(checkpoint, part, **changes):
    path = checkpoint / part / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_log_says_which_attention_runs_and_why(checkpoint):
    lines = []
    load(checkpoint, lines.append)
    assert [line for line in lines if line.startswith('attention: ')] == [
        choose_attention('auto', CPU, torch.float32, 24)[1]]
    assert any('flash-attn needs a CUDA device, not cpu' in line for line in lines)


def test_flash_that_cannot_run_is_refused(checkpoint, nothing_is_loaded):
    with pytest.raises(ValueError, match='attention is flash, but flash-attn needs a CUDA'):
        load(checkpoint, attention='flash')


def test_a_policy_that_does_not_fit_the_network_is_refused_by_its_fields(
        checkpoint, nothing_is_loaded):
    with pytest.raises(ValueError, match='image.height 48 .* not a multiple') as refused:
        load(checkpoint, change=lambda policy: dataclasses.replace(policy, height=48))
    assert 'policy untrained does not fit' in str(refused.value)


@pytest.mark.parametrize('part, changes, message', [
    ('vae', {'patch_size': 4}, 'covers 32 x 32 pixels, expected 16 x 16'),
    ('vae', {'temperal_downsample': [False, False, True]}, 'covers 2 images, expected 4'),
    ('transformer', {'text_dim': 64}, 'embeddings of 32 numbers (d_model), the transformer takes'),
    ('transformer', {'in_channels': 16, 'out_channels': 16}, 'latents of 48 channels (z_dim)')])
def test_parts_of_different_models_are_refused(
        checkpoint, nothing_is_loaded, part, changes, message):
    change_config(checkpoint, part, **changes)
    with pytest.raises(CheckpointError) as refused:
        load(checkpoint)
    assert message in str(refused.value) and str(checkpoint) in str(refused.value)


def test_a_known_instruction_needs_no_text_encoder(checkpoint, monkeypatch):
    load(checkpoint, instructions=['wipe the plate'])
    monkeypatch.setattr(prompts, '_cached', {})  # as in a new process
    monkeypatch.setattr(prompts, 'load_text_encoder', lambda *ignored: pytest.fail('loaded'))
    engine = load(checkpoint, instructions=['wipe the plate'])
    engine.set_instruction('wipe the plate')


def test_the_text_encoder_is_released_or_kept(checkpoint):
    for place, kept in (('release', False), ('device', True)):
        engine = load(checkpoint, text_encoder=place)
        engine.set_instruction(f'something new for {place}')
        assert (engine.text_encoder._encoder is not None) == kept
