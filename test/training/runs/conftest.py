"""Fixtures of whole training runs, with settings whose steps take milliseconds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


class Wobble:
    """An actor that swings the arm a little and is done after a few commands."""

    def __init__(self, simulation, rng):
        self.home = np.array(simulation.embodiment.home)
        self.count, self.swing, self.rate = 0, rng.uniform(-0.2, 0.2, 6), rng.uniform(0.5, 1.0)
        self.finished = False

    def act(self):
        self.count += 1
        self.finished = self.count >= 18
        command = self.home.copy()
        command[:6] += self.swing * np.sin(self.rate * self.count)
        return command


@pytest.fixture(scope='session')
def wobble():
    """Return what makes an actor for a simulation and a generator."""
    return Wobble


@pytest.fixture(scope='session')
def small_settings():
    """Return settings whose networks are as small as they can be."""
    from lingbot_va_ros.training.batch_sampling import BatchSamplingSettings
    from lingbot_va_ros.training.settings import (
        DataSettings,
        NetworkSettings,
        TextSettings,
        TrainerSettings,
        TrainingSettings,
        VideoVaeSettings,
    )

    return TrainingSettings(
        name='small', policy='tiny', seed=0, tasks={'table': ['do this', 'do that']},
        data=DataSettings(episodes=4, held_out=1, first_seed=70, idle=(0.2, 0.4), longest=5.0),
        codec=VideoVaeSettings(
            base=8, decoder_base=4, channels=4, blocks=1, episodes=3, steps=4, decoder_steps=2,
            clips=1, images=5, learning_rate=2e-3, warm_up=2, marked_weight=1.0, kl=1e-3,
            places=0.1, ema=0.9),
        text=TextSettings(dim=16, layers=1, heads=2),
        network=NetworkSettings(
            layers=2, heads=2, head_dim=24, ffn_dim=64, time_frequencies=16, action_dim=24),
        training=TrainerSettings(
            steps=12, batch=2, learning_rate=5e-3, warm_up=2, weight_decay=0.01,
            gradient_norm=1.0, ema=0.9, inverse=1.0, events=0.3, most_events=4,
            places=0.3,
            draw=BatchSamplingSettings(
                chunk_frames=(1, 2), window_chunks=(4, 8), noisy_frames=4)))


@pytest.fixture(scope='session')
def recorded(small_settings, tmp_path_factory) -> Path:
    """Return the folder of a run in which all of its data are recorded."""
    from lingbot_va_ros.training.expert_recording import record_missing, RecordingOptions

    folder = tmp_path_factory.mktemp('run')
    data = small_settings.data
    list(record_missing(
        folder / 'data', 'table', range(data.first_seed, data.first_seed + data.episodes),
        RecordingOptions(idle=data.idle, longest=data.longest), make_actor=Wobble))
    return folder


@pytest.fixture(scope='session')
def make_run(small_settings):
    """Return a function that makes the run of a folder; `noted` gets the lines of its log."""
    from lingbot_va_ros.training.pipeline import TrainingRun
    from lingbot_va_ros.training.process_group import join_process_group

    def make(folder, noted=None, stop=lambda: False, steps=None, **options):
        settings = small_settings
        if steps is not None:
            settings = replace(settings, training=replace(settings.training, steps=steps))
        return TrainingRun(
            folder, settings, join_process_group('cpu'), lambda line: None,
            (noted if noted is not None else []).append, stop, **options)
    return make


@pytest.fixture(scope='session')
def encoded(recorded, make_run) -> Path:
    """Return the folder of a run that is ready for its transformer."""
    training = make_run(recorded)
    assert training.encoder() and training.latents()
    return recorded
