"""Attention without a mask, by PyTorch, flash-attn or oneDNN: which one, and why."""

from collections.abc import Callable
from contextlib import nullcontext
import importlib.util

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import sdpa_kernel, SDPBackend

from lingbot_va_ros.model.onednn import has_onednn, product

CHOICES = ('auto', 'flash', 'sdpa')
# [B, Lq, H, D] over keys and values [B, Lk, H, D] gives [B, Lq, H * D].
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]

# Of PyTorch, best first; the flash kernel takes half precision only.
CUDA_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
FLASH_DTYPES = (torch.float16, torch.bfloat16)
FLASH_CAPABILITY = (8, 0)  # Ampere; flash-attn 2 runs on nothing older
FLASH_HEAD_DIM = 256

LEAST_WORK = 2 ** 20  # multiply-adds of a head, below which PyTorch's kernel is faster
SCORES = 2 ** 20  # numbers for a thread at a time: 4 MiB, which a cache holds


def sdpa(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """
    Attend by PyTorch's scaled_dot_product_attention, which picks a kernel by itself.

    On CUDA its flash kernel comes first: like flash-attn's own it splits the keys among
    multiprocessors that few queries would leave idle, which cuDNN's is not known to do.
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


def by_products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """
    Attend on a CPU in float32 by two products of oneDNN for each head, the softmax between them.

    Whole rows of scores at a time: PyTorch's kernel rescales by blocks and multiplies with MKL.
    That one still takes what is small, and what wants a gradient.
    """
    (batch, queries, heads, size), keys = query.shape, key.shape[1]
    if queries * keys * size < LEAST_WORK or (
            torch.is_grad_enabled() and (query.requires_grad or key.requires_grad)):
        return sdpa(query, key, value)
    most = max(16, SCORES * torch.get_num_threads() // keys)
    rows = -(-queries // -(-queries // most))  # as even as can be
    query = query.transpose(1, 2) * size ** -0.5  # [B, H, Lq, D]
    out = query.new_empty((batch, queries, heads, size))
    for row in range(batch):
        for head in range(heads):
            head_key = key[row, :, head].contiguous()
            head_value = value[row, :, head].contiguous().T
            for first in range(0, queries, rows):
                part = slice(first, first + rows)
                weights = product(query[row, head, part], head_key).softmax(-1)
                out[row, part, head] = product(weights, head_value)
    return out.flatten(2)


def candidates(
    device: torch.device, dtype: torch.dtype, head_dim: int,
) -> dict[str, Attention]:
    """Return every attention that may run on a device, by name, to be measured."""
    found: dict[str, Attention] = {'sdpa': sdpa}
    if device.type == 'cuda':
        found['sdpa cudnn'] = _by_cudnn
    if device.type == 'cpu' and dtype == torch.float32 and has_onednn():
        found['products'] = by_products
    if not flash_obstacle(device, dtype, head_dim):
        found['flash-attn'] = _flash()
    return found


def choose_attention(
    name: str, device: torch.device, dtype: torch.dtype, head_dim: int,
) -> tuple[Attention, str]:
    """
    Return the attention function of a name, and a line that says which it is and why.

    :param name: `auto` takes flash-attn where it is installed and can run, oneDNN's products for
        float32 on a CPU, else PyTorch's kernel.
    :raises ValueError: an unknown name, or flash was asked for and cannot run: never a silent
        other one.
    """
    if name not in CHOICES:
        raise ValueError(f'attention is {name!r}; expected one of {", ".join(CHOICES)}')
    if name == 'sdpa':
        return sdpa, 'attention: sdpa, as asked for'
    obstacle = flash_obstacle(device, dtype, head_dim)
    if obstacle and name == 'flash':
        raise ValueError(f'attention is flash, but {obstacle}; expected auto or sdpa')
    if obstacle and device.type == 'cpu' and dtype == torch.float32 and has_onednn():
        return by_products, f'attention: products of oneDNN ({obstacle})'
    if obstacle:
        return sdpa, f'attention: sdpa ({obstacle})'
    return _flash(), 'attention: flash-attn'


def flash_obstacle(device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    """Return why flash-attn cannot run here; empty where it can."""
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
