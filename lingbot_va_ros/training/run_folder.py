"""The folder of a training run: the paths of its parts, and the results that stages share."""

from collections.abc import Callable, Sequence
import json
from pathlib import Path
import shutil
import time
from typing import Any

import numpy as np
import torch

from lingbot_va_ros.model.video_vae import load_video_vae, VideoVae
from lingbot_va_ros.robot.action_map import ActionMap, make_action_map
from lingbot_va_ros.sim.simulation import EMBODIMENTS
from lingbot_va_ros.specs.embodiment import load_embodiment
from lingbot_va_ros.specs.policy_file import find_policy_file, load_policy_file, PolicyFile
from lingbot_va_ros.training.expert_recording import recording_path
from lingbot_va_ros.training.export import CHECKPOINT_PARTS
from lingbot_va_ros.training.latents import (
    EncodedEpisode,
    encoder_identity,
    load_encoded,
    pairs_path,
)
from lingbot_va_ros.training.network import load_initial_network
from lingbot_va_ros.training.process_group import ProcessGroup
from lingbot_va_ros.training.settings import TrainingSettings
from lingbot_va_ros.training.state import Stop
from lingbot_va_ros.training.trainer import FULL

CPU = torch.device('cpu')


class MissingStage(ValueError):
    """A stage needs the result of an earlier one; the message names the stage to run first."""


