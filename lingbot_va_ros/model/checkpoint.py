"""Read checkpoint folders in the public layout: transformer/, vae/, text_encoder/, tokenizer/."""

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lingbot_va_ros.model.config import (
    TransformerConfig, read_json_object, read_transformer_config)
from lingbot_va_ros.model.errors import CheckpointError
from lingbot_va_ros.model.transformer import Transformer

INDEX_ENDING = '.safetensors.index.json'


@dataclass(frozen=True)
class Destination:
    """Where a tensor of the file goes: a parameter of ours, and which rows of it."""

    parameter: str
    rows: slice
    shape: Tuple[int, ...]  # as the file has it


def destinations(config: TransformerConfig) -> Dict[str, Destination]:
    """
    Map every tensor name of a public checkpoint to our parameters.

    Queries, keys and values of the self-attention are one matrix here.
    """
    dim, table = config.dim, {}

    def linear(theirs: str, ours: str, out: int, into: int, first: int = 0) -> None:
        rows = slice(first, first + out)
        table[f'{theirs}.weight'] = Destination(f'{ours}.weight', rows, (out, into))
        table[f'{theirs}.bias'] = Destination(f'{ours}.bias', rows, (out,))

    def vector(theirs: str, ours: str) -> None:
        table[theirs] = Destination(ours, slice(None), (dim,))

    linear('patch_embedding_mlp', 'video.embed', dim, config.patch_features)
    linear('proj_out', 'video.out', config.patch_features, dim)
    linear('action_embedder', 'action.embed', dim, config.action_channels)
    linear('action_proj_out', 'action.out', config.action_channels, dim)
    table['scale_shift_table'] = Destination('final_modulation', slice(None), (1, 2, dim))
    for theirs, ours in (
            ('condition_embedder', 'video'), ('condition_embedder_action', 'action')):
        linear(f'{theirs}.time_embedder.linear_1', f'{ours}.time.hidden', dim,
               config.time_frequencies)
        linear(f'{theirs}.time_embedder.linear_2', f'{ours}.time.out', dim, dim)
        linear(f'{theirs}.time_proj', f'{ours}.time.vectors', 6 * dim, dim)
    text = 'condition_embedder.text_embedder'
    linear(f'{text}.linear_1', 'text_hidden', dim, config.text_dim)
    linear(f'{text}.linear_2', 'text_out', dim, dim)
    for layer in range(config.num_layers):
        theirs, ours = f'blocks.{layer}', f'blocks.{layer}'
        table[f'{theirs}.scale_shift_table'] = Destination(
            f'{ours}.modulation', slice(None), (1, 6, dim))
        for place, name in enumerate('qkv'):
            linear(f'{theirs}.attn1.to_{name}', f'{ours}.qkv', dim, dim, place * dim)
        vector(f'{theirs}.attn1.norm_q.weight', f'{ours}.query_norm')
        vector(f'{theirs}.attn1.norm_k.weight', f'{ours}.key_norm')
        linear(f'{theirs}.attn1.to_out.0', f'{ours}.out', dim, dim)
        if config.text_norm:
            vector(f'{theirs}.norm2.weight', f'{ours}.text_norm.weight')
            vector(f'{theirs}.norm2.bias', f'{ours}.text_norm.bias')
        for theirs_part, ours_part in (('q', 'query'), ('k', 'key'), ('v', 'value')):
            linear(f'{theirs}.attn2.to_{theirs_part}', f'{ours}.text_{ours_part}', dim, dim)
        vector(f'{theirs}.attn2.norm_q.weight', f'{ours}.text_query_norm')
        vector(f'{theirs}.attn2.norm_k.weight', f'{ours}.text_key_norm')
        linear(f'{theirs}.attn2.to_out.0', f'{ours}.text_out', dim, dim)
        linear(f'{theirs}.ffn.net.0.proj', f'{ours}.ffn_in', config.ffn_dim, dim)
        linear(f'{theirs}.ffn.net.2', f'{ours}.ffn_out', dim, config.ffn_dim)
    return table


