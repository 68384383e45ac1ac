"""Command-line options that say which checkpoint runs and where, and the engine they ask for."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lingbot_va_ros.cli.common.checkpoint import SHIPPED
from lingbot_va_ros.cli.common.sampling_options import add_sampling_arguments, number, sampling_of
from lingbot_va_ros.resources import share_folder
from lingbot_va_ros.specs.policy_file import find_policy_file, load_policy_file, PolicyFile

if TYPE_CHECKING:  # torch takes seconds to import, and mistakes are to be told before
    from lingbot_va_ros.policy.inference.engine import Engine

WEIGHTS = ('full', 'int8', 'int8_dynamic', 'float8')
_WITHOUT = (
    'no checkpoint: none comes with this installation, so give --checkpoint FOLDER; for an '
    'untrained one: python -m lingbot_va_ros.model.random_checkpoint FOLDER')


def add_engine_arguments(parser: argparse.ArgumentParser, checkpoint_required: bool) -> None:
    """Declare checkpoint, policy file, device, seed and sampling."""
    default = '' if checkpoint_required else ' (default: the shipped one)'
    parser.add_argument(
        '--checkpoint', type=Path, required=checkpoint_required, metavar='FOLDER',
        help="checkpoint folder, in the public layout or LeRobot's" + default)
    parser.add_argument(
        '--wan-pretrained-path', default='', metavar='FOLDER',
        help="folder with vae/, text_encoder/ and tokenizer/ (default: the checkpoint's own, or "
             "what LeRobot's config.json says)")
    parser.add_argument(
        '--adapter-base', default='', metavar='FOLDER',
        help='checkpoint that a LoRA adapter was trained on (default: what the adapter says)')
    parser.add_argument(
        '--policy', default='', metavar='NAME',
        help="policy file: a path or the name of a shipped file (default: the checkpoint's own)")
    parser.add_argument(
        '--device', choices=('auto', 'cuda', 'cpu'), default='auto',
        help='where the model runs (default: %(default)s)')
    parser.add_argument(
        '--dtype', choices=('auto', 'float32', 'bfloat16', 'float16'), default='auto',
        help='auto is bfloat16 on cuda and float32 on cpu (default: %(default)s)')
    add_weights_argument(parser)
    parser.add_argument(
        '--attention', choices=('auto', 'flash', 'sdpa'), default='auto',
        help='kernel; auto is flash-attn where it is installed and can run (default: %(default)s)')
    parser.add_argument(
        '--text-encoder', choices=('release', 'cpu', 'device'), default='release',
        help='where it stays after a new instruction; release frees it (default: %(default)s)')
    parser.add_argument(
        '--seed', type=number(int, 0, 2 ** 31 - 1), default=0, metavar='N',
        help='seed of the starting noise (default: %(default)s)')
    add_sampling_arguments(parser)


def add_weights_argument(parser: argparse.ArgumentParser) -> None:
    """Declare how the network's weights are stored."""
    parser.add_argument(
        '--weights', choices=WEIGHTS, default=WEIGHTS[0],
        help='of the network: full is those of --dtype, the others take 8 bits; see '
             'docs/reference/checkpoints.md (default: %(default)s)')


def chosen_checkpoint(arguments: argparse.Namespace) -> Path:
    """
    Return the checkpoint folder that was asked for, or the shipped one.

    :raises ValueError: there is no such folder.
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
    Return the policy file that was asked for, or the checkpoint's own.

    :param log: takes a line where the file was found by the folder's name.
    :param warn: takes a line for what a user should know of a derived one.
    :raises ValueError: no such folder or file, or mistakes in it, one a line.
    """
    path = find_policy_file(arguments.policy, chosen_checkpoint(arguments), log)
    return load_policy_file(path, warn)


def load_chosen_engine(
    arguments: argparse.Namespace, policy: PolicyFile, progress: Callable[[str], None],
    instructions: Sequence[str] = (), warm_up: bool = True,
) -> 'Engine':
    """
    Load the checkpoint as the options ask for.

    :param progress: called with a line before each part.
    :param instructions: see `load_engine`, as `warm_up`.
    :raises ValueError: what is wrong with checkpoint, policy file or options.
    """
    video, action, memory_chunks = sampling_of(arguments, policy)

    from lingbot_va_ros.policy.inference.device import choose_device, choose_dtype
    from lingbot_va_ros.policy.inference.engine import load_engine

    device = choose_device(arguments.device)
    return load_engine(
        chosen_checkpoint(arguments), policy, video, action, memory_chunks, arguments.seed,
        device, choose_dtype(arguments.dtype, device), progress, attention=arguments.attention,
        text_encoder=arguments.text_encoder, instructions=instructions,
        wan_pretrained_path=arguments.wan_pretrained_path, adapter_base=arguments.adapter_base,
        warm_up=warm_up, weights=arguments.weights)
