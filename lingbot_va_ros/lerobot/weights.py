"""Finds weights, adapter and frozen parts of a checkpoint in LeRobot's layout."""

from pathlib import Path

from huggingface_hub import snapshot_download

from lingbot_va_ros.lerobot.lora import Adapter, read_adapter
from lingbot_va_ros.model.checkpoint import weight_files
from lingbot_va_ros.model.network_weights import NetworkWeights, public_weights
from lingbot_va_ros.specs import lerobot_folder
from lingbot_va_ros.specs.checkpoint_config import read_json_object, read_transformer_config
from lingbot_va_ros.specs.errors import CheckpointError

FROZEN = ('vae', 'text_encoder', 'tokenizer')


def lerobot_weights(folder: Path, adapter_base: str = '') -> tuple[NetworkWeights, Adapter | None]:
    """
    Return the weights of a LeRobot folder and the adapter to merge into them.

    :param adapter_base: checkpoint that the adapter was trained on; empty takes the one that
        adapter_config.json names.
    :raises CheckpointError: weights or adapter are missing, contradict each other, or do not fit.
    """
    folder = Path(folder)
    config = read_json_object(folder / lerobot_folder.CONFIG)
    path = folder / lerobot_folder.ADAPTER_CONFIG
    wanted, own = bool(config.get('use_peft')), (folder / lerobot_folder.WEIGHTS).is_file()
    if wanted and not path.is_file():
        raise CheckpointError(f'{folder}: config.json says use_peft, but {path.name} is missing')
    if own and path.is_file() and not wanted:
        raise CheckpointError(
            f'{folder} holds {lerobot_folder.WEIGHTS} and {path.name}, and config.json does not '
            'say use_peft: expected one of them, or use_peft')
    if not path.is_file():
        return _own_weights(folder), None
    adapter = read_json_object(path)
    name: object = adapter_base
    where = 'adapter_base'
    if not name:
        name, where = adapter.get('base_model_name_or_path'), f'{path}: base_model_name_or_path'
    if not isinstance(name, str) or not name:
        raise CheckpointError(
            f'{where} is {name!r}; set the parameter adapter_base to the checkpoint folder that '
            'the adapter was trained on')
    base = local_folder(
        name, folder, where, '' if adapter_base else 'adapter_base', adapter.get('revision'))
    inside = lerobot_folder.find_lerobot_folder(base)
    if inside is None:
        weights = public_weights(base)
    elif (inside / lerobot_folder.ADAPTER_CONFIG).is_file():
        raise CheckpointError(
            f'{where}: {inside} is itself an adapter; expected a checkpoint with all weights')
    else:
        weights = _own_weights(inside)
    return weights, read_adapter(folder, weights.shapes(), lerobot_folder.PREFIX)


def frozen_folder(folder: Path, wan_pretrained_path: str = '') -> Path:
    """
    Return the folder with the VAE, text encoder and tokenizer of a LeRobot folder.

    :param wan_pretrained_path: overrides the value in config.json; empty takes that.
    :raises CheckpointError: the folder is not on this machine, or config.json names none.
    """
    if wan_pretrained_path:
        return local_folder(wan_pretrained_path, folder, 'wan_pretrained_path')
    # Parts beside config.json belong to it: its path is that of the machine that saved them.
    if all((folder / part).is_dir() for part in FROZEN):
        return folder
    path = folder / lerobot_folder.CONFIG
    name = read_json_object(path).get('wan_pretrained_path')
    if not isinstance(name, str) or not name:
        raise CheckpointError(
            f'{path}: wan_pretrained_path is {name!r}; set the parameter wan_pretrained_path to '
            f'a folder with {", ".join(f"{part}/" for part in FROZEN)}')
    return local_folder(name, folder, f'{path}: wan_pretrained_path', 'wan_pretrained_path')


def local_folder(
    name: str, beside: Path, where: str, parameter: str = '', revision: str | None = None,
) -> Path:
    """
    Resolve a path, or the name of a repository on the Hugging Face hub, to a local folder.

    A relative path is resolved from the working directory, then from `beside`. A repository is
    looked up in the hub's local cache only; nothing is downloaded.

    :param where: the file and key, or the parameter, that holds the name, for the error.
    :param parameter: the parameter that overrides it; empty where `where` is that parameter.
    :param revision: commit, branch or tag of a repository on the hub.
    :raises CheckpointError: no such folder is on this machine.
    """
    path = Path(name).expanduser()
    for folder in (path, beside / path):
        if folder.is_dir():
            return folder
    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (ValueError, OSError):  # not a repository's name, or not in the cache
        hint = f'set the parameter {parameter} to a local copy' if parameter else (
            'give a local folder')
        raise CheckpointError(
            f"{where} is {name!r}, which is neither a folder on this machine nor in the hub's "
            f'cache; nothing is downloaded: {hint}') from None


def _own_weights(folder: Path) -> NetworkWeights:
    config = read_transformer_config(folder / lerobot_folder.CONFIG)
    files = [folder / lerobot_folder.WEIGHTS]
    where = files[0]
    if (folder / lerobot_folder.WEIGHTS_INDEX).is_file():
        where, files = folder, weight_files(folder)
    elif not where.is_file():
        raise CheckpointError(f'{where} does not exist')
    return NetworkWeights(config, files, lerobot_folder.PREFIX, where)