class RunFolder:
    """
    One folder, one settings file, one kind of history; `pipeline` lists the folder's contents.

    :param say: prints a line.
    :param note: receives figures for the progress display; the log has them too.
    :param stop: called between steps; once it returns true, the stage saves its state and ends.
    :raises PolicyFileError: the settings' policy file cannot be used.
    """

    def __init__(
        self, folder: Path, settings: TrainingSettings, group: ProcessGroup,
        say: Callable[[str], None], note: Callable[[dict[str, Any]], None], stop: Stop,
        history: str = FULL,
    ):
        self.folder, self.settings, self.group = Path(folder), settings, group
        self.say, self.stop, self.history = say, stop, history
        self._note = note
        self.template = find_policy_file(settings.policy, self.folder)
        template = load_policy_file(self.template)
        self.cameras, self.size = template.cameras, template.height
        # A baseline has a separate network, log and images, and shares all other files.
        self.own = self.folder if history == FULL else self.folder / history
        self.log = self.own / 'log.jsonl'

    @property
    def data(self) -> Path:
        """Return the folder of the recordings."""
        return self.folder / 'data'

    @property
    def initial(self) -> Path:
        """Return the folder of the transformer that the run began with; may not exist."""
        return self.folder / 'initial'

    @property
    def vae(self) -> Path:
        """Return the folder of the video VAE."""
        return self.folder / 'codec' / 'vae'

    @property
    def policy_file(self) -> Path:
        """Return the path of the policy file with the quantiles of the data; may not exist."""
        return self.folder / 'policy.yaml'

    @property
    def policy(self) -> PolicyFile:
        """
        Return the policy file with the quantiles of the data.

        :raises MissingStage: it has not been written yet.
        """
        if not self.policy_file.is_file():
            raise MissingStage(f'{self.policy_file} does not exist: run the stage latents first')
        return load_policy_file(self.policy_file)

    def begin_from(self, checkpoint: Path) -> None:
        """
        Copy video VAE, text encoder, policy file and weights of a checkpoint to begin with.

        :raises ValueError: the folder belongs to another run, or the checkpoint lacks a part.
        """
        if self.initial.is_dir():
            return
        if self.vae.is_dir() or self.policy_file.is_file():
            raise ValueError(
                f'{self.folder} belongs to a run without {checkpoint}: use another folder')
        missing = [name for name in (*CHECKPOINT_PARTS, 'policy.yaml')
                   if not (checkpoint / name).exists()]
        if missing:
            raise ValueError(f'{checkpoint} has no {", ".join(missing)}')
        load_initial_network(checkpoint / 'transformer', self.settings)
        shutil.copytree(checkpoint / 'vae', self.vae)
        for part in ('text_encoder', 'tokenizer'):
            shutil.copytree(checkpoint / part, self.folder / 'text' / part)
        shutil.copy(checkpoint / 'policy.yaml', self.policy_file)
        shutil.copytree(checkpoint / 'transformer', self.initial)

    def report(self, figures: dict[str, Any]) -> None:
        """Add a line to the log and to the progress display."""
        self.own.mkdir(parents=True, exist_ok=True)
        with open(self.log, 'a') as file:
            file.write(json.dumps({'time': round(time.time(), 1), **figures}) + '\n')
        self._note(figures)

    # --- recordings

    @property
    def seeds(self) -> range:
        """Return the seeds of the episodes; the first `held_out` are not trained on."""
        first = self.settings.data.first_seed
        return range(first, first + self.settings.data.episodes)

    @property
    def first_training_seed(self) -> int:
        """Return the first seed that is trained on; those before it are held out."""
        return self.settings.data.first_seed + self.settings.data.held_out

    def recordings(self, task: str) -> list[Path]:
        """Return the recordings of a task that exist, by seed."""
        paths = [recording_path(self.data, task, seed) for seed in self.seeds]
        return [path for path in paths if path.is_file()]

    def held_out_recordings(self, task: str) -> list[Path]:
        """Return the held-out recordings of a task."""
        return [path for path in self.recordings(task)
                if int(path.stem) < self.first_training_seed]

    def training_recordings(self, task: str) -> list[Path]:
        """
        Return the recordings of a task to train on.

        :raises MissingStage: there is none.
        """
        paths = [path for path in self.recordings(task)
                 if int(path.stem) >= self.first_training_seed]
        if not paths:
            raise MissingStage(f'no recordings of {task} to train on: run the stage data')
        return paths

    def all_recordings(self) -> list[Path]:
        """
        Return the recordings of all tasks, ordered by seed.

        :raises MissingStage: there is none.
        """
        # Ordered by seed, so that any prefix has recordings of every task.
        paths = sorted(
            (path for task in self.settings.tasks for path in self.recordings(task)),
            key=lambda path: path.stem)
        if not paths:
            raise MissingStage(f'{self.data} has no recordings: run the stage data first')
        return paths

    # --- latents

    def load_video_vae(self, device: torch.device) -> VideoVae:
        """
        Return the video VAE, float32.

        :raises MissingStage: its encoder is not trained yet.
        """
        if not (self.vae / 'config.json').is_file():
            raise MissingStage(f'{self.vae} does not exist: run the stage encoder first')
        return load_video_vae(self.vae, device, torch.float32)

    @property
    def latents(self) -> Path:
        """Return the folder of the latents of this encoder."""
        return self.folder / 'latents' / encoder_identity(self.vae)

    def encoded_episodes(self) -> list[EncodedEpisode]:
        """Return all encoded episodes with a seed of these settings."""
        folder, wanted = self.latents, set(self.seeds)
        return [load_encoded(path) for task in self.settings.tasks
                for path in sorted((folder / task).glob('*.npz')) if int(path.stem) in wanted]

    def split(
        self, episodes: Sequence[EncodedEpisode],
    ) -> tuple[list[EncodedEpisode], list[EncodedEpisode]]:
        """Return the episodes to train on and those that are held out."""
        first = self.first_training_seed
        return ([each for each in episodes if each.seed >= first],
                [each for each in episodes if each.seed < first])

    def chunk_pairs(self, episode: EncodedEpisode) -> np.ndarray | None:
        """
        Return the latents of consecutive chunks without older images, for the baseline.

        :returns: [chunks - 1, C, 2 L, h, w] float32, not normalized; None with a full history.
        """
        if self.history == FULL:
            return None
        return np.load(pairs_path(
            self.latents, recording_path(self.data, episode.task, episode.seed),
            self.policy.frames_per_chunk))

    # --- text and actions

    @property
    def instructions(self) -> list[str]:
        """Return the instructions of all tasks."""
        return [text for words in self.settings.tasks.values() for text in words]

    def action_map(self, policy: Path) -> ActionMap:
        """Return the map from joints of the simulated left arm to a policy file's channels."""
        return make_action_map(load_embodiment(EMBODIMENTS['left']), load_policy_file(policy))
