"""Reads the weights of checkpoint folders in the public layout, and writes a transformer's."""

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
import json
from pathlib import Path

from safetensors import safe_open, SafetensorError
from safetensors.torch import save_file
import torch
from torch import nn, Tensor

from lingbot_va_ros.model.attention import Attention, sdpa
from lingbot_va_ros.model.mixture_of_transformers import make_network
from lingbot_va_ros.model.transformer import Network
from lingbot_va_ros.specs.checkpoint_config import (
    config_json,
    read_json_object,
    read_transformer_config,
    TransformerConfig,
)
from lingbot_va_ros.specs.errors import CheckpointError

INDEX_ENDING = '.safetensors.index.json'
# The dtypes of weights, in safetensors' names; any other means a quantized checkpoint.
FLOATS = ('F16', 'BF16', 'F32', 'F64')
Change = Callable[[str, Tensor], Tensor]


@dataclass(frozen=True)
class Destination:
    """
    The rows of a parameter that a tensor of the file is copied to.

    :param parameter: name of the parameter in `Network`.
    :param shape: the tensor's shape in the file.
    """

    parameter: str
    rows: slice
    shape: tuple[int, ...]


def destinations(config: TransformerConfig) -> dict[str, Destination]:
    """
    Map every tensor name of a checkpoint to the parameters of `Network`.

    The query, key and value projections of the self-attention are one matrix in `Network`. In a
    mixture of transformers the video stream has the public names. The action stream's blocks are
    called `action_blocks`, with the same names inside; `attn1.to_joint` projects its queries,
    keys and values to the joint width.
    """
    dim, action_dim = config.dim, config.action_hidden_dim
    table = {
        **_ends('patch_embedding_mlp', 'proj_out', 'condition_embedder', 'video',
                config.patch_features, dim, config),
        **_ends('action_embedder', 'action_proj_out', 'condition_embedder_action', 'action',
                config.action_channels, action_dim or dim, config),
        **_text_embedder('condition_embedder', 'text', config),
        'scale_shift_table': Destination('final_modulation', slice(None), (1, 2, dim))}
    for layer in range(config.num_layers):
        table.update(_block(f'blocks.{layer}', dim, config.ffn_dim, config))
        table.update(_text_attention(f'blocks.{layer}', config))
    if action_dim is not None:
        table['action_scale_shift_table'] = Destination(
            'action_final_modulation', slice(None), (1, 2, action_dim))
        for layer in range(config.num_layers):
            block = f'action_blocks.{layer}'
            table.update(_block(block, action_dim, config.action_ffn_dim, config))
            table[f'{block}.attn1.to_joint.weight'] = Destination(
                f'{block}.to_joint_dim.weight', slice(None), (dim, action_dim))
    return table


def _linear(
    theirs: str, ours: str, out: int, into: int, first: int = 0,
) -> dict[str, Destination]:
    rows = slice(first, first + out)
    return {
        f'{theirs}.weight': Destination(f'{ours}.weight', rows, (out, into)),
        f'{theirs}.bias': Destination(f'{ours}.bias', rows, (out,))}


def _vector(theirs: str, ours: str, size: int) -> dict[str, Destination]:
    return {theirs: Destination(ours, slice(None), (size,))}


def _ends(
    embedder: str, output: str, conditions: str, ours: str, features: int, dim: int,
    config: TransformerConfig,
) -> dict[str, Destination]:
    """Map the layers of one modality outside the blocks: input, output and time embedder."""
    time = f'{conditions}.time_embedder'
    return {
        **_linear(embedder, f'{ours}.embed', dim, features),
        **_linear(output, f'{ours}.out', features, dim),
        **_linear(f'{time}.linear_1', f'{ours}.time.hidden', dim, config.time_frequencies),
        **_linear(f'{time}.linear_2', f'{ours}.time.out', dim, dim),
        **_linear(f'{conditions}.time_proj', f'{ours}.time.vectors', 6 * dim, dim)}


def _text_embedder(
    conditions: str, ours: str, config: TransformerConfig,
) -> dict[str, Destination]:
    theirs, dim = f'{conditions}.text_embedder', config.dim
    return {
        **_linear(f'{theirs}.linear_1', f'{ours}_hidden', dim, config.text_dim),
        **_linear(f'{theirs}.linear_2', f'{ours}_out', dim, dim)}


