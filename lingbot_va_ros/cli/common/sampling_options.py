"""Command-line options that change how a checkpoint samples, for the commands that run one."""

import argparse
from collections.abc import Callable
from dataclasses import replace

from lingbot_va_ros.specs.policy_file import PolicyFile, Sampling


def number(kind: Callable, lowest, highest=None) -> Callable:
    """Return an argparse type: a number of `kind` that is at least `lowest`."""
    def read(text: str):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not value >= lowest or (highest is not None and value > highest):
            limits = f'at least {lowest}' if highest is None else f'{lowest} to {highest}'
            article = 'a whole number' if kind is int else 'a number'
            raise argparse.ArgumentTypeError(f'{text!r} is not {article} of {limits}')
        return value
    return read


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare steps, guidance and memory; without them the policy file's hold."""
    group = parser.add_argument_group('instead of what the policy file says')
    group.add_argument(
        '--video-steps', type=number(int, 1), metavar='N', help='denoising steps of the video')
    group.add_argument(
        '--video-exec-steps', type=number(int, -1), metavar='N',
        help='forwards of the video loop that are run (-1: all)')
    group.add_argument(
        '--action-steps', type=number(int, 1), metavar='N',
        help='denoising steps of the actions')
    group.add_argument(
        '--guidance-scale', type=number(float, 0, 100), metavar='G',
        help='guidance on the video (1: none)')
    group.add_argument(
        '--action-guidance-scale', type=number(float, 0, 100), metavar='G',
        help='guidance on the actions (1: none)')
    group.add_argument(
        '--memory-chunks', type=number(int, 1), metavar='N', help='chunks that are remembered')


def sampling_of(
    arguments: argparse.Namespace, policy: PolicyFile,
) -> tuple[Sampling, Sampling, int]:
    """
    Return video sampling, action sampling and memory chunks: the policy file's, or what was asked.

    :raises ValueError: the video loop has no such number of forwards.
    """
    def changed(sampling: Sampling, **wanted) -> Sampling:
        return replace(sampling, **{
            field: value for field, value in wanted.items() if value is not None})

    video = changed(
        policy.video, steps=arguments.video_steps, guidance=arguments.guidance_scale,
        exec_steps=arguments.video_exec_steps)
    if video.exec_steps == 0 or video.exec_steps > video.steps + 1:
        raise ValueError(
            f'--video-exec-steps {video.exec_steps}: expected -1, or 1 to {video.steps + 1} with '
            f'{video.steps} video steps')
    action = changed(
        policy.action, steps=arguments.action_steps, guidance=arguments.action_guidance_scale)
    return video, action, arguments.memory_chunks or policy.memory_chunks
