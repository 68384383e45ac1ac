"""Adapters in peft's format: merged weights, and unsupported kinds that are rejected by name."""

import json
import math

import pytest
from safetensors.torch import save_file
import torch

from lingbot_va_ros.lerobot.lora import read_adapter
from lingbot_va_ros.specs.errors import CheckpointError

TO_Q, TO_K = 'blocks.0.attn1.to_q', 'blocks.1.attn1.to_k'
SHAPES = {
    f'{TO_Q}.weight': (6, 8), f'{TO_Q}.bias': (6,), f'{TO_K}.weight': (6, 8),
    f'{TO_K}.bias': (6,), 'action_embedder.weight': (8, 3), 'action_embedder.bias': (8,),
    'scale_shift_table': (1, 2, 8)}
MODEL = 'base_model.model.transformer.'


def factors(module: str = TO_Q, rank: int = 2, seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    return {
        f'{MODEL}{module}.lora_A.weight': torch.randn(rank, 8, generator=generator),
        f'{MODEL}{module}.lora_B.weight': torch.randn(6, rank, generator=generator)}


def write(folder, tensors, **config):
    settings = {
        'peft_type': 'LORA', 'r': 2, 'lora_alpha': 6, 'use_rslora': False, 'use_dora': False,
        'bias': 'none', 'fan_in_fan_out': False, 'init_lora_weights': True, 'rank_pattern': {},
        'alpha_pattern': {}, 'modules_to_save': None, 'layer_replication': None, **config}
    (folder / 'adapter_config.json').write_text(json.dumps(settings))
    save_file(tensors, str(folder / 'adapter_model.safetensors'))


def read(folder):
    return read_adapter(folder, SHAPES, 'transformer.')


def product(tensors, module=TO_Q):
    return (tensors[f'{MODEL}{module}.lora_B.weight'] @ tensors[f'{MODEL}{module}.lora_A.weight'])


@pytest.mark.parametrize('config, scale', [
    ({}, 6 / 2),
    ({'use_rslora': True}, 6 / math.sqrt(2)),
    ({'alpha_pattern': {'to_q': 10}}, 10 / 2),
    ({'alpha_pattern': {'to_k': 10}}, 6 / 2),
    ({'alpha_pattern': {r'transformer\.blocks\.0\..*': 10}, 'use_rslora': True},
     10 / math.sqrt(2)),
    ({'r': 16, 'rank_pattern': {'attn1.to_q': 2}}, 6 / 2),
])
def test_a_weight_gets_its_scaled_product(tmp_path, config, scale):
    tensors, base = factors(), torch.randn(6, 8)
    write(tmp_path, tensors, **config)
    merged = read(tmp_path).merge(f'{TO_Q}.weight', base)
    torch.testing.assert_close(merged, base + scale * product(tensors))


def test_tensors_outside_the_adapter_are_not_changed(tmp_path):
    write(tmp_path, factors())
    base = torch.randn(6, 8)
    assert read(tmp_path).merge(f'{TO_K}.weight', base) is base


def test_the_sum_is_made_in_float32(tmp_path):
    tensors = {name: tensor.bfloat16() for name, tensor in factors().items()}
    write(tmp_path, tensors)
    base = torch.randn(6, 8).bfloat16()
    merged = read(tmp_path).merge(f'{TO_Q}.weight', base)
    exact = base.float() + 3 * product({name: t.float() for name, t in tensors.items()})
    assert merged.dtype == torch.float32
    torch.testing.assert_close(merged, exact)


@pytest.mark.parametrize('key', [
    'action_embedder.weight', 'action_embedder.modules_to_save.weight',
    'action_embedder.modules_to_save.default.weight'])
def test_saved_modules_replace_whole_tensors(tmp_path, key):
    saved = torch.randn(8, 3)
    write(tmp_path, {**factors(), MODEL + key: saved}, modules_to_save=['action_embedder'])
    adapter = read(tmp_path)
    torch.testing.assert_close(
        adapter.merge('action_embedder.weight', torch.zeros(8, 3)), saved)


@pytest.mark.parametrize('key', [f'{TO_Q}.bias', f'{TO_Q}.base_layer.bias'])
def test_trained_biases_replace_those_of_the_base(tmp_path, key):
    bias = torch.randn(6)
    write(tmp_path, {**factors(), MODEL + key: bias}, bias='lora_only')
    torch.testing.assert_close(read(tmp_path).merge(f'{TO_Q}.bias', torch.ones(6)), bias)


def test_a_bias_of_the_second_factor_is_added_with_its_scale(tmp_path):
    bias, base = torch.randn(6), torch.randn(6)
    write(tmp_path, {**factors(), f'{MODEL}{TO_Q}.lora_B.bias': bias}, lora_bias=True)
    torch.testing.assert_close(
        read(tmp_path).merge(f'{TO_Q}.bias', base), base + 3 * bias)


def test_an_adapter_of_the_bare_network_is_taken_too(tmp_path):
    tensors = factors()
    write(tmp_path, {name.replace('.transformer.', '.'): t for name, t in tensors.items()})
    merged = read(tmp_path).merge(f'{TO_Q}.weight', torch.zeros(6, 8))
    torch.testing.assert_close(merged, 3 * product(tensors))


@pytest.mark.parametrize('config, named', [
    ({'use_dora': True}, 'DoRA'),
    ({'peft_type': 'LOHA'}, 'LOHA'),
    ({'peft_type': None}, 'peft_type'),
    ({'use_qalora': True}, 'QALoRA'),
    ({'init_lora_weights': 'pissa_niter_4'}, "init_lora_weights 'pissa_niter_4'"),
    ({'init_lora_weights': 'olora'}, "init_lora_weights 'olora'"),
    ({'target_parameters': ['scale_shift_table']}, 'target_parameters'),
    ({'layer_replication': [[0, 1]]}, 'layer_replication'),
    ({'r': 0}, 'r is 0'),
    ({'lora_alpha': None}, 'lora_alpha is None'),
    ({'rank_pattern': {'(': 2}}, 'rank_pattern'),
    ({'r': 4}, f'transformer.{TO_Q} has factors of rank 2, adapter_config.json gives it rank 4'),
])
def test_other_adapters_are_refused_by_name(tmp_path, config, named):
    write(tmp_path, factors(), **config)
    with pytest.raises(CheckpointError) as refusal:
        read(tmp_path)
    assert named in str(refusal.value)
    assert str(tmp_path) in str(refusal.value)


def test_magnitude_vectors_are_refused_as_dora(tmp_path):
    write(tmp_path, {**factors(), f'{MODEL}{TO_Q}.lora_magnitude_vector': torch.ones(6)})
    with pytest.raises(CheckpointError, match='DoRA'):
        read(tmp_path)


def test_every_key_that_does_not_fit_is_named(tmp_path):
    alone = factors(TO_K)
    del alone[f'{MODEL}{TO_K}.lora_B.weight']
    write(tmp_path, {
        **alone,
        **{name.replace(TO_Q, 'blocks.7.attn1.to_q'): t for name, t in factors().items()},
        f'{MODEL}{TO_Q}.lora_A.weight': torch.zeros(2, 9),
        f'{MODEL}{TO_Q}.lora_B.weight': torch.zeros(6, 2),
        f'{MODEL}head.weight': torch.zeros(3),
        f'{MODEL}action_embedder.weight': torch.zeros(8, 4)})
    with pytest.raises(CheckpointError) as refusal:
        read(tmp_path)
    message = str(refusal.value)
    for line in (
            f'{TO_K} has no lora_B', 'blocks.7.attn1.to_q.lora_A and .lora_B fit no weight',
            'lora_A [2, 9] and lora_B [6, 2], expected [r, 8] and [6, r] for a weight [6, 8]',
            'head.weight [3] fits no tensor',
            'action_embedder.weight has the shape [8, 4], expected [8, 3]'):
        assert line in message


def test_an_empty_adapter_is_refused(tmp_path):
    write(tmp_path, {})
    with pytest.raises(CheckpointError, match='holds no tensor'):
        read(tmp_path)


def test_a_truncated_adapter_is_named(tmp_path):
    write(tmp_path, factors())
    path = tmp_path / 'adapter_model.safetensors'
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match='adapter_model.safetensors cannot be read'):
        read(tmp_path)
