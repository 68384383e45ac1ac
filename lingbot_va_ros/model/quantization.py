"""
Linear layers whose weights are stored in 8 bits, with one scale for each output channel.

The layers of the blocks, nearly all weights, are quantized. Inputs, outputs and time embedders
keep their dtype. Quantization is symmetric, rounds to nearest and needs no calibration: the scale
of a channel is given by its largest weight, the scale of a token by its largest feature.
"""


import torch
from torch import nn, Tensor
from torch.nn import functional

from lingbot_va_ros.model.onednn import Linear, multiplies_by_onednn, onednn_matmul_t
from lingbot_va_ros.model.transformer import Network
from lingbot_va_ros.specs.engine_choices import FULL, WEIGHTS

LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
MULTIPLE = 16  # of both sizes of a weight, required by 8-bit products
MIN_ROWS = 32  # PyTorch's int8 product on CUDA needs more than 16

KINDS = {
    'int8': 'weights in int8, multiplied in the dtype',
    'int8_dynamic': 'weights in int8, multiplied by tokens in int8',
    'float8': 'weights in float8 (e4m3), multiplied by tokens in float8'}


def quantize(weight: Tensor, dtype: torch.dtype) -> tuple:
    """
    Return the rows of [M, K] in an 8-bit dtype, and their scales [M, 1] float32.

    Rows times scales approximates the input.
    """
    weight = weight.float()
    scale = (weight.abs().amax(1, keepdim=True) / LARGEST[dtype]).clamp_min(1e-12)
    scaled = weight / scale
    return (scaled.round() if dtype == torch.int8 else scaled).to(dtype), scale


class QuantizedLinear(nn.Module):
    """A linear layer with 8-bit weights [out, in], of one of `KINDS`."""

    def __init__(self, layer: nn.Linear, kind: str):
        super().__init__()
        dtype = torch.float8_e4m3fn if kind == 'float8' else torch.int8
        weight, scale = quantize(layer.weight.detach(), dtype)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale = nn.Parameter(scale[:, 0], requires_grad=False)  # [out] float32
        self.bias = layer.bias  # or None
        self.kind = kind

    def forward(self, features: Tensor) -> Tensor:
        """Return features [..., in] mapped to [..., out], in their dtype."""
        rows = features.reshape(-1, self.weight.shape[1])
        multiply = {'int8': self._by_weights, 'int8_dynamic': self._by_int8,
                    'float8': self._by_float8}[self.kind]
        out = multiply(rows)
        if self.bias is not None:
            out = out + self.bias.to(out.dtype)
        return out.to(features.dtype).unflatten(0, features.shape[:-1])

    def _by_weights(self, rows: Tensor) -> Tensor:
        weight = self.weight.to(rows.dtype)
        multiply = onednn_matmul_t if multiplies_by_onednn(rows, weight) else functional.linear
        return multiply(rows, weight) * self.scale.to(rows.dtype)

    def _by_int8(self, rows: Tensor) -> Tensor:
        count = len(rows)
        if count < MIN_ROWS:
            rows = functional.pad(rows, (0, 0, 0, MIN_ROWS - count))
        tokens, scale = quantize(rows, torch.int8)
        out = torch._int_mm(tokens, self.weight.T)[:count]
        return out.float() * scale[:count] * self.scale

    def _by_float8(self, rows: Tensor) -> Tensor:
        tokens, scale = quantize(rows, torch.float8_e4m3fn)
        return torch._scaled_mm(
            tokens, self.weight.T, scale, self.scale[None], out_dtype=torch.bfloat16)


def check_kind(kind: str, device: torch.device, dtype: torch.dtype) -> None:
    """
    Check that a device supports a kind of weights, by a small product.

    :raises ValueError: the kind is unknown or not supported.
    """
    if kind not in WEIGHTS:
        raise ValueError(f'weights is {kind!r}; expected one of {", ".join(WEIGHTS)}')
    if kind == FULL:
        return
    layer = nn.Linear(64, 64, device=device, dtype=dtype)
    try:
        with torch.inference_mode():
            tokens = torch.ones(48, 64, device=device, dtype=dtype)
            QuantizedLinear(layer, kind)(tokens).sum().item()
    except RuntimeError as error:
        raise ValueError(
            f'weights is {kind}, which PyTorch cannot multiply on {device.type} here '
            f'({str(error).splitlines()[0]}); expected {FULL} or int8') from None


def quantize_blocks(network: Network, kind: str) -> dict[str, int]:
    """
    Quantize the weights of a network's blocks; `full` changes nothing.

    Layers are converted one at a time, so that memory is not doubled.

    :returns: bytes of the weights of the whole network now (`after`) and before.
    """
    before = weight_bytes(network)
    if kind != FULL:
        for name, block in network.named_modules():
            for place, layer in list(block.named_children()):
                if 'blocks.' in f'{name}.' and _can_be_quantized(layer):
                    setattr(block, place, QuantizedLinear(layer, kind))
    return {'before': before, 'after': weight_bytes(network)}


def weight_bytes(module: nn.Module) -> int:
    """Return the bytes of a module's weights."""
    return sum(weight.numel() * weight.element_size() for weight in module.parameters())


def _can_be_quantized(layer: nn.Module) -> bool:
    return isinstance(layer, Linear) and not any(size % MULTIPLE for size in layer.weight.shape)
