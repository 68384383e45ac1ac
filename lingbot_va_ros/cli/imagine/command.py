"""
Predict a video and actions from one image of each camera, chunk after chunk.

The prediction is open loop: nothing is executed or observed between chunks, and no robot or ROS is
needed. Writes video.mp4, actions.npz and actions.png to the output folder.
"""

import argparse
from collections.abc import Iterable
import json
from pathlib import Path
import time
from typing import TYPE_CHECKING

import numpy as np

from lingbot_va_ros.atomic_files import atomic_files
from lingbot_va_ros.cli.common.engine_options import (
    add_engine_arguments,
    chosen_checkpoint,
    chosen_policy,
    load_chosen_engine,
)
from lingbot_va_ros.cli.common.failure import CommandFailed, one_line
from lingbot_va_ros.cli.common.progress import ProgressDisplay
from lingbot_va_ros.cli.common.sampling_options import number, sampling_of
from lingbot_va_ros.cli.imagine.still_images import images_by_camera, read_images
from lingbot_va_ros.specs.channel_names import describe_channels
from lingbot_va_ros.specs.policy_file import PolicyFile

if TYPE_CHECKING:  # torch takes seconds to import; mistakes in the options come first
    from lingbot_va_ros.policy.inference.engine import Engine
    from lingbot_va_ros.policy.inference.open_loop import Imagination

FILES = {'video': 'video.mp4', 'actions': 'actions.npz', 'plot': 'actions.png'}
UNTRAINED = 'UNTRAINED network: its images and actions mean nothing'
BANNER = 24  # height in pixels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the prediction."""
    parser.add_argument(
        'images', nargs='*', type=Path, metavar='IMAGE',
        help='one image of each camera, in the order of the policy file')
    parser.add_argument(
        '--image', action='append', type=_named_image, default=[], metavar='ROLE=FILE',
        help='image of one camera, instead of images in order; once for each camera')
    parser.add_argument(
        '--instruction', type=_instruction, required=True, metavar='TEXT',
        help='instruction to the policy')
    parser.add_argument(
        '--chunks', type=number(int, 1), default=10, metavar='N',
        help='chunks to predict (default: %(default)s)')
    parser.add_argument(
        '--output', type=Path, default=Path('imagined'), metavar='FOLDER',
        help='folder for the results (default: %(default)s)')
    parser.add_argument(
        '--fps', type=number(float, 0.1, 1000), metavar='RATE',
        help='frames per second of the video (default: the rate of the policy, which gives real '
             'speed)')
    parser.add_argument(
        '--json', type=Path, metavar='FILE', help='write settings and latencies to this file')
    add_engine_arguments(parser, checkpoint_required=False)


def run(arguments: argparse.Namespace) -> int:
    """
    Imagine and write the results.

    :raises CommandFailed: an option, an image or the checkpoint cannot be used.
    """
    notes: list[str] = []
    try:
        policy = chosen_policy(arguments, notes.append, notes.append)
        sampling_of(arguments, policy)
        images = read_images(images_by_camera(policy.cameras, arguments.images, arguments.image))
        from lingbot_va_ros.cli.common.mp4 import find_codec  # PyAV takes a while to import
        find_codec()
    except (ValueError, RuntimeError) as error:
        raise CommandFailed(one_line(error)) from None
    output = arguments.output.expanduser()
    paths = {what: output / name for what, name in FILES.items()}
    if arguments.json is not None:
        paths['json'] = arguments.json.expanduser()
    title = 'lingbot_va imagine' + ('' if policy.trained else ' · UNTRAINED network')
    try:
        with ProgressDisplay(title) as progress, atomic_files(list(paths.values())) as unfinished:
            for line in notes:
                progress.say(f'note: {line}')
            if not policy.trained:
                progress.say(UNTRAINED)
            report = _imagine(arguments, policy, images, progress, dict(zip(paths, unfinished)))
            report['files'] = {what: str(paths[what]) for what in FILES}
            if arguments.json is not None:
                unfinished[-1].write_text(json.dumps(report, indent=2) + '\n')
    except OSError as error:
        raise CommandFailed(
            f'cannot write{f" {error.filename}" if error.filename else ""}: '
            f'{error.strerror or one_line(error)}') from None
    print('\n'.join(_closing_lines(report, output, arguments)))
    return 0


def _imagine(
    arguments: argparse.Namespace, policy: PolicyFile, images: dict[str, np.ndarray],
    progress: ProgressDisplay, files: dict[str, Path],
) -> dict:
    """Load, predict and write the files; return the content of --json."""
    progress.show(phase='loading the libraries')
    progress.refresh(now=True)
    import torch

    from lingbot_va_ros.policy.inference.open_loop import imagine

    begin = time.monotonic()

    def loading(line: str) -> None:
        progress.show(phase=line)
        progress.refresh(now=True)

    try:
        engine = load_chosen_engine(
            arguments, policy, loading, [arguments.instruction], warm_up=False)
        engine.set_instruction(arguments.instruction)
        load_seconds = time.monotonic() - begin
        shown = _ChunkProgress(progress, arguments.chunks, engine)
        imagined = imagine(engine, images, arguments.chunks, shown, shown.chunk_done)
        frames = imagined.latents.shape[2]
        progress.show(phase=f'decoding {1 + 4 * (frames - 1)} images')
        progress.refresh(now=True)
        begin = time.monotonic()
        pictures = engine.decode(imagined.latents)
        decode_seconds = time.monotonic() - begin
    except torch.cuda.OutOfMemoryError as error:
        raise CommandFailed(
            f'the device is out of memory: {one_line(error)}') from None
    except (ValueError, FloatingPointError, OSError) as error:
        raise CommandFailed(one_line(error)) from None
    progress.show(phase='writing')
    progress.refresh(now=True)
    fps = arguments.fps or policy.action_rate / policy.images_every
    times = np.arange(len(imagined.actions)) * policy.action_period
    _write_video(files['video'], pictures, fps, arguments, policy)
    _write_actions(files['actions'], times, imagined, arguments, policy)
    _draw(files['plot'], times, imagined, arguments, policy)
    network = engine.session.network
    return {
        'checkpoint': str(chosen_checkpoint(arguments)), 'policy': policy.name,
        'trained': policy.trained, 'instruction': arguments.instruction,
        'seed': arguments.seed, 'device': str(network.device),
        'dtype': str(network.dtype).split('.')[-1], 'chunks': arguments.chunks,
        'actions': len(imagined.actions), 'channels': len(policy.used_channels),
        'pictures': len(pictures), 'picture_size': list(pictures.shape[1:3]), 'fps': fps,
        'load_seconds': load_seconds, 'chunk_seconds': list(imagined.seconds),
        'decode_seconds': decode_seconds}


