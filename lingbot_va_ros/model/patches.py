"""Converts latents and actions to tokens of the network, and output tokens to latents."""

from collections.abc import Sequence

from torch import Tensor


def cut_patches(latents: Tensor, patch: Sequence[int]) -> Tensor:
    """
    Cut latents [B, C, F, h, w] into tokens [B, F, T, C * rows * columns], channel first.

    :param patch: frames (1), rows and columns of a patch, in latents.
    """
    batch, channels, frames, height, width = latents.shape
    rows, columns = patch[1], patch[2]
    cut = latents.reshape(
        batch, channels, frames, height // rows, rows, width // columns, columns)
    # [B, C, F, h', rows, w', columns] to [B, F, h', w', C, rows, columns]
    return cut.permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(2, 3)


def join_patches(tokens: Tensor, shape: Sequence[int], patch: Sequence[int]) -> Tensor:
    """
    Join output tokens [B, F, T, rows * columns * C], channel last, to latents of `shape`.

    Input and output tokens have their features in different orders, as in the public network:
    channel first in the input, channel last in the output.

    :param shape: [B, C, F, h, w] of the result; B is that of the tokens.
    """
    batch, channels, frames, height, width = shape
    rows, columns = patch[1], patch[2]
    grid = tokens.reshape(
        batch, frames, height // rows, width // columns, rows, columns, channels)
    # [B, F, h', w', rows, columns, C] to [B, C, F, h', rows, w', columns]
    return grid.permute(0, 6, 1, 2, 4, 3, 5).reshape(batch, *shape[1:])


def action_tokens(actions: Tensor) -> Tensor:
    """Return actions [B, C, F, N, 1] as tokens [B, F, N, C]."""
    return actions.squeeze(-1).permute(0, 2, 3, 1)
