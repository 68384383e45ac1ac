"""
Encodes recordings once: latents, commands, events and body positions by latent frame.

Each recording has one file, in a folder of the encoder that produced it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lingbot_va_ros.atomic_files import atomic_file, write_text
from lingbot_va_ros.model.camera_layout import join_latents, SIDE_BY_SIDE
from lingbot_va_ros.model.checkpoint import read_tensors, weight_files
from lingbot_va_ros.model.video_vae import ENCODER, VideoVae
from lingbot_va_ros.specs.checkpoint_config import IMAGES_PER_FRAME, read_json_object
from lingbot_va_ros.training.episode_files import load_recording, Recording

MIN_DEVIATION = 1e-3  # of a nearly constant latent channel


@dataclass(frozen=True)
class EncodedEpisode:
    """
    A recording by latent frames: frame 0 is the first image, frame f the four that end at 4 f.

    :param latents: [C, F, h, w] float32, not normalized; views side by side.
    :param commands: [(F - 1) * 4, J] float32, rad and m; those of frame f from 4 (f - 1) on.
    :param events: [F] int64, number of events until each frame's last image.
    :param places: [F, bodies, 3] float32, positions of `bodies` at that image, world frame, m.
    """

    task: str
    seed: int
    latents: np.ndarray
    commands: np.ndarray
    events: np.ndarray
    places: np.ndarray
    bodies: list[str]


def _stream(vae: VideoVae, images: np.ndarray, frames: int) -> np.ndarray:
    """
    Encode one image of each view, then four for each further frame, as a new stream.

    :param images: uint8 [V, 1 + 4 (frames - 1), H, W, 3] or more.
    :returns: [C, frames, h, w] float32, views side by side, not normalized.
    """
    cache: list = [None] * vae.caches
    latents = []
    for frame in range(frames):
        span = slice(max(0, (frame - 1) * IMAGES_PER_FRAME + 1), frame * IMAGES_PER_FRAME + 1)
        pixels = torch.from_numpy(images[:, span]).permute(0, 4, 1, 2, 3).float() / 255 * 2 - 1
        encoded = vae.encode(pixels, cache).float().chunk(2, 1)[0]
        latents.append(join_latents(SIDE_BY_SIDE, [encoded]))
    return torch.cat(latents, 2)[0].numpy()


def _frames_of(recording: Recording) -> int:
    return 1 + len(recording.commands) // IMAGES_PER_FRAME


@torch.inference_mode()
def encode_pairs(
    vae: VideoVae, recording: Recording, cameras: Sequence[str], chunk_frames: int,
) -> np.ndarray:
    """
    Encode each two consecutive chunks of L frames as a separate stream.

    A stream begins with the image before its pair, or with the episode. Its latents then contain
    no older images, which the causal caches of a longer stream would add.

    :returns: [chunks - 1, C, 2 L, h, w] float32, as the encoder gives them, not normalized.
    """
    images = np.stack([recording.images[name] for name in cameras])  # [V, T + 1, H, W, 3]
    pairs, length = [], 2 * chunk_frames
    for first in range(0, _frames_of(recording) - length + 1, chunk_frames):
        before = max(0, first - 1)
        latents = _stream(
            vae, images[:, IMAGES_PER_FRAME * before:], length + first - before)
        pairs.append(latents[:, first - before:])
    return np.stack(pairs)


@torch.inference_mode()
def encode(vae: VideoVae, recording: Recording, cameras: Sequence[str]) -> EncodedEpisode:
    """Encode a recording as one stream, as in closed loop."""
    frames = _frames_of(recording)
    images = np.stack([recording.images[name] for name in cameras])  # [V, T + 1, H, W, 3]
    latents = _stream(vae, images, frames)
    bodies = sorted(recording.places)
    last = np.arange(frames) * IMAGES_PER_FRAME
    return EncodedEpisode(
        recording.task, recording.seed, latents,
        recording.commands[:(frames - 1) * IMAGES_PER_FRAME],
        recording.events[last].astype(np.int64),
        np.stack([recording.places[name][last] for name in bodies], 1), bodies)


def encoder_identity(folder: Path) -> str:
    """Return a short hash of the encoder's weights in a vae/ folder, without the decoder."""
    digest = hashlib.sha256()
    files = weight_files(folder)
    for name, tensor, _path in read_tensors(files, torch.device('cpu')):
        if name.startswith(ENCODER):
            digest.update(name.encode())
            digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def encode_missing(
    vae: VideoVae, recordings: Iterable[Path], folder: Path, cameras: Sequence[str],
) -> Iterator[Path]:
    """Encode the recordings that have no file in `folder` yet; yield each file when written."""
    for source in recordings:
        path = folder / source.parent.name / source.name
        if path.is_file():
            continue
        episode = encode(vae, load_recording(source), cameras)
        about = {'task': episode.task, 'seed': episode.seed, 'bodies': episode.bodies}
        with atomic_file(path) as unfinished, open(unfinished, 'wb') as file:
            np.savez(file, latents=episode.latents, commands=episode.commands,
                     events=episode.events, places=episode.places,
                     about=np.frombuffer(json.dumps(about).encode(), np.uint8))
        yield path


def pairs_path(folder: Path, recording: Path, chunk_frames: int) -> Path:
    """Return the path of the latents of a recording's pairs of chunks."""
    name = f'{recording.stem}.pairs_{chunk_frames}.npy'
    return folder / recording.parent.name / name


def encode_missing_pairs(
    vae: VideoVae, recordings: Iterable[Path], folder: Path, cameras: Sequence[str],
    chunk_frames: int,
) -> Iterator[Path]:
    """Encode the pairs of recordings that have no file yet; yield each file when written."""
    for source in recordings:
        path = pairs_path(folder, source, chunk_frames)
        if path.is_file():
            continue
        pairs = encode_pairs(vae, load_recording(source), cameras, chunk_frames)
        with atomic_file(path) as unfinished, open(unfinished, 'wb') as file:
            np.save(file, pairs)
        yield path


def load_encoded(path: Path) -> EncodedEpisode:
    """
    Read a file of `encode_missing`.

    :raises ValueError: the file is damaged or of another kind; the message names it.
    """
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        return EncodedEpisode(**json.loads(arrays.pop('about').tobytes()), **arrays)
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise ValueError(f'{path} does not hold an encoded episode: {error}') from None


def write_latent_statistics(folder: Path, episodes: Sequence[EncodedEpisode]) -> None:
    """Write the mean and deviation of each channel of these latents into a vae/config.json."""
    numbers = np.concatenate([each.latents.reshape(len(each.latents), -1) for each in episodes], 1)
    path = folder / 'config.json'
    config = read_json_object(path)
    config['latents_mean'] = numbers.mean(1, dtype=np.float64).tolist()
    config['latents_std'] = np.maximum(
        numbers.std(1, dtype=np.float64), MIN_DEVIATION).tolist()
    write_text(path, json.dumps(config, indent=2))


def normalize_latents(latents: np.ndarray, vae: VideoVae) -> Tensor:
    """Return latents [C, F, h, w] as the transformer sees them, float32."""
    return (torch.from_numpy(latents) - vae.mean[0].cpu()) / vae.deviation[0].cpu()
