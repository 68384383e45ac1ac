"""LeRobot's folders: the loaded network, adapters, and the frozen parts."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file
import torch

from lingbot_va_ros.model.checkpoint import load_transformer
from lingbot_va_ros.policy.inference.checkpoint_parts import find_parts
from lingbot_va_ros.specs.errors import CheckpointError
from lingbot_va_ros.specs.lerobot_folder import find_lerobot_folder

CPU, FLOAT = torch.device('cpu'), torch.float32
TO_K = 'blocks.1.attn1.to_k'


def change_config(folder, **fields):
    path = folder / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def remove_from_config(folder, name):
    path = folder / 'config.json'
    config = json.loads(path.read_text())
    del config[name]
    path.write_text(json.dumps(config))


def make_adapter(folder, base, **config):
    """Turn a folder with weights into one with an adapter of to_k of block 1 on `base`."""
    weights = load_file(str(folder / 'model.safetensors'))
    (folder / 'model.safetensors').unlink()
    rows, columns = weights[f'transformer.{TO_K}.weight'].shape
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(2, columns, generator=generator)
    b = torch.randn(rows, 2, generator=generator)
    embedder = torch.randn(weights['transformer.action_embedder.weight'].shape,
                           generator=generator)
    prefix = 'base_model.model.transformer.'
    save_file(
        {f'{prefix}{TO_K}.lora_A.weight': a, f'{prefix}{TO_K}.lora_B.weight': b,
         f'{prefix}action_embedder.weight': embedder},
        str(folder / 'adapter_model.safetensors'))
    (folder / 'adapter_config.json').write_text(json.dumps({
        'peft_type': 'LORA', 'base_model_name_or_path': str(base), 'r': 2, 'lora_alpha': 3,
        'use_rslora': True, 'modules_to_save': ['action_embedder'], **config}))
    change_config(folder, use_peft=True)
    return 3 / 2 ** 0.5 * (b @ a), embedder


@pytest.fixture
def public(untrained_checkpoint):
    return dict(load_transformer(
        untrained_checkpoint / 'transformer', CPU, FLOAT).named_parameters())


def test_the_network_is_that_of_the_public_layout(lerobot_folder, public):
    network = find_parts(lerobot_folder).load_transformer(CPU, FLOAT)
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, public[name]), name


def test_the_folder_of_a_training_step_is_enough(lerobot_folder):
    assert find_lerobot_folder(lerobot_folder.parent) == lerobot_folder


def test_the_public_layout_is_not_taken_for_lerobots(untrained_checkpoint):
    assert find_lerobot_folder(untrained_checkpoint) is None
    assert find_parts(untrained_checkpoint).frozen == untrained_checkpoint


@pytest.mark.parametrize('on_public', [True, False])
def test_an_adapter_is_merged_into_its_rows(
    lerobot_folder, untrained_checkpoint, public, tmp_path, on_public,
):
    base = untrained_checkpoint
    if not on_public:
        base = tmp_path / 'base'
        shutil.copytree(lerobot_folder, base)
    product, embedder = make_adapter(lerobot_folder, base)
    network = find_parts(lerobot_folder).load_transformer(CPU, FLOAT)
    dim = network.config.dim
    for name, parameter in network.named_parameters():
        expected = public[name].clone()
        if name == 'blocks.1.qkv.weight':
            expected[dim:2 * dim] += product
        elif name == 'action.embed.weight':
            expected = embedder
        torch.testing.assert_close(parameter, expected, msg=name)


def test_the_merged_weight_is_cast_once(lerobot_folder, untrained_checkpoint, public):
    product, _ = make_adapter(lerobot_folder, untrained_checkpoint)
    network = find_parts(lerobot_folder).load_transformer(CPU, torch.bfloat16)
    dim = network.config.dim
    expected = (public['blocks.1.qkv.weight'][dim:2 * dim] + product).bfloat16()
    assert torch.equal(dict(network.named_parameters())[
        'blocks.1.qkv.weight'][dim:2 * dim], expected)


def test_the_base_of_an_adapter_can_be_a_parameter(lerobot_folder, untrained_checkpoint):
    make_adapter(lerobot_folder, 'somebody/somewhere')
    with pytest.raises(CheckpointError) as refusal:
        find_parts(lerobot_folder)
    assert "base_model_name_or_path is 'somebody/somewhere'" in str(refusal.value)
    assert 'nothing is downloaded' in str(refusal.value)
    assert 'adapter_base' in str(refusal.value)
    parts = find_parts(lerobot_folder, adapter_base=str(untrained_checkpoint))
    assert parts.adapter is not None


def test_a_base_beside_the_adapter_is_found_by_its_relative_path(lerobot_folder, tmp_path):
    shutil.copytree(lerobot_folder, tmp_path / 'base')
    make_adapter(lerobot_folder, '../base')
    assert find_parts(lerobot_folder).weights.where.parent.name == 'base'


@pytest.mark.parametrize('base, named', [(None, 'is None'), ('', "is ''")])
def test_an_adapter_without_a_base_names_the_parameter_to_set(lerobot_folder, base, named):
    make_adapter(lerobot_folder, '')
    path = lerobot_folder / 'adapter_config.json'
    path.write_text(json.dumps({
        **json.loads(path.read_text()), 'base_model_name_or_path': base}))
    with pytest.raises(CheckpointError, match=f'{named}; set the parameter adapter_base'):
        find_parts(lerobot_folder)


def test_an_adapter_on_an_adapter_is_refused(lerobot_folder, untrained_checkpoint, tmp_path):
    shutil.copytree(lerobot_folder, tmp_path / 'base')
    make_adapter(tmp_path / 'base', untrained_checkpoint)
    make_adapter(lerobot_folder, tmp_path / 'base')
    with pytest.raises(CheckpointError, match='is itself an adapter'):
        find_parts(lerobot_folder)


def test_use_peft_without_an_adapter_is_a_contradiction(lerobot_folder):
    change_config(lerobot_folder, use_peft=True)
    with pytest.raises(CheckpointError, match='adapter_config.json is missing'):
        find_parts(lerobot_folder)


def test_weights_beside_an_unwanted_adapter_are_a_contradiction(
    lerobot_folder, untrained_checkpoint,
):
    weights = (lerobot_folder / 'model.safetensors').read_bytes()
    make_adapter(lerobot_folder, untrained_checkpoint)
    change_config(lerobot_folder, use_peft=False)
    assert find_parts(lerobot_folder).adapter is not None  # nothing else can be meant
    (lerobot_folder / 'model.safetensors').write_bytes(weights)
    with pytest.raises(CheckpointError, match='does not say use_peft'):
        find_parts(lerobot_folder)


def test_frozen_parts_come_from_the_config(lerobot_folder, untrained_checkpoint):
    assert find_parts(lerobot_folder).frozen == untrained_checkpoint


def test_the_parameter_comes_before_the_config(lerobot_folder, tmp_path):
    assert find_parts(lerobot_folder, wan_pretrained_path=str(tmp_path)).frozen == tmp_path


def test_frozen_parts_beside_the_weights_are_taken(lerobot_folder):
    for part in ('vae', 'text_encoder', 'tokenizer'):
        (lerobot_folder / part).mkdir()
    change_config(lerobot_folder, wan_pretrained_path='outputs/of/another/machine')
    assert find_parts(lerobot_folder).frozen == lerobot_folder


def test_a_name_on_the_hub_is_never_downloaded(lerobot_folder, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError('something reached for the network')

    monkeypatch.setattr('socket.socket.connect', refuse)
    monkeypatch.setattr('socket.getaddrinfo', refuse)
    change_config(lerobot_folder, wan_pretrained_path='robbyant/lingbot-va-of-nobody')
    with pytest.raises(CheckpointError) as refusal:
        find_parts(lerobot_folder)
    assert "wan_pretrained_path is 'robbyant/lingbot-va-of-nobody'" in str(refusal.value)
    assert 'set the parameter wan_pretrained_path to a local copy' in str(refusal.value)


def test_a_config_without_frozen_parts_names_the_parameter_to_set(lerobot_folder):
    remove_from_config(lerobot_folder, 'wan_pretrained_path')
    with pytest.raises(CheckpointError, match='set the parameter wan_pretrained_path'):
        find_parts(lerobot_folder)


@pytest.mark.parametrize('fields, named', [
    ({'type': 'act'}, "type is 'act', expected 'lingbot_va'"),
    ({'type': None}, 'type is missing'),
    ({'num_layers': None}, 'num_layers')])
def test_a_wrong_config_is_named(lerobot_folder, fields, named):
    change_config(lerobot_folder, **fields)
    with pytest.raises(CheckpointError, match=named):
        find_parts(lerobot_folder)


def test_missing_weights_are_named(lerobot_folder):
    (lerobot_folder / 'model.safetensors').unlink()
    with pytest.raises(CheckpointError, match='model.safetensors does not exist'):
        find_parts(lerobot_folder)


def test_tensors_are_listed_by_the_names_of_the_file(lerobot_folder):
    path = lerobot_folder / 'model.safetensors'
    weights = load_file(str(path))
    weights['transformer.other.weight'] = torch.zeros(2)
    weights['normalize.mean'] = torch.zeros(3)
    del weights['transformer.proj_out.bias']
    weights['transformer.proj_out.weight'] = torch.zeros(5, 7)
    save_file(weights, str(path))
    with pytest.raises(CheckpointError) as refusal:
        find_parts(lerobot_folder).load_transformer(CPU, FLOAT)
    for line in ('extra transformer.other.weight [2]', 'extra normalize.mean [3]',
                 'missing transformer.proj_out.bias', 'transformer.proj_out.weight has the shape '
                 '[5, 7]'):
        assert line in str(refusal.value)
