"""Camera layouts: how the latents of several cameras are joined to one latent picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SIDE_BY_SIDE = 'side_by_side'
TSHAPE = 'tshape'
LAYOUTS = (SIDE_BY_SIDE, TSHAPE)
PIXELS_PER_LATENT = 16


@dataclass(frozen=True)
class CameraGroup:
    """Cameras of one image size, which are encoded as one batch in one stream."""

    cameras: tuple[str, ...]
    height: int
    width: int


def camera_groups(
    layout: str, cameras: Sequence[str], height: int, width: int,
) -> tuple[CameraGroup, ...]:
    """
    Return the encoder streams of a layout.

    `side_by_side` has all cameras at one size; `tshape` (RoboTwin) has the first at full size and
    the two others at half of it.

    :param height: of a full-size view, pixels; as `width`.
    :raises ValueError: the layout is unknown, or does not support the number of cameras or the
        size.
    """
    cameras = tuple(cameras)
    groups: tuple[CameraGroup, ...]
    if layout == SIDE_BY_SIDE:
        groups = (CameraGroup(cameras, height, width),)
    elif layout == TSHAPE:
        if len(cameras) != 3:
            raise ValueError(f'layout tshape takes 3 cameras, got {len(cameras)}: {cameras}')
        groups = (
            CameraGroup(cameras[:1], height, width),
            CameraGroup(cameras[1:], height // 2, width // 2))
    else:
        raise ValueError(f'unknown layout {layout!r}; expected one of {", ".join(LAYOUTS)}')
    multiple = PIXELS_PER_LATENT * (2 if layout == TSHAPE else 1)
    if height % multiple or width % multiple or height <= 0 or width <= 0:
        raise ValueError(
            f'images of {height}x{width} do not fit layout {layout}: expected multiples of '
            f'{multiple}')
    return groups


def latent_size(layout: str, cameras: int, height: int, width: int) -> tuple[int, int]:
    """Return rows and columns of the joined latent picture of `cameras` cameras."""
    rows, columns = height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT
    if layout == TSHAPE:
        return rows + rows // 2, columns
    return rows, columns * cameras


def join_latents(layout: str, latents: list[Tensor]) -> Tensor:
    """
    Join the streams' latents to one picture, [1, C, F, h, w].

    :param latents: one tensor [cameras, C, F, rows, columns] per group of `camera_groups`.
    """
    beside = [torch.cat(group.split(1, 0), -1) for group in latents]
    if layout == TSHAPE:
        return torch.cat((beside[1], beside[0]), -2)  # the wrists above the head
    return beside[0]
