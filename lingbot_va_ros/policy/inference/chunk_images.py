"""The images of the newest chunks, to encode them again without older images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lingbot_va_ros.model.video_vae import VaeStream
from lingbot_va_ros.specs.checkpoint_config import IMAGES_PER_FRAME

Images = dict[str, np.ndarray]  # by camera, RGB uint8 [H, W, 3]


@dataclass(frozen=True)
class ChunkImages:
    """
    Images in the order in which a stream encoded them. Each method returns a new object.

    :param chunk: images of the newest committed chunk, preceded by the image before it.
    :param newest: later images, preceded by the last one of `chunk`.
    """

    chunk: tuple[Images, ...] = ()
    newest: tuple[Images, ...] = ()

    def first(self, images: Mapping[str, np.ndarray]) -> 'ChunkImages':
        """Return the images after the one that begins an episode."""
        return ChunkImages(newest=(dict(images),))

    def more(self, images: Mapping[str, Sequence[np.ndarray]]) -> 'ChunkImages':
        """Return the images with those of one more latent frame."""
        count = len(next(iter(images.values())))
        return replace(self, newest=(*self.newest, *(
            {name: rows[index] for name, rows in images.items()} for index in range(count))))

    def committed(self) -> 'ChunkImages':
        """Return the images after a commit: the newest ones become the last chunk."""
        return ChunkImages(self.newest, self.newest[-1:])

    def dropped(self) -> 'ChunkImages':
        """Return the images without the uncommitted ones."""
        return replace(self, newest=self.newest[-1:])


def reencode(stream: VaeStream, shown: ChunkImages) -> tuple[Tensor, list[Tensor]]:
    """
    Restart a stream with the image before the last chunk, and encode the later images again.

    :returns: latents of that image and the chunk, [1, C, 1 + F, h, w], and those of each frame
        after it.
    """
    stream.clear()
    first, *images = shown.chunk
    frames = [stream.encode({name: [image] for name, image in first.items()})]
    frames += _encode(stream, images)
    return torch.cat(frames, 2), _encode(stream, shown.newest[1:])


def _encode(stream: VaeStream, images: Sequence[Images]) -> list[Tensor]:
    return [
        stream.encode({
            name: [each[name] for each in images[begin:begin + IMAGES_PER_FRAME]]
            for name in images[begin]})
        for begin in range(0, len(images), IMAGES_PER_FRAME)]