def _block(
    block: str, dim: int, ffn_dim: int, config: TransformerConfig,
) -> dict[str, Destination]:
    """Map the self-attention and feed-forward layers of a block of width `dim`."""
    attention, table = f'{block}.attn1', {}
    for place, name in enumerate('qkv'):
        table.update(_linear(f'{attention}.to_{name}', f'{block}.qkv', dim, dim, place * dim))
    return {
        f'{block}.scale_shift_table': Destination(
            f'{block}.modulation', slice(None), (1, 6, dim)),
        **table,
        **_vector(f'{attention}.norm_q.weight', f'{block}.query_norm', config.dim),
        **_vector(f'{attention}.norm_k.weight', f'{block}.key_norm', config.dim),
        **_linear(f'{attention}.to_out.0', f'{block}.out', dim, config.dim),
        **_linear(f'{block}.ffn.net.0.proj', f'{block}.ffn_in', ffn_dim, dim),
        **_linear(f'{block}.ffn.net.2', f'{block}.ffn_out', dim, ffn_dim)}


def _text_attention(block: str, config: TransformerConfig) -> dict[str, Destination]:
    """Map a block's cross-attention."""
    attention, dim, table = f'{block}.attn2', config.dim, {}
    if config.text_norm:
        table.update(_vector(f'{block}.norm2.weight', f'{block}.text_norm.weight', dim))
        table.update(_vector(f'{block}.norm2.bias', f'{block}.text_norm.bias', dim))
    for theirs, ours in (('q', 'query'), ('k', 'key'), ('v', 'value')):
        table.update(_linear(f'{attention}.to_{theirs}', f'{block}.text_{ours}', dim, dim))
    return {
        **table,
        **_vector(f'{attention}.norm_q.weight', f'{block}.text_query_norm', dim),
        **_vector(f'{attention}.norm_k.weight', f'{block}.text_key_norm', dim),
        **_linear(f'{attention}.to_out.0', f'{block}.text_out', dim, dim)}


def unread_shapes(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors that public files hold and no forward pass reads."""
    if config.action_hidden_dim is not None:
        return {}
    return {
        name: place.shape for name, place in _text_embedder(
            'condition_embedder_action', 'unread', config).items()}


def weight_files(folder: Path) -> list[Path]:
    """
    Return the safetensors files of a folder: those in its index, else the only one.

    :raises CheckpointError: there is no such file, there are several without an index, or a shard
        is missing.
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
                f'{indices[0]} is not a safetensors index: expected file names under weight_map')
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


def read_tensors(
    files: list[Path], device: torch.device, wanted: Container[str] | None = None,
) -> Iterator[tuple[str, Tensor, Path]]:
    """
    Yield name, tensor and file, one tensor at a time, read directly to the device.

    Files are memory-mapped one at a time: at most the size of one file is resident on the host,
    in pages that the system can reclaim. On the CPU a tensor is a view of the mapping and changes
    with the file; copy it.

    :param wanted: names to read; None reads all.
    :raises CheckpointError: a file is truncated or not a safetensors file; the message names it.
    """
    for path in files:
        try:
            mapped = safe_open(str(path), framework='pt', device=str(device))
        except (SafetensorError, OSError, RuntimeError) as error:  # RuntimeError: mmap failed
            raise CheckpointError(f'{path} cannot be read: {error}') from None
        with mapped as file:
            for name in file.keys():
                if wanted is None or name in wanted:
                    yield name, file.get_tensor(name), path


@dataclass(frozen=True)
class Header:
    """Shape and dtype of a tensor in a safetensors file; the dtype in its names (F32, BF16, …)."""

    shape: tuple[int, ...]
    dtype: str


def read_headers(path: Path) -> dict[str, Header]:
    """
    Return the header of every tensor of a file; the weights are not read.

    :raises CheckpointError: the file is truncated or not a safetensors file.
    """
    headers = {}
    try:
        # With framework='pt', safetensors maps the whole file writable, which fails on a machine
        # with less memory than the file's size.
        with safe_open(str(path), framework='np') as file:
            for name in file.keys():
                tensor = file.get_slice(name)
                headers[name] = Header(tuple(tensor.get_shape()), tensor.get_dtype())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f'{path} cannot be read: {error}') from None
    return headers


