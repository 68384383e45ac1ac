"""Token positions (frame, row, column) and their rotary tables."""

import torch
from torch import Tensor

ROTARY_BASE = 10000.0


def video_positions(frames: int, rows: int, columns: int, first_frame: int) -> Tensor:
    """
    Return the positions of a video chunk's tokens, [frames * rows * columns, 3] float64 (CPU).

    Token order is frame, row, column; rows and columns count tokens (patches), from 0.
    """
    axes = (
        torch.arange(first_frame, first_frame + frames, dtype=torch.float64),
        torch.arange(rows, dtype=torch.float64),
        torch.arange(columns, dtype=torch.float64))
    return torch.stack(torch.meshgrid(*axes, indexing='ij'), -1).reshape(-1, 3)


def action_positions(frames: int, per_frame: int, first_frame: int) -> Tensor:
    """
    Return the positions of a chunk's actions, [frames * per_frame, 3] float64 (CPU).

    Action j = 1 … n of a frame is at frame + j / (n + 1), row -1, column -1: between its latent
    frame and the next, at no pixel.
    """
    frame = torch.arange(first_frame, first_frame + frames, dtype=torch.float64)[:, None]
    step = torch.arange(1, per_frame + 1, dtype=torch.float64)[None] / (per_frame + 1)
    position = torch.full((frames * per_frame, 3), -1.0, dtype=torch.float64)
    position[:, 0] = (frame + step).reshape(-1)
    return position


def rotary_table(positions: Tensor, head_dim: int, device: torch.device) -> Tensor:
    """
    Return the unit complex numbers that rotate each pair of a head's features.

    The head is split into a frame part (head_dim - 2 * (head_dim // 3)) and a row and a column
    part (head_dim // 3 each). Angles are computed in float64 and rounded to float32, as in the
    public code.

    :param positions: [L, 3] float64.
    :returns: [L, 1, head_dim / 2] complex64 on `device`.
    """
    third = head_dim // 3
    angles = []
    for axis, size in enumerate((head_dim - 2 * third, third, third)):
        exponent = torch.arange(0, size, 2, dtype=torch.float64) / size
        angles.append(positions[:, axis:axis + 1] / ROTARY_BASE ** exponent)
    angle = torch.cat(angles, -1).float()
    return torch.polar(torch.ones_like(angle), angle)[:, None].to(device)


def rotate(features: Tensor, table: Tensor) -> Tensor:
    """Rotate adjacent feature pairs of [B, L, H, D] by a table [L, 1, D / 2]."""
    pairs = torch.view_as_complex(features.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * table).flatten(-2).to(features.dtype)
