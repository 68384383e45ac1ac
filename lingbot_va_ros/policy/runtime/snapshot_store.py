"""Named snapshots of an episode, in host memory."""

from __future__ import annotations

from dataclasses import dataclass
import re
from typing import Any, TYPE_CHECKING

import numpy as np

from lingbot_va_ros.policy.runtime.active_episode import ActiveEpisode
from lingbot_va_ros.policy.runtime.chunk_actions import is_unreported

if TYPE_CHECKING:  # torch is imported when a checkpoint is loaded, not when a node starts
    from lingbot_va_ros.policy.inference.engine import Engine

NAME = re.compile(r'[A-Za-z0-9_-]{1,64}')


@dataclass(frozen=True)
class SavedEpisode:
    """
    An episode at one moment.

    :param engine: the engine's own snapshot.
    :param executed: [n, used] actions executed during the frames that were seen of the running
        chunk and not yet confirmed; None where there were none.
    :param poses: state of the action map.
    :param frames: confirmed latent frames, those of the running chunk included.
    """

    engine: Any
    executed: np.ndarray | None
    poses: Any
    instruction: str
    frames: int


def saved_episode(
    engine: Engine, episode: ActiveEpisode | None, instruction: str,
) -> SavedEpisode:
    """
    Return the episode as it is, with the frames that were seen of the running chunk.

    :param episode: the newest activation's; None before any.
    """
    if episode is None:
        return SavedEpisode(engine.snapshot(), None, None, instruction, engine.memory_frames)
    robot, running, frames = episode.robot, episode.running, engine.memory_frames
    poses, executed = robot.action_map.state(), None
    if running is not None and running.seen_frames and not is_unreported(robot, running):
        executed = episode.executed_actions(running)
        # The state behind these actions is saved; the episode itself goes on from before them.
        before, poses = poses, robot.action_map.state()
        robot.action_map.restore(before)
        first = 0 if engine.began else 1  # the image that begins the episode
        frames = min(engine.memory_capacity, frames + running.seen_frames + first)
    return SavedEpisode(engine.snapshot(), executed, poses, instruction, frames)


def confirm_restored(saved: SavedEpisode, engine: Engine, episode: ActiveEpisode | None) -> None:
    """Commit the frames that had been seen of the running chunk, after `Engine.restore`."""
    if saved.executed is None or episode is None:
        engine.drop_observed()
    else:
        episode.confirm(saved.executed)
    if saved.poses is not None and episode is not None:
        episode.robot.action_map.restore(saved.poses)


class SnapshotStore:
    """
    Snapshots by name.

    :param most: how many there may be.
    """

    def __init__(self, most: int):
        self.most = most
        self._by_name: dict[str, SavedEpisode] = {}

    def save(
        self, name: str, engine: Engine, episode: ActiveEpisode | None, instruction: str,
    ) -> int:
        """
        Keep an episode as it is, and return its frames; a name in use is replaced.

        :param episode: the newest activation's; None before any.
        :raises ValueError: it is no name, or there are as many as there may be.
        """
        if not NAME.fullmatch(name):
            raise ValueError(
                f'name {name!r}; expected 1 to 64 letters, digits, _ or -')
        if name not in self._by_name and len(self._by_name) >= self.most:
            raise ValueError(
                f'there are {len(self._by_name)} snapshots already (max_snapshots '
                f'{self.most}): {self._names()}; save under one of these names')
        saved = self._by_name[name] = saved_episode(engine, episode, instruction)
        return saved.frames

    def find(self, name: str) -> SavedEpisode:
        """
        Return a snapshot.

        :raises ValueError: there is none of that name.
        """
        if name not in self._by_name:
            raise ValueError(f'no snapshot {name!r}; there are: {self._names() or "none"}')
        return self._by_name[name]

    def _names(self) -> str:
        return ', '.join(sorted(self._by_name))
