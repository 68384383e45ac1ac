"""
Reads LoRA adapters in peft's format and merges them into the weights of their base checkpoint.

An adapter is a folder with `adapter_config.json` and `adapter_model.safetensors`; peft's
LoraConfig and save_and_load define both. A merged weight is W + scale * B A (LoRA, arXiv
2106.09685). The scale is alpha / r, or alpha / sqrt(r) where `use_rslora` is true
(rank-stabilized LoRA, arXiv 2312.03732).
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

# Fields of variants that W + scale * B A does not describe, with their names in messages.
_UNSUPPORTED = {
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
# Initializations (`init_lora_weights`) that leave the base weights unchanged. The others (pissa,
# olora, corda, loftq, …) subtract from them, so that the adapter does not fit the base on disk.
_INITIALIZATIONS = (None, True, False, 'gaussian', 'eva', 'orthogonal')
_LOW_RANK = re.compile(r'(?P<module>.+)\.lora_(?P<part>A|B)(\.default)?\.(?P<kind>weight|bias)')
_WRAPPERS = re.compile(r'\.(base_layer|modules_to_save(\.default)?)(?=\.)')


@dataclass(frozen=True)
class LowRank:
    """
    The low-rank update of one weight [out, in].

    :param a: factor A [r, in], any float dtype.
    :param b: factor B [out, r], any float dtype.
    :param scale: factor of the product B A.
    """

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
    The changes of an adapter to the base's tensors, by their names in public checkpoints.

    :param products: low-rank updates that are added to weights.
    :param replaced: tensors that replace those of the base (modules_to_save, trained biases).
    :param added: vectors that are added to biases (`lora_bias`).
    """

    products: Mapping[str, LowRank]
    replaced: Mapping[str, Tensor]
    added: Mapping[str, Tensor]

    def merge(self, name: str, tensor: Tensor) -> Tensor:
        """
        Return the merged tensor.

        :param name: the tensor's name in public checkpoints.
        :param tensor: the base's tensor.
        :returns: the base's shape, on its device; float32 where the adapter changes the tensor.
        """
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
    Read an adapter and check it against the tensors of its base.

    :param folder: holds adapter_config.json and adapter_model.safetensors.
    :param shapes: the shape of every tensor of the base, by name.
    :param prefix: prefix of these names in the adapter's keys; keys without it are accepted too.
    :raises CheckpointError: the adapter is of an unsupported kind, or keys fit no tensor, a factor
        A or B is missing, or shapes or ranks are wrong. The message lists every fault.
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
    refused = [name for field, name in _UNSUPPORTED.items() if config.get(field)]
    initialization = config.get('init_lora_weights')
    if initialization not in _INITIALIZATIONS:
        refused.append(f'init_lora_weights {initialization!r}, which changes the base weights')
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
    """Return rank and alpha of a module; patterns are regular expressions of its name's end."""
    return tuple(
        next((value for pattern, value in (config.get(f'{kind}_pattern') or {}).items()
              if re.match(rf'(.*\.)?({pattern})$', module)), config[default])
        for kind, default in (('rank', 'r'), ('alpha', 'lora_alpha')))


def _misfit(
    module: str, target: str, parts: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
) -> str | None:
    """Return the first fault of a module's factors, or None."""
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
