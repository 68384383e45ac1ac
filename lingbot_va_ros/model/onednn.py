"""
Matrix products of float32 on a CPU by oneDNN, where PyTorch would take MKL.

On processors that are not Intel's MKL leaves the widest vector instructions alone: at the same
precision oneDNN is 2.2 times as fast on a Zen 5, and by a tenth on a Zen 4. The operator is the
one that PyTorch's own compiler calls; where it is missing, or needs a gradient, PyTorch's usual
path runs.
"""

import functools
import platform

import torch
from torch import nn, Tensor
from torch.nn import functional

# Smaller products are faster, or as fast, in PyTorch's usual path.
LEAST_ROWS = 8
LEAST_WEIGHTS = 2 ** 18


@functools.cache
def has_onednn() -> bool:
    """Return whether the operator is there and multiplies; on x86 alone, where it was measured."""
    if platform.machine() not in ('x86_64', 'AMD64') or not torch.backends.mkldnn.is_available():
        return False
    left, right = torch.eye(16), torch.arange(256.0).reshape(16, 16)
    try:
        with torch.inference_mode():
            return torch.equal(product(left, right), right.T)
    except (AttributeError, RuntimeError, TypeError):
        return False


def product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """
    Return left @ right.T + bias by oneDNN.

    :param left: [M, K] float32 on the CPU; `right` [N, K], contiguous or the transpose of what is
        (any other order takes a path that is a thousand times slower); `bias` [N].
    """
    return torch.ops.mkldnn._linear_pointwise(left, right, bias, 'none', [], '')


class Linear(nn.Linear):
    """nn.Linear, whose float32 products on a CPU are oneDNN's where no gradient is wanted."""

    def forward(self, features: Tensor) -> Tensor:
        """Return features [..., in_features] times the weight, [..., out_features]."""
        weight = self.weight
        if not multiplies_by_onednn(features, weight):
            return functional.linear(features, weight, self.bias)
        out = product(features.reshape(-1, self.in_features), weight, self.bias)
        return out.unflatten(0, features.shape[:-1])


def multiplies_by_onednn(features: Tensor, weight: Tensor) -> bool:
    """Return whether features [..., K] times a weight [N, K] are large enough, and oneDNN's."""
    return (weight.numel() >= LEAST_WEIGHTS
            and features.numel() >= LEAST_ROWS * weight.shape[1]
            and _plain_float32(features, weight) and has_onednn())


def _plain_float32(features: Tensor, weight: Tensor) -> bool:
    return (features.dtype == weight.dtype == torch.float32
            and features.device.type == weight.device.type == 'cpu' and weight.is_contiguous()
            and not (torch.is_grad_enabled()
                     and (features.requires_grad or weight.requires_grad)))
