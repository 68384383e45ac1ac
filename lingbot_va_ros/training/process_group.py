"""
Runs a training step in one process, or in all processes that torchrun has started.

Several processes shard the weights (FSDP2's `fully_shard`): each holds a part of every weight, of
its gradient and of the optimizer's state, and gathers a block while it runs.
"""

from dataclasses import dataclass
import os
from typing import Any

import torch
from torch import nn, Tensor
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
    StateDictOptions,
)
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import distribute_tensor, DTensor

# Full tensors on the CPU: a saved state does not depend on the number of processes.
FULL_STATE = StateDictOptions(full_state_dict=True, cpu_offload=True)
LOAD_FULL_STATE = StateDictOptions(full_state_dict=True, broadcast_from_rank0=False)
# Methods of a block that a training forward calls; each gathers the block's weights.
BLOCK_METHODS = ('project_qkv', 'cross_attn_and_ffn', 'text_kv')


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a training run: this one has `rank`, from 0, of `size`."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Return whether this is the process that writes files and prints."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process; all processes must call this."""
        if self.size == 1:
            return flag
        flags = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return bool(flags.item())

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of a tensor over all processes."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.size
        return values

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()

    def close(self) -> None:
        """Leave the process group."""
        if self.size > 1:
            dist.destroy_process_group()


def join_process_group(device: str) -> ProcessGroup:
    """
    Join the processes that torchrun has started, or return a group of one process.

    :param device: `cpu`, `cuda` (with torchrun: the device of the local rank) or `cuda:<n>`.
    :raises ValueError: there is no such device.
    """
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ValueError(f'device {device!r}; expected cpu, cuda or cuda:<number>') from None
    if chosen.type not in ('cpu', 'cuda'):
        raise ValueError(f'device {device!r}; expected cpu, cuda or cuda:<number>')
    if chosen.type == 'cuda' and not torch.cuda.is_available():
        raise ValueError(f'device {device!r}: this machine has no CUDA device')
    size = int(os.environ.get('WORLD_SIZE', 1))
    if size == 1:
        return ProcessGroup(0, 1, chosen)
    if chosen.type == 'cuda':
        chosen = torch.device('cuda', int(os.environ['LOCAL_RANK']))
        torch.cuda.set_device(chosen)
    dist.init_process_group('nccl' if chosen.type == 'cuda' else 'gloo')
    return ProcessGroup(dist.get_rank(), size, chosen)


def shard(module: nn.Module, group: ProcessGroup) -> None:
    """Shard a module's weights over all processes; its blocks are gathered one at a time."""
    if group.size == 1:
        return
    mesh = dist.init_device_mesh(group.device.type, (group.size,))
    for name in ('blocks', 'action_blocks'):
        for block in getattr(module.network, name, ()):
            fully_shard(block, mesh=mesh)
            for method in BLOCK_METHODS:
                register_fsdp_forward_method(block, method)
    fully_shard(module, mesh=mesh)


def full_state(
    module: nn.Module, optimizer: torch.optim.Optimizer, mean: dict[str, Tensor],
) -> dict[str, Any]:
    """Return full weights, optimizer state and EMA weights; all processes must call this."""
    return {
        'weights': get_model_state_dict(module, options=FULL_STATE),
        'optimiser': get_optimizer_state_dict(module, optimizer, options=FULL_STATE),
        'mean': {name: full_tensor(tensor) for name, tensor in mean.items()}}


def load_full_state(
    module: nn.Module, optimizer: torch.optim.Optimizer, mean: dict[str, Tensor],
    state: dict[str, Any],
) -> None:
    """Load the result of `full_state`, saved by any number of processes."""
    set_model_state_dict(module, state['weights'], options=LOAD_FULL_STATE)
    set_optimizer_state_dict(module, optimizer, state['optimiser'], options=LOAD_FULL_STATE)
    for name, tensor in mean.items():
        saved = state['mean'][name].to(tensor.device)
        if isinstance(tensor, DTensor):
            saved = distribute_tensor(saved, tensor.device_mesh, tensor.placements)
        tensor.copy_(saved)


def full_tensor(tensor: Tensor) -> Tensor:
    """Return a full copy of a tensor on the CPU; if sharded, all processes must call this."""
    if isinstance(tensor, DTensor):
        tensor = tensor.full_tensor()
    return tensor.detach().cpu().clone()
