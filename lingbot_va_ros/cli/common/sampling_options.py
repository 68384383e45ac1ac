"""Options that override the sampling of a policy file, shared by the commands."""

import argparse
from collections.abc import Callable
from dataclasses import replace

from lingbot_va_ros.specs.policy_file import PolicyFile, Sampling


def number(kind: Callable, lowest, highest=None) -> Callable:
    """Return an argparse type: an int or float (`kind`) from `lowest` to `highest`."""
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
    """Add the options that override denoising steps, guidance and memory."""
    group = parser.add_argument_group('overrides of the policy file')
    group.add_argument(
        '--video-steps', type=number(int, 1), metavar='N',
        help='denoising steps of the video loop')
    group.add_argument(
        '--video-exec-steps', type=number(int, -1), metavar='N',
        help='forward passes of the video loop that are executed (-1: all)')
    group.add_argument(
        '--action-steps', type=number(int, 1), metavar='N',
        help='denoising steps of the action loop')
    group.add_argument(
        '--guidance-scale', type=number(float, 0, 100), metavar='G',
        help='classifier-free guidance scale of the video (0 to 1: none)')
    group.add_argument(
        '--action-guidance-scale', type=number(float, 0, 100), metavar='G',
        help='classifier-free guidance scale of the actions (0 to 1: none)')
    group.add_argument(
        '--memory-chunks', type=number(int, 1), metavar='N', help='chunks that the KV cache holds')


def sampling_of(
    arguments: argparse.Namespace, policy: PolicyFile,
) -> tuple[Sampling, Sampling, int]:
    """
    Return video sampling, action sampling and memory chunks: of the options, else the policy's.

    :raises ValueError: --video-exec-steps is larger than the video loop, or 0.
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
