"""Finds every fault of a checkpoint folder from its headers, without loading weights."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
import math
from pathlib import Path

from lingbot_va_ros.lerobot.weights import frozen_folder, lerobot_weights, local_folder
from lingbot_va_ros.model.checkpoint import (
    destinations,
    dtype_faults,
    Header,
    INDEX_ENDING,
    read_headers,
    shape_faults,
    unread_shapes,
    weight_files,
)
from lingbot_va_ros.model.compatibility import part_mismatches
from lingbot_va_ros.model.text_encoder import empty_text_encoder, encoder_shapes, load_tokenizer
from lingbot_va_ros.model.video_vae import DECODER, empty_vae, ENCODER
from lingbot_va_ros.specs.checkpoint_config import (
    read_json_object,
    read_transformer_config,
    TransformerConfig,
)
from lingbot_va_ros.specs.errors import CheckpointError
from lingbot_va_ros.specs.lerobot_folder import find_lerobot_folder

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Fault:
    """A fault of a file or folder, in one line."""

    where: str
    message: str


@dataclass
class Inspection:
    """
    The result of an inspection.

    :param config: the transformer's; None where it cannot be read.
    :param numbers: number of weights of each part (transformer, vae_encoder, vae_decoder,
        text_encoder); parts that cannot be read are absent.
    """

    faults: list[Fault] = field(default_factory=list)
    config: TransformerConfig | None = None
    numbers: dict[str, int] = field(default_factory=dict)

    def add(self, where: Path, *messages: object) -> None:
        """Add a fault for each message or error, without the path at its start."""
        for message in messages:
            text = str(message).removeprefix(str(where)).removeprefix(':').strip()
            self.faults.append(Fault(str(where), text))

    def count(self, part: str, names: Iterable[str], headers: Mapping[str, Header]) -> None:
        """Count the weights of a part, if all of its tensors are present."""
        names = list(names)
        if all(name in headers for name in names):
            self.numbers[part] = sum(math.prod(headers[name].shape) for name in names)


def inspect_checkpoint(
    checkpoint: Path, wan_pretrained_path: str = '', adapter_base: str = '',
) -> Inspection:
    """
    Inspect a checkpoint folder in the public layout, or in LeRobot's.

    :param wan_pretrained_path: see `find_parts`.
    :param adapter_base: see `find_parts`.
    """
    found, checkpoint = Inspection(), Path(checkpoint)

    if not checkpoint.is_dir():
        found.add(checkpoint, 'is not a folder')
        return found
    try:
        lerobot = find_lerobot_folder(checkpoint)
    except CheckpointError as error:
        found.add(checkpoint, error)
        return found
    if lerobot is None:
        _inspect_transformer(checkpoint / 'transformer', found)
    else:
        _inspect_lerobot(lerobot, adapter_base, found)
    frozen = checkpoint
    try:
        if lerobot is not None:
            frozen = frozen_folder(lerobot, wan_pretrained_path)
        elif wan_pretrained_path:
            frozen = local_folder(wan_pretrained_path, checkpoint, 'wan_pretrained_path')
    except CheckpointError as error:
        found.add(checkpoint, error)
        return found
    vae = _inspect_vae(frozen / 'vae', found)
    text_dim = _inspect_text_encoder(frozen / 'text_encoder', found)
    try:
        load_tokenizer(frozen / 'tokenizer')
    except CheckpointError as error:
        found.add(frozen / 'tokenizer', error)
    if found.config is not None and vae is not None and text_dim is not None:
        found.add(checkpoint, *part_mismatches(found.config, vae, text_dim))
    return found


def _inspect_transformer(folder: Path, found: Inspection) -> None:
    expected: Shapes | None = None
    optional: Shapes = {}
    try:
        found.config = read_transformer_config(folder / 'config.json')
        expected = {name: place.shape for name, place in destinations(found.config).items()}
        optional = unread_shapes(found.config)
    except CheckpointError as error:
        found.add(folder / 'config.json', error)
    headers = _inspect_weights(folder, expected, optional, found)
    if expected is not None:
        found.count('transformer', expected, headers)


def _inspect_lerobot(folder: Path, adapter_base: str, found: Inspection) -> None:
    try:
        weights, _adapter = lerobot_weights(folder, adapter_base)
        headers = {
            name: header for path in weights.files for name, header in read_headers(path).items()}
    except CheckpointError as error:
        found.add(folder, error)
        return
    found.config = weights.config
    expected = {f'{weights.prefix}{name}': place.shape
                for name, place in destinations(weights.config).items()}
    optional = {f'{weights.prefix}{name}': shape
                for name, shape in unread_shapes(weights.config).items()}
    found.add(weights.where, *dtype_faults(headers),
              *shape_faults(_shapes(headers), expected, optional))
    found.count('transformer', expected, headers)


def _inspect_vae(folder: Path, found: Inspection) -> Mapping | None:
    try:
        vae = empty_vae(folder)
    except CheckpointError as error:
        found.add(folder / 'config.json', error)
        _inspect_weights(folder, None, {}, found)
        return None
    expected = {name: tuple(tensor.shape) for name, tensor in vae.state_dict().items()}
    headers = _inspect_weights(folder, expected, {}, found)
    for part, prefixes in (('vae_encoder', ENCODER), ('vae_decoder', DECODER)):
        found.count(part, (
            name for name in expected if name.partition('.')[0] in prefixes), headers)
    return vae.config


def _inspect_text_encoder(folder: Path, found: Inspection) -> int | None:
    try:
        model = empty_text_encoder(folder)
    except CheckpointError as error:
        found.add(folder / 'config.json', error)
        _inspect_weights(folder, None, {}, found)
        return None
    expected, optional = encoder_shapes(model)
    headers = _inspect_weights(folder, expected, optional, found)
    found.count('text_encoder', expected, headers)
    return model.config.d_model


def _inspect_weights(
    folder: Path, expected: Shapes | None, optional: Shapes, found: Inspection,
) -> dict[str, Header]:
    """
    Compare a folder's weights with its config.

    :param expected: shapes by name; None where the config cannot be read, and only the files are
        inspected.
    :returns: the headers that can be read, by name.
    """
    places = _index(folder)
    missing = sorted(
        {name for name in places.values() if not (folder / name).is_file()})
    for name in missing:
        found.add(folder / name, 'does not exist, but the index names it')
    files = sorted({folder / name for name in places.values() if name not in missing})
    if not places:
        try:
            files = weight_files(folder)
        except CheckpointError as error:
            found.add(folder, error)
    headers: dict[str, Header] = {}
    # Tensors of a file that has a fault already are not reported as missing too.
    reported = {name for name, file in places.items() if file in missing}
    for path in files:
        indexed = {name for name, file in places.items() if file == path.name}
        try:
            inside = read_headers(path)
        except CheckpointError as error:
            found.add(path, error)
            reported |= indexed
            continue
        absent = sorted(indexed - set(inside))
        found.add(path, *dtype_faults(inside), *(
            f'lacks {name}, which the index lists in it' for name in absent))
        reported.update(absent)
        headers.update(inside)
    if expected is not None and headers:
        wanted = {name: shape for name, shape in expected.items() if name not in reported}
        found.add(folder, *shape_faults(_shapes(headers), wanted, {**expected, **optional}))
    return headers


def _index(folder: Path) -> dict[str, str]:
    """Return the file of every tensor, by name, from a readable index; else an empty mapping."""
    try:
        index = sorted(folder.glob(f'*{INDEX_ENDING}'))[0]
        places = read_json_object(index).get('weight_map')
    except (IndexError, CheckpointError):
        return {}
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        return {}
    return places


def _shapes(headers: Mapping[str, Header]) -> Shapes:
    return {name: header.shape for name, header in headers.items()}
