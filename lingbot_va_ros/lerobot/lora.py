"""
Low-rank adapters in peft's format, merged into the weights that they were trained on.

`adapter_config.json` and `adapter_model.safetensors` beside it; see peft's LoraConfig and
save_and_load. A merged weight is W + scale * B A, with the scale alpha / r, or alpha / sqrt(r)
where `use_rslora` is true (rank-stabilised, arXiv 2312.03732).
"""

from collections.abc import Mapping
from dataclasses import dataclass
import math
from pathlib import Path
import re
from typing import Any

import torch
from torch import Tensor

from lingbot_va_ros.model.checkpoint import read_tensors
from lingbot_va_ros.specs.checkpoint_config import read_json_object
from lingbot_va_ros.specs.errors import CheckpointError

CONFIG = 'adapter_config.json'
WEIGHTS = 'adapter_model.safetensors'
PEFT_PREFIX = 'base_model.model.'

# Fields that make an adapter more than W + scale * B A, and what they are called.
_REFUSED = {
    'use_dora': 'DoRA (use_dora)',
    'use_qalora': 'QALoRA (use_qalora)',
    'use_bdlora': 'block-diagonal LoRA (use_bdlora)',
    'alora_invocation_tokens': 'activated LoRA (alora_invocation_tokens)',
    'arrow_config': 'Arrow routing (arrow_config)',
    'kasa_config': 'KaSA (kasa_config)',
    'monteclora_config': 'MonteCLoRA (monteclora_config)',
    'velora_config': 'VeLoRA (velora_config)',
    'layer_replication': 'replicated layers (layer_replication)',
    'target_parameters': 'adapters of bare parameters (target_parameters)',
    'trainable_token_indices': 'trained tokens (trainable_token_indices)',
    'fan_in_fan_out': 'transposed weights (fan_in_fan_out)',
}
# Beginnings that leave the base weights as they are; the others (pissa, olora, corda, loftq, …)
# take something out of them, so that the adapter does not fit what is on disk.
_BEGINNINGS = (None, True, False, 'gaussian', 'eva', 'orthogonal')
_LOW_RANK = re.compile(r'(?P<module>.+)\.lora_(?P<part>A|B)(\.default)?\.(?P<kind>weight|bias)')
_WRAPPERS = re.compile(r'\.(base_layer|modules_to_save(\.default)?)(?=\.)')


@dataclass(frozen=True)
class LowRank:
    """Factors of a change of a weight [out, in]: `a` [r, in], `b` [out, r], any float dtype."""

    a: Tensor
    b: Tensor
    scale: float

    def product(self, device: torch.device) -> Tensor:
        """Return scale * B A, [out, in] float32."""
        a, b = (factor.to(device, torch.float32) for factor in (self.a, self.b))
        return self.scale * (b @ a)


@dataclass(frozen=True)
class Adapter:
    """
    What an adapter makes of the base's tensors, by their names in public checkpoints.

    `replaced` are whole tensors (modules_to_save, trained biases), `added` vectors that come on
    top of a bias (`lora_bias`).
    """

    products: Mapping[str, LowRank]
    replaced: Mapping[str, Tensor]
    added: Mapping[str, Tensor]

    def merge(self, name: str, tensor: Tensor) -> Tensor:
        """Return the tensor to load in place of the base's; float32 where something changed."""
        merged = tensor
        if name in self.replaced:
            merged = self.replaced[name].to(tensor.device, torch.float32)
        if name in self.products:
            merged = merged.float() + self.products[name].product(tensor.device)
        if name in self.added:
            merged = merged.float() + self.added[name].to(tensor.device, torch.float32)
        return merged


