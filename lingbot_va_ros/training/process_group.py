"""
One process or several: the same training step on one CPU, one GPU, or all that torchrun started.

Several processes share the weights in pieces (FSDP2's `fully_shard`): each holds a part of every
weight, of its gradient and of the optimiser's state, and gathers a block while it runs.
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

# Whole tensors, on the CPU: what is saved does not depend on the number of processes.
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
SPREAD = StateDictOptions(full_state_dict=True, broadcast_from_rank0=False)
# What a training forward calls of a block; each of them gathers the block's weights.
BLOCK_METHODS = ('queries_keys_values', 'think', 'text_states')


@dataclass(frozen=True)
class World:
    """This process among all: `rank` from 0, of `size`."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and talks."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Return whether any process says so; all must ask."""
        if self.size == 1:
            return flag
        told = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(told, op=dist.ReduceOp.MAX)
        return bool(told.item())

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of a tensor over all processes."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.size
        return values

    def wait(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()

    def leave(self) -> None:
        """End the processes' connection."""
        if self.size > 1:
            dist.destroy_process_group()


def join_world(device: str) -> World:
    """
    Join the processes that torchrun has started, if it has.

    :param device: `cpu`, `cuda` (with torchrun: each process takes the one of its local rank) or
        `cuda:<n>`.
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
        return World(0, 1, chosen)
    if chosen.type == 'cuda':
        chosen = torch.device('cuda', int(os.environ['LOCAL_RANK']))
        torch.cuda.set_device(chosen)
    dist.init_process_group('nccl' if chosen.type == 'cuda' else 'gloo')
    return World(dist.get_rank(), size, chosen)


def shard(module: nn.Module, world: World) -> None:
    """Spread a module's weights over all processes; its blocks are gathered one at a time."""
    if world.size == 1:
        return
    mesh = dist.init_device_mesh(world.device.type, (world.size,))
    for name in ('blocks', 'action_blocks'):
        for block in getattr(module.network, name, ()):
            fully_shard(block, mesh=mesh)
            for method in BLOCK_METHODS:
                register_fsdp_forward_method(block, method)
    fully_shard(module, mesh=mesh)


def whole_state(
    module: nn.Module, optimiser: torch.optim.Optimizer, mean: dict[str, Tensor],
) -> dict[str, Any]:
    """Return weights, optimiser state and mean weights whole; all processes must call this."""
    return {
        'weights': get_model_state_dict(module, options=WHOLE),
        'optimiser': get_optimizer_state_dict(module, optimiser, options=WHOLE),
        'mean': {name: whole(tensor) for name, tensor in mean.items()}}


def take_state(
    module: nn.Module, optimiser: torch.optim.Optimizer, mean: dict[str, Tensor],
    state: dict[str, Any],
) -> None:
    """Take what `whole_state` returned, in whatever number of processes that was."""
    set_model_state_dict(module, state['weights'], options=SPREAD)
    set_optimizer_state_dict(module, optimiser, state['optimiser'], options=SPREAD)
    for name, tensor in mean.items():
        saved = state['mean'][name].to(tensor.device)
        if isinstance(tensor, DTensor):
            saved = distribute_tensor(saved, tensor.device_mesh, tensor.placements)
        tensor.copy_(saved)


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor's copy on the CPU; all processes must call this for one that is spread."""
    if isinstance(tensor, DTensor):
        tensor = tensor.full_tensor()
    return tensor.detach().cpu().clone()