class _ChunkProgress:
    """Shows chunks and denoising steps in the progress display."""

    def __init__(self, progress: ProgressDisplay, chunks: int, engine: 'Engine'):
        from lingbot_va_ros.policy.inference.open_loop import forwards_per_chunk
        self._progress = progress
        self._chunks = chunks
        self._forwards = forwards_per_chunk(engine.session.video, engine.session.action)
        self._done = self._step = 0
        progress.show(phase=f'imagining {chunks} chunks')

    def check(self) -> None:
        """Show that the next forward pass begins; never interrupt the prediction."""
        self._step += 1
        self._progress.show_in_panel(
            chunk=f'{self._done + 1}/{self._chunks}', step=f'{self._step}/{self._forwards}')
        self._progress.refresh()

    def chunk_done(self, seconds: float) -> None:
        """Show the time of a chunk."""
        self._done, self._step = self._done + 1, 0
        self._progress.show(done=f'{self._done}/{self._chunks}, the last in {seconds:.3f} s')
        self._progress.refresh()


def _write_video(
    path: Path, pictures: np.ndarray, fps: float, arguments: argparse.Namespace,
    policy: PolicyFile,
) -> None:
    import av

    from lingbot_va_ros.cli.common.mp4 import write_mp4

    shown: Iterable[np.ndarray] = pictures
    about = {'title': arguments.instruction, 'comment': f'imagined by {policy.name}, open loop'}
    if not policy.trained:
        about['comment'] += f'; {UNTRAINED}'
        banner = _banner(pictures.shape[2])
        shown = (np.concatenate((banner, picture)) for picture in pictures)
    try:
        write_mp4(path, shown, fps, about)
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise CommandFailed(f'the video cannot be encoded: {one_line(error)}') from None


def _banner(width: int) -> np.ndarray:
    """Return the warning as an image, shortened to fit, RGB uint8 [BANNER, width, 3]."""
    import cv2

    line = np.full((BANNER, width, 3), 24, np.uint8)
    face = cv2.FONT_HERSHEY_SIMPLEX
    for text in (UNTRAINED, 'UNTRAINED network', 'UNTRAINED'):
        if cv2.getTextSize(text, face, 0.45, 1)[0][0] <= width - 8:
            break
    room = (width - 8) / cv2.getTextSize(text, face, 0.45, 1)[0][0]
    cv2.putText(line, text, (4, 16), face, 0.45 * min(1, room), (255, 90, 80), 1, cv2.LINE_AA)
    return line


def _write_actions(
    path: Path, times: np.ndarray, imagined: 'Imagination', arguments: argparse.Namespace,
    policy: PolicyFile,
) -> None:
    names, units = zip(*describe_channels(policy))
    with open(path, 'wb') as file:
        np.savez(
            file, actions=imagined.actions, times=times, chunks=imagined.chunk_of,
            channels=np.array(names), units=np.array(units),
            model_channels=np.array(policy.used_channels), action_rate=policy.action_rate,
            action_frame=policy.action_frame, instruction=arguments.instruction,
            policy=policy.name, trained=policy.trained, seed=arguments.seed)


def _draw(
    path: Path, times: np.ndarray, imagined: 'Imagination', arguments: argparse.Namespace,
    policy: PolicyFile,
) -> None:
    from lingbot_va_ros.cli.imagine.action_plot import draw_actions

    used = list(policy.used_channels)
    draw_actions(
        path, times, imagined.actions, imagined.chunk_of, describe_channels(policy),
        (policy.q01[used], policy.q99[used]),
        f'"{arguments.instruction}" · policy: {policy.name} · {arguments.chunks} chunks, open '
        f'loop · actions: {policy.action_frame}', '' if policy.trained else UNTRAINED)


def _closing_lines(report: dict, output: Path, arguments: argparse.Namespace) -> list[str]:
    seconds = report['chunk_seconds']
    return [
        f'{report["chunks"]} chunks: {report["pictures"]} images at {report["fps"]:g} Hz, '
        f'{report["actions"]} actions of {report["channels"]} channels',
        f'latency    {np.median(seconds):.3f} s per chunk (median), {max(seconds):.3f} s (max); '
        f'decoding {report["decode_seconds"]:.3f} s; loading {report["load_seconds"]:.1f} s',
        f'wrote      {output}/: {", ".join(FILES.values())}'
        + (f'; {arguments.json}' if arguments.json is not None else '')]


def _named_image(text: str) -> tuple[str, Path]:
    role, sign, path = text.partition('=')
    if not (role and sign and path):
        raise argparse.ArgumentTypeError(f'{text!r} is not ROLE=FILE')
    return role, Path(path)


def _instruction(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError('it is empty; expected the task in words')
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f'{text!r} is not valid UTF-8') from None
    return text
