"""Write episode.mp4: what the cameras saw, and beside it what the network had imagined."""

from pathlib import Path
from typing import Iterator, Optional, Sequence

import cv2
import numpy as np

from lingbot_va_ros.cli.episode import Episode, Picture
from lingbot_va_ros.cli.mp4 import write_mp4

RATE = 10  # pictures a second
TILE = 288  # height in pixels of one view
CAPTION = 32
# Seconds that an imagined picture stays on: they come every few actions, and none comes while the
# network thinks.
IMAGINED_STAYS = 0.5
BACKGROUND, WHITE, RED, GREY = (24, 24, 24), (235, 235, 235), (255, 90, 80), (150, 150, 150)
UNTRAINED = 'UNTRAINED network: its actions mean nothing'


def write_video(path: Path, episode: Episode, trained: bool) -> None:
    """Write the whole episode at real speed; `trained` false is written into every picture."""
    write_mp4(path, frames(episode, trained), RATE)


def frames(episode: Episode, trained: bool) -> Iterator[np.ndarray]:
    """Yield the pictures of the video, RGB uint8 [H, W, 3], even sizes, `RATE` a second."""
    imagined_size = _imagined_size(episode.imagined)
    for number in range(max(1, int((episode.end - episode.start) * RATE))):
        time = episode.start + number / RATE
        tiles = []
        for name, pictures in episode.cameras.items():
            seen = _newest(pictures, time)
            tiles.append(_tile(None if seen is None else seen.image, f'camera {name}'))
        foretold = _newest(episode.imagined, time, IMAGINED_STAYS)
        tiles.append(_tile(
            None if foretold is None else foretold.image, 'imagined', imagined_size))
        picture = np.concatenate(tiles, axis=1)
        picture = np.pad(
            picture, ((0, 0), (0, picture.shape[1] % 2), (0, 0)), constant_values=BACKGROUND[0])
        yield np.concatenate((_headline(picture.shape[1], episode, time, trained), picture))


def _newest(pictures: Sequence[Picture], time: float, stays: float = float('inf')
            ) -> Optional[Picture]:
    """Return the newest picture at a time, none that is older than `stays` seconds."""
    index = int(np.searchsorted([picture.time for picture in pictures], time, side='right')) - 1
    if index < 0 or time - pictures[index].time > stays:
        return None
    return pictures[index]


def _imagined_size(pictures: Sequence[Picture]) -> tuple:
    """Return height and width of the imagined view as it is shown; its views are joined."""
    height, width = pictures[0].image.shape[:2] if pictures else (1, 1)
    return TILE, round(TILE * width / height)


def _tile(image: Optional[np.ndarray], label: str, size: Optional[tuple] = None) -> np.ndarray:
    """Return a view at its size under a line with its label; grey words where there is none."""
    if size is None:
        size = (TILE, TILE if image is None else round(TILE * image.shape[1] / image.shape[0]))
    if image is None:
        view = np.full((*size, 3), BACKGROUND, np.uint8)
        _write(view, 'nothing imagined for now' if label == 'imagined' else 'no image', 12,
               size[0] // 2, GREY)
    else:
        view = cv2.resize(image, size[::-1], interpolation=cv2.INTER_CUBIC)
    line = np.full((CAPTION, size[1], 3), BACKGROUND, np.uint8)
    _write(line, label, 8, 22, WHITE)
    return np.concatenate((line, view))


def _headline(width: int, episode: Episode, time: float, trained: bool) -> np.ndarray:
    begun = [chunk for chunk in episode.chunks if chunk.start <= time]
    chunk = f'chunk {len(begun)}/{len(episode.chunks)}' if begun else 'before the first chunk'
    line = np.full((CAPTION + 4, width, 3), BACKGROUND, np.uint8)
    _write(line, f't = {time - episode.start:5.1f} s   {chunk}', 8, 25, WHITE)
    if not trained:
        _write(line, UNTRAINED, width - 8 - _width(UNTRAINED), 25, RED)
    return line


def _write(picture: np.ndarray, text: str, x: int, y: int, colour: tuple) -> None:
    cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour, 1, cv2.LINE_AA)


def _width(text: str) -> int:
    return cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 1)[0][0]
