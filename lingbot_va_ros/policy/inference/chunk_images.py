"""The images of the newest chunk, kept so that it can be encoded again without its past."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lingbot_va_ros.model.video_vae import CodecStream
from lingbot_va_ros.specs.checkpoint_config import IMAGES_PER_FRAME

Images = dict[str, np.ndarray]  # of each camera, RGB uint8 [H, W, 3]


@dataclass(frozen=True)
class Shown:
    """
    Images in the order in which a stream took them; replaced whole, never changed.

    :param chunk: those of the chunk that was committed last, the one before it first.
    :param newest: those since then; the last one of `chunk` first.
    """

    chunk: tuple[Images, ...] = ()
    newest: tuple[Images, ...] = ()

    def first(self, images: Mapping[str, np.ndarray]) -> 'Shown':
        """Return what is kept when an image begins an episode."""
        return Shown(newest=(dict(images),))

    def more(self, images: Mapping[str, Sequence[np.ndarray]]) -> 'Shown':
        """Return what is kept after the images of a further frame."""
        count = len(next(iter(images.values())))
        return replace(self, newest=(*self.newest, *(
            {name: rows[index] for name, rows in images.items()} for index in range(count))))

    def committed(self) -> 'Shown':
        """Return what is kept when what is newest has become the last chunk."""
        return Shown(self.newest, self.newest[-1:])

    def dropped(self) -> 'Shown':
        """Return what is kept where the newest frames are not to be committed."""
        return replace(self, newest=self.newest[-1:])


def encode_anew(stream: CodecStream, shown: Shown) -> tuple[Tensor, list[Tensor]]:
    """
    Let a stream begin with the image before the last chunk, and go on as it did.

    :returns: latents of that image and the chunk, [1, C, 1 + F, h, w], and those of each frame
        after it.
    """
    stream.clear()
    first, *images = shown.chunk
    frames = [stream.encode({name: [image] for name, image in first.items()})]
    frames += _encode(stream, images)
    return torch.cat(frames, 2), _encode(stream, shown.newest[1:])


def _encode(stream: CodecStream, images: Sequence[Images]) -> list[Tensor]:
    return [
        stream.encode({
            name: [each[name] for each in images[begin:begin + IMAGES_PER_FRAME]]
            for name in images[begin]})
        for begin in range(0, len(images), IMAGES_PER_FRAME)]
