"""How several cameras become one latent picture: sizes, encoder streams, places."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SIDE_BY_SIDE = 'side_by_side'
TSHAPE = 'tshape'
LAYOUTS = (SIDE_BY_SIDE, TSHAPE)
PIXELS_PER_LATENT = 16


@dataclass(frozen=True)
class ViewGroup:
    """Cameras of one size that share an encoder stream, as one batch."""

    cameras: tuple[str, ...]
    height: int
    width: int


def view_groups(
    layout: str, cameras: Sequence[str], height: int, width: int,
) -> tuple[ViewGroup, ...]:
    """
    Return the encoder streams of a layout.

    `side_by_side` has all cameras at one size; `tshape` (RoboTwin) has the first at full size and
    the two others at half of it.

    :param height: pixels of a full-size view, as `width`.
    :raises ValueError: an unknown layout, a number of cameras or a size that it cannot take.
    """
    cameras = tuple(cameras)
    if layout == SIDE_BY_SIDE:
        groups = (ViewGroup(cameras, height, width),)
    elif layout == TSHAPE:
        if len(cameras) != 3:
            raise ValueError(f'layout tshape takes 3 cameras, got {len(cameras)}: {cameras}')
        groups = (
            ViewGroup(cameras[:1], height, width),
            ViewGroup(cameras[1:], height // 2, width // 2))
    else:
        raise ValueError(f'unknown layout {layout!r}; expected one of {", ".join(LAYOUTS)}')
    multiple = PIXELS_PER_LATENT * (2 if layout == TSHAPE else 1)
    if height % multiple or width % multiple or height <= 0 or width <= 0:
        raise ValueError(
            f'images of {height}x{width} do not fit layout {layout}: expected multiples of '
            f'{multiple}')
    return groups


def latent_size(layout: str, cameras: int, height: int, width: int) -> tuple[int, int]:
    """Return rows and columns of the joined latent picture."""
    rows, columns = height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT
    if layout == TSHAPE:
        return rows + rows // 2, columns
    return rows, columns * cameras


def join_latents(layout: str, latents: list[Tensor]) -> Tensor:
    """
    Join the streams' latents to one picture, [1, C, F, h, w].

    :param latents: one tensor [cameras, C, F, rows, columns] per group of `view_groups`.
    """
    beside = [torch.cat(group.split(1, 0), -1) for group in latents]
    if layout == TSHAPE:
        return torch.cat((beside[1], beside[0]), -2)  # the wrists on top of the head
    return beside[0]