def unread_shapes(config: TransformerConfig) -> Dict[str, Tuple[int, ...]]:
    """Return the tensors that public files carry and no forward reads, with their shapes."""
    prefix, dim = 'condition_embedder_action.text_embedder', config.dim
    return {
        f'{prefix}.linear_1.weight': (dim, config.text_dim), f'{prefix}.linear_1.bias': (dim,),
        f'{prefix}.linear_2.weight': (dim, dim), f'{prefix}.linear_2.bias': (dim,)}


def weight_files(folder: Path) -> List[Path]:
    """
    Return the safetensors files of a folder: those of its index, else the only one.

    :raises CheckpointError: there is none, several without an index, or a shard is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f'{folder} is not a folder')
    indices = sorted(folder.glob(f'*{INDEX_ENDING}'))
    if indices:
        places = read_json_object(indices[0]).get('weight_map')
        if not isinstance(places, dict) or not places or not all(
                isinstance(name, str) for name in places.values()):
            raise CheckpointError(
                f'{indices[0]} is no safetensors index: expected file names under weight_map')
        files = [folder / name for name in sorted(set(places.values()))]
        missing = [str(path) for path in files if not path.is_file()]
        if missing:
            raise CheckpointError(f'{indices[0]} names files that are missing: {missing}')
        return files
    files = sorted(folder.glob('*.safetensors'))
    if len(files) != 1:
        raise CheckpointError(
            f'{folder} holds {len(files)} .safetensors files and no index; expected one file, or '
            f'shards with an index *{INDEX_ENDING}')
    return files


def read_tensors(files: List[Path], device: torch.device) -> Iterator[Tuple[str, Tensor, Path]]:
    """
    Yield name, tensor and file, one tensor at a time, straight on the device.

    :raises CheckpointError: a file is truncated or no safetensors file; it is named.
    """
    for path in files:
        try:
            with safe_open(str(path), framework='pt', device=str(device)) as file:
                for name in file.keys():
                    yield name, file.get_tensor(name), path
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f'{path} cannot be read: {error}') from None


def tensor_shapes(files: List[Path]) -> Dict[str, Tuple[int, ...]]:
    """Return the shape of every tensor, read from the headers alone."""
    shapes = {}
    for path in files:
        try:
            with safe_open(str(path), framework='pt') as file:
                for name in file.keys():
                    shapes[name] = tuple(file.get_slice(name).get_shape())
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f'{path} cannot be read: {error}') from None
    return shapes


def compare_shapes(
    found: Dict[str, Tuple[int, ...]], expected: Dict[str, Tuple[int, ...]],
    optional: Dict[str, Tuple[int, ...]], where: Path,
) -> None:
    """
    Check names and shapes before anything is allocated.

    :raises CheckpointError: lists every missing, extra and misshapen tensor.
    """
    faults = [f'missing {name} {list(shape)}' for name, shape in expected.items()
              if name not in found]
    known = {**expected, **optional}
    for name, shape in found.items():
        if name not in known:
            faults.append(f'extra {name} {list(shape)}')
        elif shape != known[name]:
            faults.append(
                f'{name} has the shape {list(shape)}, expected {list(known[name])}')
    if faults:
        raise CheckpointError(f'{where}: {"; ".join(faults)}')


def load_transformer(folder: Path, device: torch.device, dtype: torch.dtype) -> Transformer:
    """
    Load `<folder>/config.json` and the weights beside it.

    :param folder: the checkpoint's transformer/ folder.
    :raises CheckpointError: anything is missing, extra, misshapen or unreadable.
    """
    folder = Path(folder)
    config = read_transformer_config(folder / 'config.json')
    table = destinations(config)
    files = weight_files(folder)
    compare_shapes(
        tensor_shapes(files), {name: place.shape for name, place in table.items()},
        unread_shapes(config), folder)
    with torch.device('meta'):
        network = Transformer(config)
    network = network.to(dtype).to_empty(device=device)
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        for name, tensor, _path in read_tensors(files, device):
            if name in table:
                place = table[name]
                target = parameters[place.parameter]
                target[place.rows].copy_(tensor.reshape(target[place.rows].shape))
    return network.requires_grad_(False).eval()
