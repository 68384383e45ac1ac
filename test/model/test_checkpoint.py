"""Checkpoint folders: complete ones load, faults are reported by file, key and shape."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file
import torch

from lingbot_va_ros.model.checkpoint import load_transformer
from lingbot_va_ros.specs.errors import CheckpointError

CPU = torch.device('cpu')
WEIGHTS = 'diffusion_pytorch_model.safetensors'
INDEX = 'diffusion_pytorch_model.safetensors.index.json'


@pytest.fixture
def folder(untrained_checkpoint, tmp_path):
    """Return a copy of a transformer/ folder, to be damaged."""
    return shutil.copytree(untrained_checkpoint / 'transformer', tmp_path / 'transformer')


def load(folder, dtype=torch.float32):
    return load_transformer(folder, CPU, dtype)


def refusal(folder) -> str:
    """Return the message of the refusal, which must be one line."""
    with pytest.raises(CheckpointError) as refused:
        load(folder)
    message = str(refused.value)
    assert '\n' not in message
    return message


def change_config(folder, **changes):
    path = folder / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_weights(folder, change):
    tensors = load_file(str(folder / WEIGHTS))
    change(tensors)
    save_file(tensors, str(folder / WEIGHTS))


def shard(folder):
    """Split the weights into two files with an index."""
    tensors = load_file(str(folder / WEIGHTS))
    (folder / WEIGHTS).unlink()
    names, places = sorted(tensors), {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f'part-{number}-of-2.safetensors'
        save_file({name: tensors[name] for name in part}, str(folder / file))
        places.update(dict.fromkeys(part, file))
    (folder / INDEX).write_text(json.dumps({'metadata': {}, 'weight_map': places}))


def assert_same_weights(one, other):
    for (name, left), (_, right) in zip(one.named_parameters(), other.named_parameters()):
        assert torch.equal(left, right), name


def test_every_weight_of_one_file_is_loaded(folder):
    network = load(folder)
    tensors = load_file(str(folder / WEIGHTS))
    assert torch.equal(network.blocks[1].qkv.weight, torch.cat(
        [tensors[f'blocks.1.attn1.to_{part}.weight'] for part in 'qkv']))
    assert torch.equal(network.final_modulation[None], tensors['scale_shift_table'])
    unread = sum(tensor.numel() for name, tensor in tensors.items()
                 if name.startswith('condition_embedder_action.text_embedder'))
    assert sum(weight.numel() for weight in network.parameters()) == sum(
        tensor.numel() for tensor in tensors.values()) - unread


def test_shards_with_an_index_load_as_one_file_does(folder):
    whole = load(folder)
    shard(folder)
    assert_same_weights(whole, load(folder))


def test_weights_are_loaded_in_the_dtype_that_was_asked_for(folder):
    network = load(folder, torch.bfloat16)
    assert {weight.dtype for weight in network.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize('mode', ['flex', 'flashattn', None])
def test_any_attention_mode_in_the_config_works(folder, mode):
    change_config(folder, attn_mode=mode)
    load(folder)


def test_the_text_embedder_that_no_forward_reads_may_be_absent(folder):
    change_weights(folder, lambda tensors: [
        tensors.pop(name) for name in list(tensors)
        if name.startswith('condition_embedder_action.text_embedder')])
    load(folder)


def test_missing_extra_and_misshapen_keys_are_named_together_with_their_shapes(folder):
    def damage(tensors):
        del tensors['proj_out.weight'], tensors['blocks.0.norm2.bias']
        tensors['blocks.9.ffn.bias'] = torch.zeros(3, 4)
        tensors['action_embedder.weight'] = torch.zeros(7, 30)
    change_weights(folder, damage)
    message = refusal(folder)
    assert str(folder) in message
    for part in ('missing proj_out.weight [192, 96]', 'missing blocks.0.norm2.bias [96]',
                 'extra blocks.9.ffn.bias [3, 4]',
                 'action_embedder.weight has the shape [7, 30], expected [96, 30]'):
        assert part in message


def test_a_truncated_file_is_named(folder):
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1000])
    assert str(path) in refusal(folder)


def test_a_file_that_is_no_safetensors_is_named(folder):
    (folder / WEIGHTS).write_text('weights')
    assert str(folder / WEIGHTS) in refusal(folder)


def test_a_missing_shard_is_named(folder):
    shard(folder)
    (folder / 'part-2-of-2.safetensors').unlink()
    assert 'part-2-of-2.safetensors' in refusal(folder)


@pytest.mark.parametrize('text', [
    'nope', '[]', '{}', '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": 1}}'])
def test_a_file_that_is_no_index_is_named(folder, text):
    (folder / INDEX).write_text(text)
    assert str(folder / INDEX) in refusal(folder)


def test_several_files_without_an_index_are_refused(folder):
    shutil.copy(folder / WEIGHTS, folder / 'other.safetensors')
    assert f'{folder} holds 2 .safetensors files and no index' in refusal(folder)


def test_a_folder_without_weights_is_refused(folder):
    (folder / WEIGHTS).unlink()
    assert f'{folder} holds 0 .safetensors files' in refusal(folder)


def test_a_checkpoint_that_does_not_exist_is_named(tmp_path):
    assert str(tmp_path / 'nowhere') in refusal(tmp_path / 'nowhere')


@pytest.mark.parametrize('text', ['nope', '[]', 'null'])
def test_a_config_that_holds_no_object_is_named(folder, text):
    (folder / 'config.json').write_text(text)
    assert str(folder / 'config.json') in refusal(folder)


def test_every_size_that_the_config_lacks_is_named(folder):
    change_config(folder, num_layers='3', ffn_dim=0, text_dim=None)
    message = refusal(folder)
    assert all(name in message for name in ('num_layers', 'ffn_dim', 'text_dim'))
    assert 'freq_dim' not in message


@pytest.mark.parametrize('changes, part', [
    ({'patch_size': 2}, 'patch_size is 2, expected [1, rows, columns]'),
    ({'patch_size': [2, 2, 2]}, 'patch_size is [2, 2, 2]'),
    ({'patch_size': [1, 0, 2]}, 'patch_size is [1, 0, 2]'),
    ({'eps': 'tiny'}, "eps is 'tiny'"),
    ({'out_channels': 16}, 'out_channels is 16, expected in_channels (48)'),
    ({'attention_head_dim': 27}, 'attention_head_dim is 27')])
def test_a_value_that_no_network_can_have_is_named(folder, changes, part):
    change_config(folder, **changes)
    assert part in refusal(folder)
