"""A recorded episode and its file: camera images, commands, event counts and body positions."""

from dataclasses import dataclass
import json
from pathlib import Path
import zipfile

import numpy as np

from lingbot_va_ros.atomic_files import atomic_file


@dataclass(frozen=True)
class Recording:
    """
    One episode at the action rate: T commands, and T + 1 images of each camera.

    Image 0 precedes the first command; image t follows command t - 1.

    :param images: per camera uint8 [T + 1, H, W, 3], rgb.
    :param marked: per camera bool [T + 1, H, W]: pixels of the bodies that the task is about.
    :param commands: [T, J] float32, rad and m, in the order of the embodiment's joints.
    :param counts: per counter of the task int16 [T + 1].
    :param places: per body float32 [T + 1, 3]: its position in the world frame, m.
    :param finished: number of commands after which the expert finished; then the arm rests.
    :param success: whether the task had succeeded at the end.
    """

    task: str
    seed: int
    images: dict[str, np.ndarray]
    marked: dict[str, np.ndarray]
    commands: np.ndarray
    counts: dict[str, np.ndarray]
    places: dict[str, np.ndarray]
    finished: int
    success: bool

    @property
    def events(self) -> np.ndarray:
        """Events so far at each image, [T + 1] int16: all counts of the task together."""
        return sum(self.counts.values(), np.zeros(len(self.commands) + 1, np.int16))


def save_recording(path: Path, recording: Recording) -> None:
    """Write a file atomically; images as temporal differences, which compress better."""
    arrays = {'commands': recording.commands}
    for name, images in recording.images.items():
        arrays[f'images.{name}'] = np.diff(images, axis=0, prepend=np.zeros_like(images[:1]))
        arrays[f'marked.{name}'] = np.packbits(recording.marked[name], axis=-1)
    for kind in ('counts', 'places'):
        for name, values in getattr(recording, kind).items():
            arrays[f'{kind}.{name}'] = values
    about = {'task': recording.task, 'seed': recording.seed, 'finished': recording.finished,
             'success': recording.success}
    arrays['about'] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    with atomic_file(path) as unfinished, open(unfinished, 'wb') as file:
        # The type of savez_compressed has keyword arguments besides the arrays.
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def load_recording(path: Path) -> Recording:
    """
    Read a file of `save_recording`.

    :raises ValueError: the file is damaged or of another kind; the message names it.
    """
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(arrays.pop('about').tobytes())
        images = {
            name.removeprefix('images.'): np.cumsum(array, axis=0, dtype=np.uint8)
            for name, array in arrays.items() if name.startswith('images.')}
        marked = {
            name: np.unpackbits(arrays[f'marked.{name}'], axis=-1, count=pictures.shape[2])
            .astype(bool) for name, pictures in images.items()}
        counts, places = (
            {name.removeprefix(f'{kind}.'): array for name, array in arrays.items()
             if name.startswith(f'{kind}.')} for kind in ('counts', 'places'))
        return Recording(
            images=images, marked=marked, commands=arrays['commands'], counts=counts,
            places=places, **about)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f'{path} is not a readable recording: {error}') from None
