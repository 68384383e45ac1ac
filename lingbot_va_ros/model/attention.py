"""Attention without a mask by PyTorch, flash-attn or oneDNN, and the choice between them."""

from collections.abc import Callable
from contextlib import nullcontext
import importlib.util

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import sdpa_kernel, SDPBackend

from lingbot_va_ros.model.onednn import has_onednn, onednn_matmul_t
from lingbot_va_ros.specs.engine_choices import ATTENTIONS

# Queries [B, Lq, H, D], keys and values [B, Lk, H, D] give [B, Lq, H * D], of their dtype.
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]

# PyTorch's kernels, fastest first; the flash kernel takes half precision only.
CUDA_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
FLASH_DTYPES = (torch.float16, torch.bfloat16)
FLASH_CAPABILITY = (8, 0)  # Ampere, the oldest that flash-attn 2 supports
FLASH_HEAD_DIM = 256

MIN_MULTIPLY_ADDS = 2 ** 20  # of a head; PyTorch's kernel is faster below
SCORES_PER_THREAD = 2 ** 20  # scores in flight, float32: 4 MiB, which fit into the cache


def sdpa(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """
    Attend by PyTorch's scaled_dot_product_attention, which selects a kernel.

    On CUDA its flash kernel has priority: like flash-attn's own, it splits the keys among
    multiprocessors that would be idle with few queries. cuDNN's is not known to do so.
    """
    with sdpa_kernel(CUDA_KERNELS, set_priority=True) if query.is_cuda else nullcontext():
        out = functional.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
    return out.transpose(1, 2).flatten(2)


def _by_cudnn(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        out = functional.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
    return out.transpose(1, 2).flatten(2)


def onednn_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """
    Attend on a CPU in float32 by two oneDNN matrix products for each head.

    The softmax is taken of whole rows of scores; PyTorch's kernel rescales block by block and
    multiplies by MKL. Small inputs, and inputs that require a gradient, take PyTorch's kernel.
    """
    (batch, queries, heads, size), keys = query.shape, key.shape[1]
    if queries * keys * size < MIN_MULTIPLY_ADDS or (
            torch.is_grad_enabled() and (query.requires_grad or key.requires_grad)):
        return sdpa(query, key, value)
    most = max(16, SCORES_PER_THREAD * torch.get_num_threads() // keys)
    rows = -(-queries // -(-queries // most))  # parts of nearly equal size
    query = query.transpose(1, 2) * size ** -0.5  # [B, H, Lq, D]
    out = query.new_empty((batch, queries, heads, size))
    for row in range(batch):
        for head in range(heads):
            head_key = key[row, :, head].contiguous()
            head_value = value[row, :, head].contiguous().T
            for first in range(0, queries, rows):
                part = slice(first, first + rows)
                weights = onednn_matmul_t(query[row, head, part], head_key).softmax(-1)
                out[row, part, head] = onednn_matmul_t(weights, head_value)
    return out.flatten(2)


def candidates(
    device: torch.device, dtype: torch.dtype, head_dim: int,
) -> dict[str, Attention]:
    """Return every attention function that can run on the device, by name, for benchmarks."""
    # The names are keys of the JSON that bench writes.
    found: dict[str, Attention] = {'sdpa': sdpa}
    if device.type == 'cuda':
        found['sdpa cudnn'] = _by_cudnn
    if device.type == 'cpu' and dtype == torch.float32 and has_onednn():
        found['products'] = onednn_attention
    if not why_no_flash(device, dtype, head_dim):
        found['flash-attn'] = _flash()
    return found


def choose_attention(
    name: str, device: torch.device, dtype: torch.dtype, head_dim: int,
) -> tuple[Attention, str]:
    """
    Return the attention function for a name, and a log line with the choice and its reason.

    :param name: one of `ATTENTIONS`. `auto` takes flash-attn where it can run, else oneDNN for
        float32 on a CPU, else PyTorch's kernel.
    :raises ValueError: the name is unknown, or it is `flash` and flash-attn cannot run.
    """
    if name not in ATTENTIONS:
        raise ValueError(f'attention is {name!r}; expected one of {", ".join(ATTENTIONS)}')
    if name == 'sdpa':
        return sdpa, 'attention: sdpa, as asked for'
    reason = why_no_flash(device, dtype, head_dim)
    if reason and name == 'flash':
        raise ValueError(f'attention is flash, but {reason}; expected auto or sdpa')
    if reason and device.type == 'cpu' and dtype == torch.float32 and has_onednn():
        return onednn_attention, f'attention: oneDNN ({reason})'
    if reason:
        return sdpa, f'attention: sdpa ({reason})'
    return _flash(), 'attention: flash-attn'


def why_no_flash(device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    """Return the reason why flash-attn cannot run on the device; empty where it can."""
    if device.type != 'cuda':
        return f'flash-attn needs a CUDA device, not {device.type}'
    if dtype not in FLASH_DTYPES:
        return f'flash-attn takes float16 and bfloat16, not {str(dtype).removeprefix("torch.")}'
    if head_dim > FLASH_HEAD_DIM or head_dim % 8:
        return f'flash-attn takes heads of up to {FLASH_HEAD_DIM} in steps of 8, not {head_dim}'
    capability = torch.cuda.get_device_capability(device)
    if capability < FLASH_CAPABILITY:
        return (f'flash-attn needs compute capability {FLASH_CAPABILITY[0]}.'
                f'{FLASH_CAPABILITY[1]}, the device has {capability[0]}.{capability[1]}')
    if importlib.util.find_spec('flash_attn') is None:
        return 'flash-attn is not installed'
    try:
        _flash()
    except ImportError as error:  # built for another torch or CUDA
        return f'flash-attn cannot be imported: {error}'
    return ''


def _flash() -> Attention:
    # Takes [batch, length, heads, head_dim], contiguous in the last axis only.
    from flash_attn import flash_attn_func

    def flash(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return flash_attn_func(query, key, value).flatten(2)

    return flash