def read_adapter(
    folder: Path, shapes: Mapping[str, tuple[int, ...]], prefix: str = '',
) -> Adapter:
    """
    Read an adapter and check it against the tensors that it is to change.

    :param folder: holds adapter_config.json and adapter_model.safetensors.
    :param shapes: of every tensor of the base, by name.
    :param prefix: what stands before these names in the model that was trained, as a rule (an
        adapter of the bare network, without it, is taken too).
    :raises CheckpointError: another kind of adapter, named; or keys that fit no tensor, halves
        that lack the other, wrong shapes and ranks, all of them named.
    """
    folder = Path(folder)
    config = _read_config(folder / CONFIG)
    path = folder / WEIGHTS
    if not path.is_file():
        raise CheckpointError(f'{path} does not exist')
    tensors = {name: tensor for name, tensor, _ in read_tensors([path], torch.device('cpu'))}
    faults: list[str] = []
    factors: dict[str, dict[str, Tensor]] = {}  # module: {'A.weight': …, 'B.weight': …}
    replaced: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name = key.removeprefix(PEFT_PREFIX)
        low_rank = _LOW_RANK.fullmatch(name)
        if low_rank:
            factors.setdefault(low_rank['module'], {})[
                f'{low_rank["part"]}.{low_rank["kind"]}'] = tensor
        elif 'lora_magnitude_vector' in name:
            raise CheckpointError(f'{path}: {key} belongs to a DoRA adapter; {_EXPECTED}')
        else:
            target = _WRAPPERS.sub('', name).removeprefix(prefix)
            if target not in shapes:
                faults.append(f'{key} {list(tensor.shape)} fits no tensor of the checkpoint')
            elif tuple(tensor.shape) != tuple(shapes[target]):
                faults.append(
                    f'{key} has the shape {list(tensor.shape)}, expected {list(shapes[target])}')
            else:
                replaced[target] = tensor
    products: dict[str, LowRank] = {}
    added: dict[str, Tensor] = {}
    for module, parts in factors.items():
        target = module.removeprefix(prefix)
        fault = _misfit(module, target, parts, shapes)
        if fault:
            faults.append(fault)
            continue
        rank = parts['A.weight'].shape[0]
        configured, alpha = _rank_and_alpha(module, config)
        if configured != rank:
            faults.append(
                f'{module} has factors of rank {rank}, {CONFIG} gives it rank {configured}')
            continue
        scale = alpha / (math.sqrt(rank) if config.get('use_rslora') else rank)
        products[f'{target}.weight'] = LowRank(parts['A.weight'], parts['B.weight'], scale)
        if 'B.bias' in parts:
            added[f'{target}.bias'] = scale * parts['B.bias'].float()
    if not tensors:
        faults.append('holds no tensor')
    if faults:
        raise CheckpointError(f'{path}: {"; ".join(faults)}')
    return Adapter(products, replaced, added)


_EXPECTED = 'expected a LoRA adapter, or the merged weights'


def _read_config(path: Path) -> dict[str, Any]:
    config = read_json_object(path)
    kind = config.get('peft_type')
    if kind != 'LORA':
        raise CheckpointError(f'{path}: an adapter of the type {kind} (peft_type); {_EXPECTED}')
    refused = [name for field, name in _REFUSED.items() if config.get(field)]
    beginning = config.get('init_lora_weights')
    if beginning not in _BEGINNINGS:
        refused.append(f'init_lora_weights {beginning!r}, which changes the base weights')
    if refused:
        raise CheckpointError(f'{path}: {", ".join(refused)}; {_EXPECTED}')
    faults = [
        f'{field} is {config.get(field)!r}, expected {expected}'
        for field, fits, expected in (
            ('r', _is_rank, 'a whole number above 0'),
            ('lora_alpha', _is_number, 'a number'),
            ('rank_pattern', _pattern_of(_is_rank), 'ranks by module'),
            ('alpha_pattern', _pattern_of(_is_number), 'numbers by module'))
        if not fits(config.get(field))]
    if faults:
        raise CheckpointError(f'{path}: {"; ".join(faults)}')
    return config


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and _is_number(value) and value > 0


def _pattern_of(fits):
    def check(value: Any) -> bool:
        return value is None or isinstance(value, dict) and all(
            _compiles(key) and fits(number) for key, number in value.items())
    return check


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def _rank_and_alpha(module: str, config: Mapping[str, Any]) -> tuple[int, float]:
    """Return what the config gives a module; a pattern is a regular expression of its end."""
    return tuple(
        next((value for pattern, value in (config.get(f'{kind}_pattern') or {}).items()
              if re.match(rf'(.*\.)?({pattern})$', module)), config[default])
        for kind, default in (('rank', 'r'), ('alpha', 'lora_alpha')))


def _misfit(
    module: str, target: str, parts: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
) -> str | None:
    """Return what is wrong with a module's factors."""
    shape = shapes.get(f'{target}.weight')
    if shape is None or len(shape) != 2:
        return f'{module}.lora_A and .lora_B fit no weight of the checkpoint'
    a, b = parts.get('A.weight'), parts.get('B.weight')
    if a is None or b is None:
        return f'{module} has no lora_{"A" if a is None else "B"}'
    if 'A.bias' in parts:
        return f'{module}.lora_A has a bias; expected none'
    if a.dim() != 2 or b.dim() != 2 or a.shape[0] != b.shape[1] or (
            b.shape[0], a.shape[1]) != tuple(shape):
        return (
            f'{module} has lora_A {list(a.shape)} and lora_B {list(b.shape)}, expected '
            f'[r, {shape[1]}] and [{shape[0]}, r] for a weight {list(shape)}')
    bias = parts.get('B.bias')
    if bias is not None and tuple(bias.shape) != tuple(shapes.get(f'{target}.bias', ())):
        return f'{module}.lora_B has a bias {list(bias.shape)}, expected [{shape[0]}]'
    return None
