"""8-bit weights: their error is that of the format, and unsupported devices are an error."""

import copy

import pytest
import torch
from torch import nn

from lingbot_va_ros.model import quantization as quantized
from lingbot_va_ros.model.onednn import Linear
from lingbot_va_ros.model.quantization import (
    check_kind,
    KINDS,
    quantize,
    quantize_blocks,
    QuantizedLinear,
    weight_bytes,
)
from lingbot_va_ros.specs.engine_choices import FULL, WEIGHTS

CPU = torch.device('cpu')
# Relative error of one product of normal numbers: two bits of rounding noise, or e4m3's.
ERRORS = {'int8': 0.01, 'int8_dynamic': 0.015, 'float8': 0.045}


def layer_of(into=512, out=768, bias=True, dtype=torch.float32):
    torch.manual_seed(0)
    layer = Linear(into, out, bias)
    with torch.no_grad():
        layer.weight.normal_(0, into ** -0.5)
    return layer.requires_grad_(False).to(dtype)


def features(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('dtype', [torch.int8, torch.float8_e4m3fn])
def test_rows_times_scales_are_the_weight_again(dtype):
    weight = features(5, 64) * torch.tensor([1e-3, 1.0, 100.0, 1.0, 0.0])[:, None]
    rows, scale = quantize(weight, dtype)
    assert rows.dtype == dtype and scale.shape == (5, 1)
    step = scale / 2 if dtype == torch.int8 else weight.abs() / 16 + scale / 512
    assert ((rows.float() * scale - weight).abs() <= step * 1.001 + 1e-12).all()
    assert not rows[4].float().any()


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('tokens, bias', [((2, 3, 40), True), ((1, 5), False)])
def test_a_product_is_near_that_of_the_whole_weights(kind, dtype, tokens, bias):
    layer = layer_of(bias=bias, dtype=dtype)
    given = features(*tokens, 512).to(dtype)
    with torch.inference_mode():
        expected, found = layer(given), QuantizedLinear(layer, kind)(given)
    assert found.shape == expected.shape and found.dtype == dtype
    off = float((found.float() - expected.float()).norm() / expected.float().norm())
    assert 0 < off < ERRORS[kind] + (0.004 if dtype == torch.bfloat16 else 0)


def test_a_large_feature_of_one_token_does_not_spoil_the_others():
    layer, given = layer_of(), features(40, 512)
    quiet = QuantizedLinear(layer, 'int8_dynamic')
    with torch.inference_mode():
        before = quiet(given)
        given[7] *= 1e4
        after = quiet(given)
    others = [row for row in range(40) if row != 7]
    assert torch.equal(before[others], after[others])


@pytest.mark.parametrize('kind', KINDS)
def test_the_blocks_of_a_network_shrink_and_its_ends_stay(make_network, kind):
    network = make_network(heads=4, head_dim=32, ffn_dim=512)
    whole = copy.deepcopy(network)
    sizes = quantize_blocks(network, kind)
    assert sizes == {'before': weight_bytes(whole), 'after': weight_bytes(network)}
    assert weight_bytes(network.blocks) < 0.3 * weight_bytes(whole.blocks)
    assert network.dtype == torch.float32 and type(network.video.embed) is Linear
    assert isinstance(network.blocks[0].qkv, QuantizedLinear)
    text = network.text_kv(features(1, 16, 16))
    content, rotary = features(1, 8, 2, 4, 6), torch.ones(12, 1, 16, dtype=torch.complex64)
    found, expected = (each.video_velocity(content, [500.0, 500.0], rotary, states) for
                       each, states in ((network, text), (whole, whole.text_kv(
                           features(1, 16, 16)))))
    off = float((found - expected).norm() / expected.norm())
    assert 0 < off < 4 * ERRORS[kind]


def test_full_changes_nothing(make_network):
    network = make_network()
    before = dict(network.named_modules())
    quantize_blocks(network, FULL)
    assert dict(network.named_modules()) == before


def test_layers_of_odd_sizes_stay_whole():
    block = nn.ModuleDict({'odd': layer_of(24, 40), 'even': layer_of(32, 48)})
    network = nn.ModuleDict({'blocks': nn.ModuleList([block])})
    quantize_blocks(network, 'int8')
    assert type(block['odd']) is Linear and isinstance(block['even'], QuantizedLinear)


@pytest.mark.parametrize('kind', WEIGHTS)
def test_this_processor_can_do_all_kinds(kind):
    check_kind(kind, CPU, torch.float32)


def test_the_choices_are_the_implemented_kinds():
    assert WEIGHTS == (FULL, *KINDS)


def test_an_unknown_kind_is_refused_by_one_line():
    with pytest.raises(ValueError, match="^weights is 'int4'; expected one of full, int8, "):
        check_kind('int4', CPU, torch.float32)


def test_an_unsupported_device_is_reported_in_one_line(monkeypatch):
    def fails(*_arguments, **_keywords):
        raise RuntimeError('torch._scaled_mm needs compute capability 9.0\nor later')

    monkeypatch.setattr(quantized.torch, '_scaled_mm', fails)
    with pytest.raises(ValueError, match=(
            r'^weights is float8, which PyTorch cannot multiply on cpu here \(torch._scaled_mm '
            r'needs compute capability 9.0\); expected full or int8$')):
        check_kind('float8', CPU, torch.float32)