def tensor_shapes(files: list[Path]) -> dict[str, tuple[int, ...]]:
    """
    Return the shape of every tensor, read from the headers alone.

    :raises CheckpointError: a file cannot be read, or a dtype is not in `FLOATS`.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in files:
        headers = read_headers(path)
        faults = dtype_faults(headers)
        if faults:
            raise CheckpointError(f'{path}: {"; ".join(faults)}')
        shapes.update((name, header.shape) for name, header in headers.items())
    return shapes


def dtype_faults(headers: Mapping[str, Header]) -> list[str]:
    """Return a line for each unsupported dtype (quantized weights)."""
    found: dict[str, list[str]] = {}
    for name, header in headers.items():
        if header.dtype not in FLOATS:
            found.setdefault(header.dtype, []).append(name)
    return [
        f'{len(names)} tensors of {dtype} ({names[0]} …); expected {", ".join(FLOATS)}'
        for dtype, names in sorted(found.items())]


def fill_module(
    module: nn.Module, targets: Mapping[str, Tensor], files: list[Path], device: torch.device,
    change: Change | None = None,
) -> None:
    """
    Copy tensors from files into a module, one at a time, and freeze it for inference.

    :param targets: the tensor to fill for each name in the files, on the device; other names are
        not read.
    :param change: called with a name and the file's tensor; returns the tensor to copy.
    :raises CheckpointError: see `read_tensors`.
    """
    with torch.no_grad():
        for name, tensor, _path in read_tensors(files, device, targets):
            targets[name].copy_(tensor if change is None else change(name, tensor))
    module.requires_grad_(False).eval()


def shape_faults(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]],
    optional: Mapping[str, tuple[int, ...]],
) -> list[str]:
    """Return a line for every missing, extra and misshapen tensor."""
    faults = [f'missing {name} {list(shape)}' for name, shape in expected.items()
              if name not in found]
    known = {**expected, **optional}
    for name, shape in found.items():
        if name not in known:
            faults.append(f'extra {name} {list(shape)}')
        elif shape != known[name]:
            faults.append(
                f'{name} has the shape {list(shape)}, expected {list(known[name])}')
    return faults


def compare_shapes(
    found: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]],
    optional: dict[str, tuple[int, ...]], where: Path,
) -> None:
    """
    Check names and shapes before weights are allocated.

    :param where: the file or folder that the error names.
    :raises CheckpointError: lists every missing, extra and misshapen tensor.
    """
    faults = shape_faults(found, expected, optional)
    if faults:
        raise CheckpointError(f'{where}: {"; ".join(faults)}')


def load_transformer(
    folder: Path, device: torch.device, dtype: torch.dtype, attention: Attention = sdpa,
) -> Network:
    """
    Load the network from a checkpoint's transformer/ folder.

    :param folder: holds config.json and the weights.
    :param attention: see `choose_attention`.
    :raises CheckpointError: a tensor is missing, extra, misshapen or unreadable.
    """
    folder = Path(folder)
    config = read_transformer_config(folder / 'config.json')
    return build_transformer(config, weight_files(folder), folder, device, dtype, attention)


def build_transformer(
    config: TransformerConfig, files: list[Path], where: Path, device: torch.device,
    dtype: torch.dtype, attention: Attention = sdpa, prefix: str = '',
    change: Change | None = None,
) -> Network:
    """
    Build the network and fill it from files with the public names.

    :param where: the file or folder that errors name.
    :param prefix: precedes every public name in the files.
    :param change: called with each public name and the file's tensor, on the device; returns the
        tensor to load, of the same shape.
    :raises CheckpointError: a tensor is missing, extra, misshapen or unreadable.
    """
    table = destinations(config)
    compare_shapes(
        tensor_shapes(files),
        {f'{prefix}{name}': place.shape for name, place in table.items()},
        {f'{prefix}{name}': shape for name, shape in unread_shapes(config).items()}, where)
    with torch.device('meta'):
        network = make_network(config, attention)
    network = network.to(dtype).to_empty(device=device)
    targets = {
        f'{prefix}{name}': weight for name, weight in transformer_tensors(network).items()}
    fill_module(
        network, targets, files, device,
        change and (lambda name, tensor: change(name.removeprefix(prefix), tensor)))
    return network


def transformer_tensors(network: Network) -> dict[str, Tensor]:
    """Return the network's weights by their names in a checkpoint, as views."""
    parameters = dict(network.named_parameters())
    return {
        name: parameters[place.parameter].detach()[place.rows].view(place.shape)
        for name, place in destinations(network.config).items()}


def save_transformer(
    folder: Path, config: TransformerConfig, weights: Mapping[str, Tensor],
) -> None:
    """
    Write a checkpoint's transformer/ folder, in one file.

    :param folder: created if missing; files in it are overwritten.
    :param weights: by their names in a checkpoint (`transformer_tensors`).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'config.json').write_text(json.dumps(config_json(config), indent=2))
    save_file(
        {name: weight.contiguous() for name, weight in weights.items()},
        str(folder / 'diffusion_pytorch_model.safetensors'))
