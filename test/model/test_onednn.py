"""Linear layers by oneDNN: nn.Linear's numbers, and its gradients where they are wanted."""

import pytest
import torch
from torch.nn import functional

from lingbot_va_ros.model import onednn as products
from lingbot_va_ros.model.onednn import Linear


@pytest.mark.skipif(not products.has_onednn(), reason='other products run here')
def test_a_large_layer_is_multiplied_by_onednn_and_agrees(monkeypatch):
    layer, features = Linear(512, 768), torch.randn(2, 3, 40, 512)
    called = []
    product = products.product
    monkeypatch.setattr(
        products, 'product', lambda *arguments: called.append(1) or product(*arguments))
    with torch.inference_mode():
        out = layer(features)
    assert called == [1]
    expected = functional.linear(features, layer.weight, layer.bias)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)


def test_a_layer_that_learns_has_gradients():
    layer, features = Linear(512, 768), torch.randn(40, 512)
    layer(features).square().mean().backward()
    assert layer.weight.grad.abs().max() > 0


def test_what_is_small_or_of_another_dtype_goes_the_usual_way(monkeypatch):
    monkeypatch.setattr(products, 'product', None)
    with torch.inference_mode():
        assert Linear(512, 768)(torch.randn(2, 512)).shape == (2, 768)
        assert Linear(32, 64)(torch.randn(40, 32)).shape == (40, 64)
        half = Linear(512, 768).bfloat16()
        assert half(torch.randn(40, 512).bfloat16()).dtype == torch.bfloat16


def test_a_pytorch_without_the_operator_is_no_reason_to_fail(monkeypatch):
    monkeypatch.setattr(products, 'product', lambda *_arguments: 1 / torch.ops.mkldnn.missing)
    products.has_onednn.cache_clear()
    try:
        with torch.inference_mode():
            assert Linear(512, 768)(torch.randn(40, 512)).shape == (40, 768)
    finally:
        products.has_onednn.cache_clear()
