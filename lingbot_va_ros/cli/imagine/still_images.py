"""Read one image file for each camera of a policy."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

# Modes that Pillow converts to 8 bits per channel without a choice of scale, unlike depth and
# 16-bit images.
MODES = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'RGBX', 'CMYK', 'YCbCr', 'HSV', 'LAB')


def images_by_camera(
    cameras: Sequence[str], in_order: Sequence[Path], named: Sequence[tuple[str, Path]],
) -> dict[str, Path]:
    """
    Return the file of each camera.

    :param cameras: the camera roles of the policy, in its order.
    :param in_order: one file for each role; empty if `named` has pairs (role, file).
    :raises ValueError: a role has no image, or more than one.
    """
    expected = f'the policy has {len(cameras)} cameras: {", ".join(cameras)}'
    if in_order and named:
        raise ValueError('images with and without --image: give all of them in the same way')
    if named:
        unknown = sorted({role for role, _ in named} - set(cameras))
        if unknown:
            raise ValueError(f'--image {unknown[0]}=…: no such camera; {expected}')
        for camera in cameras:
            count = sum(role == camera for role, _ in named)
            if count != 1:
                raise ValueError(
                    f'{count} images for camera {camera}; expected one; {expected}')
        return dict(named)
    if len(in_order) != len(cameras):
        raise ValueError(
            f'{len(in_order)} images; expected one for each camera, in this order; {expected}')
    return dict(zip(cameras, in_order))


def read_images(files: Mapping[str, Path]) -> dict[str, np.ndarray]:
    """Return the image of each camera, RGB uint8 [H, W, 3]; see `read_image`."""
    return {camera: read_image(path) for camera, path in files.items()}


def read_image(path: Path) -> np.ndarray:
    """
    Return an image as RGB uint8 [H, W, 3], rotated by its EXIF tag; transparency is dropped.

    :raises ValueError: the file is missing, damaged, not an image, or has 16 bits per channel.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in MODES:
                raise ValueError(
                    f'its pixels are of mode {image.mode}; expected 8 bits per channel')
            image.load()
            return np.array(ImageOps.exif_transpose(image).convert('RGB'))
    except Exception as error:  # decoders raise many types of exceptions on damaged files
        reason = getattr(error, 'strerror', None) or ' '.join(str(error).split())
        if type(error).__name__ == 'UnidentifiedImageError':
            reason = 'no image format is recognized'
        raise ValueError(f'image {path} cannot be read: {reason}') from None
