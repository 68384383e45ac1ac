"""Linear layers by oneDNN: results and gradients agree with nn.Linear."""

import pytest
import torch
from torch.nn import functional

from lingbot_va_ros.model import onednn
from lingbot_va_ros.model.onednn import Linear


@pytest.mark.skipif(not onednn.has_onednn(), reason='needs oneDNN')
def test_a_large_layer_is_multiplied_by_onednn_and_agrees(monkeypatch):
    layer, features = Linear(512, 768), torch.randn(2, 3, 40, 512)
    called = []
    product = onednn.onednn_matmul_t
    monkeypatch.setattr(
        onednn, 'onednn_matmul_t', lambda *arguments: called.append(1) or product(*arguments))
    with torch.inference_mode():
        out = layer(features)
    assert called == [1]
    expected = functional.linear(features, layer.weight, layer.bias)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)


def test_a_layer_that_learns_has_gradients():
    layer, features = Linear(512, 768), torch.randn(40, 512)
    layer(features).square().mean().backward()
    assert layer.weight.grad.abs().max() > 0


def test_small_inputs_and_other_dtypes_take_the_default_path(monkeypatch):
    monkeypatch.setattr(onednn, 'onednn_matmul_t', None)
    with torch.inference_mode():
        assert Linear(512, 768)(torch.randn(2, 512)).shape == (2, 768)
        assert Linear(32, 64)(torch.randn(40, 32)).shape == (40, 64)
        half = Linear(512, 768).bfloat16()
        assert half(torch.randn(40, 512).bfloat16()).dtype == torch.bfloat16


def test_a_pytorch_without_the_operator_takes_the_default_path(monkeypatch):
    monkeypatch.setattr(
        onednn, 'onednn_matmul_t', lambda *_arguments: 1 / torch.ops.mkldnn.missing)
    onednn.has_onednn.cache_clear()
    try:
        with torch.inference_mode():
            assert Linear(512, 768)(torch.randn(40, 512)).shape == (40, 768)
    finally:
        onednn.has_onednn.cache_clear()
