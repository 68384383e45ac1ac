"""Named snapshots of an episode, in host memory."""

from dataclasses import dataclass
import re
from typing import Any

import numpy as np

NAME = re.compile(r'[A-Za-z0-9_-]{1,64}')


@dataclass(frozen=True)
class Saved:
    """
    An episode as it was at a moment.

    :param engine: the engine's own snapshot.
    :param executed: [n, used] what was executed during the frames that were seen of the running
        chunk and not yet confirmed; None where there was none.
    :param poses: what the action map kept.
    :param frames: confirmed latent frames, those of the running chunk included.
    """

    engine: Any
    executed: np.ndarray | None
    poses: Any
    instruction: str
    frames: int


class SavedEpisodes:
    """
    Snapshots by name.

    :param most: how many there may be.
    """

    def __init__(self, most: int):
        self.most = most
        self._by_name: dict[str, Saved] = {}

    def check(self, name: str) -> None:
        """
        Raise where nothing can be saved under a name.

        :raises ValueError: it is no name, or there are as many as there may be.
        """
        if not NAME.fullmatch(name):
            raise ValueError(
                f'name {name!r}; expected 1 to 64 letters, digits, _ or -')
        if name not in self._by_name and len(self._by_name) >= self.most:
            raise ValueError(
                f'there are {len(self._by_name)} snapshots already (max_snapshots '
                f'{self.most}): {self._names()}; save under one of these names')

    def keep(self, name: str, saved: Saved) -> None:
        """Keep a snapshot; a name in use is replaced."""
        self.check(name)
        self._by_name[name] = saved

    def find(self, name: str) -> Saved:
        """
        Return a snapshot.

        :raises ValueError: there is none of that name.
        """
        if name not in self._by_name:
            raise ValueError(f'no snapshot {name!r}; there are: {self._names() or "none"}')
        return self._by_name[name]

    def _names(self) -> str:
        return ', '.join(sorted(self._by_name))
