"""The checkpoint with random weights: reproducible, loadable, and marked as untrained."""

from pathlib import Path

import torch
import yaml

from lingbot_va_ros.model.checkpoint import load_transformer
from lingbot_va_ros.model.random_checkpoint import write_random_checkpoint
from lingbot_va_ros.model.text_encoder import load_text_encoder
from lingbot_va_ros.model.video_vae import load_video_vae
from lingbot_va_ros.resources import shared_file
from lingbot_va_ros.specs.policy_file import load_policy_file

CPU = torch.device('cpu')
POLICY = shared_file('config', 'policies', 'untrained.yaml')


def bytes_of(folder: Path) -> dict:
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob('*')) if path.is_file()}


def test_the_same_seed_gives_the_same_bytes(untrained_checkpoint, tmp_path):
    write_random_checkpoint(tmp_path, POLICY)
    assert bytes_of(tmp_path) == bytes_of(untrained_checkpoint)


def test_another_seed_gives_other_weights_everywhere(untrained_checkpoint, tmp_path):
    write_random_checkpoint(tmp_path, POLICY, seed=1)
    ours, other = bytes_of(untrained_checkpoint), bytes_of(tmp_path)
    assert {name for name in ours if ours[name] != other[name]} == {
        'transformer/diffusion_pytorch_model.safetensors',
        'vae/diffusion_pytorch_model.safetensors', 'text_encoder/model.safetensors'}


def test_the_random_state_of_the_caller_is_left_alone(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    write_random_checkpoint(tmp_path, POLICY)
    assert torch.equal(torch.rand(1), expected)


def test_every_part_of_it_loads(untrained_checkpoint):
    load_transformer(untrained_checkpoint / 'transformer', CPU, torch.float32)
    load_video_vae(untrained_checkpoint / 'vae', CPU, torch.float32)
    load_text_encoder(untrained_checkpoint, CPU, torch.float32).encode('go')


def test_its_policy_file_says_untrained_whatever_the_template_says(tmp_path):
    template = tmp_path / 'template.yaml'
    template.write_text(yaml.safe_dump({**yaml.safe_load(POLICY.read_text()), 'trained': True}))
    write_random_checkpoint(tmp_path / 'checkpoint', template)
    policy = load_policy_file(tmp_path / 'checkpoint' / 'policy.yaml')
    assert policy.trained is False


def test_its_policy_file_is_the_template_in_all_else(untrained_checkpoint):
    assert yaml.safe_load((untrained_checkpoint / 'policy.yaml').read_text()) == (
        yaml.safe_load(POLICY.read_text()))
