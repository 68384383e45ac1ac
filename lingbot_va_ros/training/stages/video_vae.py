"""Trains the video VAE of a run: first its encoder, later its decoder."""

import numpy as np
import torch

from lingbot_va_ros.model.video_vae import AutoencoderKLWan
from lingbot_va_ros.specs.checkpoint_config import IMAGES_PER_FRAME
from lingbot_va_ros.training.episode_files import load_recording
from lingbot_va_ros.training.run_folder import RunFolder
from lingbot_va_ros.training.vae_training import (
    Footage,
    make_footage,
    reconstruction_psnr,
    train_decoder,
    train_encoder,
)

# Held-out recordings of each task on which reconstructions are measured, and their latent frames.
QUALITY_EPISODES, QUALITY_FRAMES = 4, 10


def train_vae_encoder(run: RunFolder) -> bool:
    """Train the encoder, if it is not trained yet; return whether it is done."""
    if (run.vae / 'config.json').is_file():
        return True
    return train_encoder(
        _footage(run), run.settings.codec, run.vae.parent, run.settings.seed, run.group.device,
        run.stop, lambda figures: run.report({'stage': 'encoder', **figures}))


def train_vae_decoder(run: RunFolder) -> bool:
    """Train the decoder, for predicted video; return whether it is done."""
    done = train_decoder(
        _footage(run), run.settings.codec, run.vae.parent, run.settings.seed, run.group.device,
        run.stop, lambda figures: run.report({'stage': 'decoder', **figures}))
    if done:
        run.report({'stage': 'pictures', 'decibel': _held_out_psnr(run)})
    return done


def _footage(run: RunFolder) -> list[Footage]:
    return [
        make_footage(
            [load_recording(path)
             for path in run.training_recordings(task)[:run.settings.codec.episodes]],
            run.cameras)
        for task in run.settings.tasks]


def _held_out_psnr(run: RunFolder) -> dict[str, dict[str, float]]:
    """Return per task the PSNR of reconstructions of held-out recordings, dB."""
    vae = AutoencoderKLWan.from_pretrained(
        str(run.vae), torch_dtype=torch.float32, low_cpu_mem_usage=False)
    found = {}
    for task in run.settings.tasks:
        paths = run.held_out_recordings(task)[:QUALITY_EPISODES]
        if not paths:
            continue
        recordings = [load_recording(path) for path in paths]
        shortest = min(len(each.commands) for each in recordings) // IMAGES_PER_FRAME
        clip = slice(0, 1 + IMAGES_PER_FRAME * min(QUALITY_FRAMES, shortest))
        images, marked = (
            np.stack([[getattr(each, kind)[name][clip] for name in run.cameras]
                      for each in recordings]) for kind in ('images', 'marked'))
        found[task] = dict(reconstruction_psnr(
            vae, torch.from_numpy(images).permute(0, 1, 5, 2, 3, 4).float() / 127.5 - 1,
            torch.from_numpy(marked)))
    return found
