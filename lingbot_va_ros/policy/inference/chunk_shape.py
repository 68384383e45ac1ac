"""Sizes of a chunk: latent frames, actions per frame, and the latent picture."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ChunkShape:
    """
    Sizes of a chunk's tensors.

    :param frames: latent frames, F.
    :param actions: actions per frame, N.
    :param rows: of the latent picture, all cameras joined; as `columns`.
    """

    frames: int
    actions: int
    rows: int
    columns: int

    def video_tokens(self, patch: Sequence[int]) -> int:
        """
        Return the number of video tokens of a chunk.

        :param patch: frames (1), rows and columns of a patch, in latents.
        :raises ValueError: the picture is not a whole number of patches.
        """
        if self.rows % patch[1] or self.columns % patch[2]:
            raise ValueError(
                f'{self.rows} x {self.columns} latents (one for 16 x 16 pixels, all views joined) '
                f'cannot be cut into patches of {patch[1]} x {patch[2]}')
        return self.frames * (self.rows // patch[1]) * (self.columns // patch[2])

    @property
    def action_tokens(self) -> int:
        """Number of action tokens of a chunk."""
        return self.frames * self.actions
