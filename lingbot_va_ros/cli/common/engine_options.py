"""Options for the checkpoint, the device and the engine, shared by the commands."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lingbot_va_ros.cli.common.checkpoint import SHIPPED
from lingbot_va_ros.cli.common.sampling_options import add_sampling_arguments, number, sampling_of
from lingbot_va_ros.resources import share_folder
from lingbot_va_ros.specs.engine_choices import (
    ATTENTIONS,
    DEVICES,
    DTYPES,
    ENCODER_PLACES,
    WEIGHTS,
)
from lingbot_va_ros.specs.policy_file import find_policy_file, load_policy_file, PolicyFile

if TYPE_CHECKING:  # torch takes seconds to import; mistakes in the options come first
    from lingbot_va_ros.policy.inference.engine import Engine

_WITHOUT = (
    'no checkpoint is installed: give --checkpoint FOLDER; to create an untrained one: '
    'python -m lingbot_va_ros.model.random_checkpoint FOLDER')


def add_engine_arguments(parser: argparse.ArgumentParser, checkpoint_required: bool) -> None:
    """Add the options for checkpoint, policy file, device, seed and sampling."""
    default = '' if checkpoint_required else ' (default: the shipped one)'
    add_checkpoint_argument(
        parser, "checkpoint folder, in the public layout or LeRobot's" + default,
        checkpoint_required)
    parser.add_argument(
        '--wan-pretrained-path', default='', metavar='FOLDER',
        help="folder with vae/, text_encoder/ and tokenizer/ (default: the checkpoint's own, or "
             "the one named in LeRobot's config.json)")
    parser.add_argument(
        '--adapter-base', default='', metavar='FOLDER',
        help='base checkpoint of a LoRA adapter (default: the one named in the adapter)')
    parser.add_argument(
        '--policy', default='', metavar='NAME',
        help="policy file: a path or the name of a shipped file (default: the checkpoint's own)")
    add_device_arguments(parser)
    parser.add_argument(
        '--attention', choices=ATTENTIONS, default=ATTENTIONS[0],
        help='attention kernel; auto uses flash-attn if it is installed and supported '
             '(default: %(default)s)')
    parser.add_argument(
        '--text-encoder', choices=ENCODER_PLACES, default=ENCODER_PLACES[0],
        help='where the text encoder stays after an instruction was encoded; release frees its '
             'memory (default: %(default)s)')
    parser.add_argument(
        '--seed', type=number(int, 0, 2 ** 31 - 1), default=0, metavar='N',
        help='random seed of the initial noise (default: %(default)s)')
    add_sampling_arguments(parser)


def add_checkpoint_argument(
    parser: argparse.ArgumentParser, text: str, required: bool = False,
) -> None:
    """Add --checkpoint with this help text."""
    parser.add_argument(
        '--checkpoint', type=Path, required=required, metavar='FOLDER', help=text)


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for the device, the data type and the quantization of the network."""
    parser.add_argument(
        '--device', choices=DEVICES, default=DEVICES[0],
        help='device that runs the model (default: %(default)s)')
    parser.add_argument(
        '--dtype', choices=DTYPES, default=DTYPES[0],
        help='data type of the model; auto: bfloat16 on cuda, float32 on cpu '
             '(default: %(default)s)')
    parser.add_argument(
        '--weights', choices=WEIGHTS, default=WEIGHTS[0],
        help='storage of the weights; full: in --dtype, the others: quantized to 8 bits '
             '(default: %(default)s)')


def chosen_checkpoint(arguments: argparse.Namespace) -> Path:
    """
    Return the checkpoint folder of the options, or the shipped one.

    :raises ValueError: the folder does not exist.
    """
    if arguments.checkpoint is None:
        shipped = share_folder().joinpath(*SHIPPED)
        if not shipped.is_dir():
            raise ValueError(_WITHOUT)
        return shipped
    checkpoint = arguments.checkpoint.expanduser()
    if not checkpoint.is_dir():
        raise ValueError(f'checkpoint {checkpoint} is not a folder')
    return checkpoint


def chosen_policy(
    arguments: argparse.Namespace, log: Callable[[str], None], warn: Callable[[str], None],
) -> PolicyFile:
    """
    Return the policy file of the options, or the checkpoint's own.

    :param log: called with one line if the file was found by the folder's name.
    :param warn: called with one line for each warning about a derived policy file.
    :raises ValueError: folder or file does not exist, or the file has mistakes, one per line.
    """
    path = find_policy_file(arguments.policy, chosen_checkpoint(arguments), log)
    return load_policy_file(path, warn)


def load_chosen_engine(
    arguments: argparse.Namespace, policy: PolicyFile, progress: Callable[[str], None],
    instructions: Sequence[str] = (), warm_up: bool = True,
) -> 'Engine':
    """
    Load the checkpoint with the options' device, data type and sampling.

    :param progress: called with one line before each step.
    :param instructions: encoded while loading, see `EngineConfig`.
    :param warm_up: whether one chunk is predicted while loading.
    :raises ValueError: checkpoint, policy file or options are invalid.
    """
    video, action, memory_chunks = sampling_of(arguments, policy)

    from lingbot_va_ros.policy.inference.device import choose_device, choose_dtype
    from lingbot_va_ros.policy.inference.load import EngineConfig, load_engine

    device = choose_device(arguments.device)
    return load_engine(EngineConfig(
        chosen_checkpoint(arguments), policy, video, action, memory_chunks, arguments.seed,
        device, choose_dtype(arguments.dtype, device), attention=arguments.attention,
        text_encoder=arguments.text_encoder, instructions=tuple(instructions),
        wan_pretrained_path=arguments.wan_pretrained_path, adapter_base=arguments.adapter_base,
        weights=arguments.weights, warm_up=warm_up), progress)
