"""
Runs the stages of a training run in one folder; each stage resumes where it was stopped.

    data/<task>/<seed>.npz            recordings of the experts
    codec/vae/                        the video VAE; encoder.pt and decoder.pt are its states
    text/text_encoder/ tokenizer/
    latents/<hash>/<task>/<seed>.npz  encoded recordings, by encoder; …pairs_L.npy for the baseline
    probe.json                        errors of a linear probe of the latents
    policy.yaml                       the policy file with the quantiles of the data
    initial/                          the transformer that the run began with, if any
    network.pt                        the transformer, its EMA weights and its optimizer
    check/                            the newest checkpoint that was checked in closed loop
    log.jsonl loss.png imagined/
    notes.md                          written by the user; goes into the model card
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
import time
from typing import Any

import numpy as np
import torch
import yaml

from lingbot_va_ros.evaluation.rollout import run_episode
from lingbot_va_ros.policy.inference.engine import Engine
from lingbot_va_ros.policy.inference.load import EngineConfig, load_engine
from lingbot_va_ros.specs.policy_file import load_policy_file, PolicyFile
from lingbot_va_ros.training.episode_files import load_recording
from lingbot_va_ros.training.examples import Examples, frame_counts
from lingbot_va_ros.training.export import export_checkpoint
from lingbot_va_ros.training.model_card import FIRST_CHECK_SEED, make_model_card, read_log
from lingbot_va_ros.training.monitoring import plot_losses, predicted_beside_recorded, write_png
from lingbot_va_ros.training.network import network_config
from lingbot_va_ros.training.process_group import ProcessGroup
from lingbot_va_ros.training.run_folder import CPU, RunFolder
from lingbot_va_ros.training.settings import TrainingSettings
from lingbot_va_ros.training.stages.data import record_data
from lingbot_va_ros.training.stages.latents import (
    encode_chunk_pairs,
    encode_recordings,
    load_examples,
)
from lingbot_va_ros.training.stages.video_vae import train_vae_decoder, train_vae_encoder
from lingbot_va_ros.training.state import Stop
from lingbot_va_ros.training.trainer import FULL, LAST_CHUNK, Trainer

STAGES = ('data', 'encoder', 'latents', 'network', 'decoder')
PREDICTED_CHUNKS = 12  # of a held-out recording, in an image of a closed-loop check


@dataclass(frozen=True)
class ClosedLoopCheck:
    """
    The schedule of closed-loop checks of the network in training.

    :param every: seconds between two checks; 0 for never.
    :param episodes: episodes of each task in a check.
    """

    every: float = 0.0
    episodes: int = 4


class TrainingRun:
    """
    The stages of a training run in one folder.

    A stage returns whether it is done, which is false after `stop`. Parameters: see `RunFolder`.

    :raises PolicyFileError: the settings' policy file cannot be used.
    """

    def __init__(
        self, folder: Path, settings: TrainingSettings, group: ProcessGroup,
        say: Callable[[str], None], note: Callable[[dict[str, Any]], None], stop: Stop,
        history: str = FULL,
    ):
        self.run = RunFolder(folder, settings, group, say, note, stop, history)

    def begin_from(self, checkpoint: Path) -> None:
        """
        Copy video VAE, text encoder, policy file and weights of a checkpoint to begin with.

        :raises ValueError: the folder belongs to another run, or the checkpoint lacks a part.
        """
        self.run.begin_from(checkpoint)

    @property
    def policy(self) -> PolicyFile:
        """Return the policy file with the quantiles of the data."""
        return self.run.policy

    # --- stages

    def data(self, processes: int = 1) -> bool:
        """Record the missing episodes."""
        return record_data(self.run, processes)

    def encoder(self) -> bool:
        """Train the encoder of the video VAE."""
        return train_vae_encoder(self.run)

    def latents(self) -> bool:
        """Encode the recordings; write latent statistics, quantiles and the text encoder."""
        return encode_recordings(self.run)

    def network(
        self, closed_loop: ClosedLoopCheck = ClosedLoopCheck(), bf16: bool = False,
    ) -> bool:
        """Train the transformer; `bf16` computes matrix products in bfloat16 (autocast)."""
        run = self.run
        if run.history == LAST_CHUNK and not encode_chunk_pairs(run):
            return False
        trainer = self.trainer(bf16)
        checked = time.monotonic()

        def check_is_due() -> bool:
            return closed_loop.every > 0 and time.monotonic() - checked > closed_loop.every

        while not trainer.done and not run.group.any(run.stop()):
            trainer.run(
                lambda: run.stop() or check_is_due(),
                lambda figures: run.report({'stage': 'network', **figures}))
            if closed_loop.every and (trainer.done or run.group.any(check_is_due())):
                self.check(trainer, closed_loop.episodes)
                checked = time.monotonic()
        if run.group.is_main:
            plot_losses(read_log(run.log), run.own / 'loss.png')
        return trainer.done

    def decoder(self) -> bool:
        """Train the decoder of the video VAE, for predicted video."""
        return train_vae_decoder(self.run)

    # --- pieces of the stage network

    def examples(self) -> Examples:
        """Return the episodes to train on, in the form of the network's inputs."""
        return load_examples(self.run)

    def trainer(self, bf16: bool = False) -> Trainer:
        """
        Return the network in training, in its newest state.

        :raises ValueError: the training never has chunks of the policy's length.
        """
        run, policy = self.run, self.policy
        if policy.frames_per_chunk > run.settings.training.draw.chunk_frames[1]:
            raise ValueError(
                f'policy {policy.name} has chunks of {policy.frames_per_chunk} frames; '
                'training.draw.chunk_frames never draws them')
        examples = self.examples()
        run.report({'stage': 'examples', **frame_counts(examples)})
        # A baseline without memory must not start from weights that were trained with one.
        further = run.history == FULL and run.initial.is_dir()
        return Trainer(
            run.settings, examples, run.own / 'network.pt', run.group, run.history,
            policy.frames_per_chunk, bf16, run.initial if further else None)

    def check(self, trainer: Trainer, episodes: int) -> None:
        """Check the EMA weights in closed loop and on video; all processes must call this."""
        run = self.run
        weights = trainer.ema_weights()
        if not run.group.is_main:
            run.group.barrier()
            return
        folder = run.own / 'check'
        self.write_checkpoint(folder, weights, trainer.step)
        engine = self.engine(folder)
        for task in run.settings.tasks:
            results = [run_episode(engine, task, FIRST_CHECK_SEED + number)
                       for number in range(episodes)]
            counts = Counter(
                ' '.join(f'{name} {count}' for name, count in each.counts.items())
                for each in results)
            run.report({
                'stage': 'check', 'step': trainer.step, 'task': task, 'episodes': episodes,
                'successes': sum(each.success for each in results), 'counts': dict(counts),
                'ended_by': dict(Counter(each.ended_by for each in results)),
                'inference_seconds': float(np.median(
                    [second for each in results for second in each.inference_seconds]))})
        self._write_predicted_video(engine, trainer.step)
        plot_losses(read_log(run.log), run.own / 'loss.png')
        run.group.barrier()

    def engine(self, folder: Path) -> Engine:
        """Load a checkpoint of this run by the loader of all checkpoints."""
        policy = load_policy_file(folder / 'policy.yaml')
        return load_engine(EngineConfig.of_policy(
            folder, policy, self.run.settings.seed, CPU, torch.float32, warm_up=False))

    def write_checkpoint(
        self, folder: Path, weights: dict[str, torch.Tensor], step: int,
        command: str | None = None,
    ) -> int:
        """Write a checkpoint folder and return its size in bytes."""
        run = self.run
        policy = yaml.safe_load(run.policy_file.read_text())
        return export_checkpoint(
            folder, network_config(run.settings), weights, run.vae, run.folder / 'text', policy,
            make_model_card(run, step, command).text())

    def _write_predicted_video(self, engine: Engine, step: int) -> None:
        run = self.run
        actions = run.action_map(run.policy_file)
        for task, words in run.settings.tasks.items():
            paths = run.held_out_recordings(task)
            if paths:
                write_png(
                    run.own / 'imagined' / f'{task}_{step:06d}.png', predicted_beside_recorded(
                        engine, load_recording(paths[0]), words[0], actions, PREDICTED_CHUNKS))
