"""
Write episode.mp4: the overview, the camera images, and below them the predicted video.

The video shows the episodes one after the other. Each ends with a still that shows its result.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from lingbot_va_ros.cli.common.mp4 import write_mp4
from lingbot_va_ros.cli.demo.episode import (
    format_counts,
    outcome,
    OVERVIEW,
    RecordedEpisode,
    RecordedImage,
    value_at,
)
from lingbot_va_ros.mux.modes import MuxMode

RATE = 10  # frames per second
TILE = 256  # height in pixels of one view of the robot's cameras
CAPTION = 32
STILL = 2.0  # s at the end of each episode
# s that a predicted image is shown: one comes every few actions, and none during inference.
IMAGINED_STAYS = 0.5
BACKGROUND, WHITE, GRAY = (24, 24, 24), (235, 235, 235), (150, 150, 150)
RED, GREEN, YELLOW = (255, 90, 80), (110, 220, 120), (255, 210, 80)
UNTRAINED = 'UNTRAINED network: its actions mean nothing'


def write_video(path: Path, episodes: Sequence[RecordedEpisode], trained: bool) -> None:
    """Write all episodes at real speed; every frame is marked if `trained` is false."""
    write_mp4(path, frames(episodes, trained), RATE)


def frames(episodes: Sequence[RecordedEpisode], trained: bool) -> Iterator[np.ndarray]:
    """Yield the frames of the video, RGB uint8 [H, W, 3], even sizes, at `RATE` Hz."""
    size = _imagined_size([picture for episode in episodes for picture in episode.imagined])
    for episode in episodes:
        count = max(1, int((episode.end - episode.start) * RATE))
        for number in range(count):
            picture = _frame(episode, episode.start + number / RATE, size, trained, False)
            yield picture
        last = _frame(episode, episode.end, size, trained, True)
        for _ in range(round(STILL * RATE)):
            yield last


def _frame(
    episode: RecordedEpisode, time: float, imagined_size: tuple, trained: bool, over: bool,
) -> np.ndarray:
    """Return the frame at a time: overview on the left, cameras above predicted video right."""
    seen = {name: _picture_at(pictures, time) for name, pictures in episode.cameras.items()}
    cameras = np.concatenate([
        _tile(picture, f'camera {name}') for name, picture in seen.items() if name != OVERVIEW],
        axis=1)
    imagined = _tile(
        _picture_at(episode.imagined, time, IMAGINED_STAYS), 'imagined', imagined_size)
    width = max(cameras.shape[1], imagined.shape[1])
    views = np.concatenate([_widened(row, width) for row in (cameras, imagined)])
    if OVERVIEW in seen:
        height = views.shape[0] - CAPTION
        views = np.concatenate((_tile(
            seen[OVERVIEW], 'overview', (height, height * 4 // 3)), views), axis=1)
    views = _widened(views, views.shape[1] + views.shape[1] % 2)
    return np.concatenate((_headline(views.shape[1], episode, time, trained, over), views))


def _widened(row: np.ndarray, width: int) -> np.ndarray:
    return np.pad(
        row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=BACKGROUND[0])


def _picture_at(pictures: Sequence[RecordedImage], time: float, stays: float = float('inf')
            ) -> RecordedImage | None:
    """Return the newest image at a time, or None if it is older than `stays` seconds."""
    index = int(np.searchsorted([picture.time for picture in pictures], time, side='right')) - 1
    if index < 0 or time - pictures[index].time > stays:
        return None
    return pictures[index]


def _imagined_size(pictures: Sequence[RecordedImage]) -> tuple:
    """Return height and width of the predicted video in the frame; its views are joined."""
    height, width = pictures[0].image.shape[:2] if pictures else (1, 1)
    return TILE, round(TILE * width / height)


def _tile(
    picture: RecordedImage | None, label: str, size: tuple | None = None,
) -> np.ndarray:
    """Return an image scaled to its size below its label, or a placeholder text."""
    image = None if picture is None else picture.image
    if size is None:
        size = (TILE, TILE if image is None else round(TILE * image.shape[1] / image.shape[0]))
    if image is None:
        view = np.full((*size, 3), BACKGROUND, np.uint8)
        _write(view, 'no prediction at this time' if label == 'imagined' else 'no image', 12,
               size[0] // 2, GRAY)
    else:
        # Small images are enlarged without smoothing.
        small = size[0] >= 3 * image.shape[0]
        view = cv2.resize(image, size[::-1], interpolation=(
            cv2.INTER_NEAREST if small else cv2.INTER_CUBIC))
    line = np.full((CAPTION, size[1], 3), BACKGROUND, np.uint8)
    _write(line, label, 8, 22, WHITE)
    return np.concatenate((line, view))


def _headline(
    width: int, episode: RecordedEpisode, time: float, trained: bool, over: bool,
) -> np.ndarray:
    """Return two lines of text: progress of the episode, and its counts or its result."""
    begun = [chunk for chunk in episode.chunks if chunk.start <= time]
    of = episode.chunk_limit or len(episode.chunks)
    chunk = f'chunk {len(begun)} of at most {of}' if begun else 'before the first chunk'
    lines = np.full((2 * CAPTION + 4, width, 3), BACKGROUND, np.uint8)
    seed = '' if episode.seed is None else f', seed {episode.seed}'
    _write(lines, f'{episode.task}{seed}   t = {time - episode.start:5.1f} s   {chunk}', 8, 25,
           WHITE)
    if over:
        success, detail = outcome(episode)
        goal = bool(episode.task_state.get('counts'))
        _write(lines, f'{"success" if success else "no success"}: {detail}', 8, 25 + CAPTION,
               GREEN if success else RED if goal else GRAY)
    else:
        _write(lines, format_counts(value_at(episode.counted, time, {})), 8, 25 + CAPTION, WHITE)
    who = ''
    if value_at(episode.modes, time, None) == MuxMode.TELEOP and not over:
        who = 'operator controls the arm (TELEOP)'
        _write(lines, who, width - 8 - _width(who), 25 + CAPTION, YELLOW)
    if not trained:
        _write(lines, UNTRAINED, width - 8 - _width(UNTRAINED), 25, RED)
    return lines


def _write(picture: np.ndarray, text: str, x: int, y: int, color: tuple) -> None:
    cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.6, color, 1, cv2.LINE_AA)


def _width(text: str) -> int:
    return cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 1)[0][0]
