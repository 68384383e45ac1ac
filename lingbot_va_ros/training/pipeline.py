"""
All of a training run in one folder, stage after stage; each goes on where it was stopped.

    data/<task>/<seed>.npz            recordings of the experts
    codec/vae/                        the video codec; encoder.pt and decoder.pt are its states
    text/text_encoder/ tokenizer/
    latents/<codec>/<task>/<seed>.npz recordings as the network sees them; …pairs_L.npy for the
                                      baseline
    probe.json                        what a linear map finds in the latents
    policy.yaml                       the policy file with the data's quantiles
    initial/                          the transformer that it began with, where there was one
    network.pt                        the transformer, its mean weights and its optimiser
    check/                            the newest checkpoint that was tried in closed loop
    log.jsonl loss.png imagined/
    notes.md                          what you write there goes into the model card
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
import json
import os
from pathlib import Path
import platform
import shutil
import time
from typing import Any

import numpy as np
import torch
import yaml

from lingbot_va_ros.atomic_files import write_text
from lingbot_va_ros.evaluation.rollout import run_episode
from lingbot_va_ros.model.text_encoder import load_text_encoder
from lingbot_va_ros.model.video_vae import AutoencoderKLWan, load_codec, VideoCodec
from lingbot_va_ros.policy.inference.engine import Engine, load_engine
from lingbot_va_ros.robot.action_map import ActionMap, make_action_map
from lingbot_va_ros.sim.simulation import EMBODIMENTS
from lingbot_va_ros.specs.checkpoint_config import IMAGES_PER_FRAME
from lingbot_va_ros.specs.embodiment import load_embodiment
from lingbot_va_ros.specs.policy_file import find_policy_file, load_policy_file, PolicyFile
from lingbot_va_ros.training.episode_files import load_recording
from lingbot_va_ros.training.examples import (
    action_quantiles,
    Example,
    Examples,
    frame_counts,
    make_example,
)
from lingbot_va_ros.training.expert_recording import (
    record_missing,
    recording_path,
    RecordingOptions,
)
from lingbot_va_ros.training.export import export_checkpoint, Facts, PARTS, read_log
from lingbot_va_ros.training.latents import (
    encode_missing,
    encode_missing_pairs,
    EncodedEpisode,
    encoder_identity,
    load_encoded,
    normalise_codec,
    pairs_path,
)
from lingbot_va_ros.training.network import network_config, trained_already
from lingbot_va_ros.training.pictures import imagined_beside_real, plot_losses, write_png
from lingbot_va_ros.training.probe import probe_lines, probe_places
from lingbot_va_ros.training.process_group import World
from lingbot_va_ros.training.settings import TrainingSettings
from lingbot_va_ros.training.small_text_encoder import write_text_encoder
from lingbot_va_ros.training.state import Stop
from lingbot_va_ros.training.trainer import FULL, LAST_CHUNK, LAST_CHUNK_PIECES, Trainer
from lingbot_va_ros.training.vae_training import (
    footage_of,
    picture_quality,
    train_decoder,
    train_encoder,
)

STAGES = ('data', 'encoder', 'latents', 'network', 'decoder')
CPU = torch.device('cpu')
# Held-out recordings of each task that reconstructions are judged on, and latent frames of each.
QUALITY_EPISODES, QUALITY_FRAMES = 4, 10
IMAGINED_CHUNKS = 12
FIRST_CHECK_SEED = 0  # of the scenes that are tried while training; never those trained on


class MissingStage(ValueError):
    """What a stage needs is not there; the message names the stage that makes it."""


@dataclass(frozen=True)
class Watching:
    """
    How a run is watched.

    :param every: seconds between two looks at the network in closed loop; 0 for never.
    :param episodes: of each task in such a look.
    """

    every: float = 0.0
    episodes: int = 4


class TrainingRun:
    """
    One folder, one file of settings, one kind of history.

    :param say: takes a line for people.
    :param note: takes the figures of a moment, for the progress display; the log has them too.
    :param stop: asked between steps; once true, everything is saved and the stage ends.
    :raises PolicyFileError: the settings' policy file cannot be used.
    """

    def __init__(
        self, folder: Path, settings: TrainingSettings, world: World, say: Callable[[str], None],
        note: Callable[[dict[str, Any]], None], stop: Stop, history: str = FULL,
    ):
        self.folder, self.settings, self.world = Path(folder), settings, world
        self.say, self.stop, self.history = say, stop, history
        self._note = note
        self._template = find_policy_file(settings.policy, self.folder)
        self.cameras = load_policy_file(self._template).cameras
        self.size = load_policy_file(self._template).height
        # A baseline has its own network, log and pictures; it shares everything else.
        self.own = self.folder if history == FULL else self.folder / history
        self.log = self.own / 'log.jsonl'

    def begin_from(self, checkpoint: Path) -> None:
        """
        Take codec, text encoder, policy file and weights of a checkpoint to begin with.

        :raises ValueError: the folder has begun otherwise, or the checkpoint lacks a part.
        """
        if self.initial.is_dir():
            return
        if self.vae.is_dir() or (self.folder / 'policy.yaml').is_file():
            raise ValueError(f'{self.folder} has begun without {checkpoint}: take another folder')
        missing = [name for name in (*PARTS, 'policy.yaml') if not (checkpoint / name).exists()]
        if missing:
            raise ValueError(f'{checkpoint} has no {", ".join(missing)}')
        trained_already(checkpoint / 'transformer', self.settings)
        shutil.copytree(checkpoint / 'vae', self.vae)
        for part in ('text_encoder', 'tokenizer'):
            shutil.copytree(checkpoint / part, self.folder / 'text' / part)
        shutil.copy(checkpoint / 'policy.yaml', self.folder / 'policy.yaml')
        shutil.copytree(checkpoint / 'transformer', self.initial)

    # --- stages

    def data(self, processes: int = 1) -> bool:
        """Record what is missing; return whether all recordings are there."""
        data = self.settings.data
        options = RecordingOptions(self.cameras, self.size, data.idle, data.longest)
        for task in self.settings.tasks:
            done = len(self._recordings(task))
            for _ in record_missing(
                    self.folder / 'data', task, self._seeds(), options, processes):
                done += 1
                self.report({'stage': 'data', 'task': task, 'step': done, 'steps': data.episodes})
                if self.stop():
                    return False
        return True

    def encoder(self) -> bool:
        """Train the codec's encoder; return whether it is done."""
        if not (self.vae / 'config.json').is_file():
            done = train_encoder(
                self._footage(), self.settings.codec, self.folder / 'codec', self.settings.seed,
                self.world.device, self.stop,
                lambda figures: self.report({'stage': 'encoder', **figures}))
            if not done:
                return False
        return True

    def latents(self) -> bool:
        """Encode recordings, normalise the codec, take the quantiles, write the text encoder."""
        codec = self._codec(self.world.device)
        for number, _ in enumerate(encode_missing(
                codec, self._all_recordings(), self._latents_folder(), self.cameras)):
            self.report({'stage': 'latents', 'step': number + 1})
            if self.stop():
                return False
        episodes = self._encoded()
        training, held_out = self._split(episodes)
        if not (self.folder / 'policy.yaml').is_file():
            # Once: a network that is trained already has learned with these numbers.
            normalise_codec(self.vae, training)
            q01, q99 = action_quantiles(training, self._actions(self._template))
            policy = {**yaml.safe_load(self._template.read_text()),
                      'quantiles': {'q01': q01, 'q99': q99}}
            write_text_encoder(
                self.folder / 'text', self._instructions(), self.settings.text,
                self.settings.seed)
            write_text(self.folder / 'policy.yaml', yaml.safe_dump(policy, sort_keys=False))
        if held_out and training:
            found = probe_places(training, held_out)
            write_text(self.folder / 'probe.json', json.dumps(found, indent=2))
            for line in probe_lines(found):
                self.say(line)
            self.report({'stage': 'probe', 'mm': found})
        return True

    def network(self, watching: Watching = Watching(), half: bool = False) -> bool:
        """Train the transformer; return whether it is done."""
        if self.history == LAST_CHUNK and not self._pairs():
            return False
        trainer = self.trainer(half)
        looked = time.monotonic()
        while not trainer.done and not self.world.any(self.stop()):
            def time_to_look() -> bool:
                return watching.every > 0 and time.monotonic() - looked > watching.every

            trainer.run(
                lambda: self.stop() or time_to_look(),
                lambda figures: self.report({'stage': 'network', **figures}))
            if watching.every and (trainer.done or self.world.any(time_to_look())):
                self.check(trainer, watching.episodes)
                looked = time.monotonic()
        if self.world.first:
            plot_losses(read_log(self.log), self.own / 'loss.png')
        return trainer.done

    def decoder(self) -> bool:
        """Train the codec's decoder, for imagined video; return whether it is done."""
        done = train_decoder(
            self._footage(), self.settings.codec, self.folder / 'codec', self.settings.seed,
            self.world.device, self.stop,
            lambda figures: self.report({'stage': 'decoder', **figures}))
        if done:
            self.report({'stage': 'pictures', 'decibel': self._picture_quality()})
        return done

    # --- what stages share

    @property
    def initial(self) -> Path:
        """The transformer that this run began with, where it is a checkpoint's."""
        return self.folder / 'initial'

    @property
    def vae(self) -> Path:
        """The codec's folder."""
        return self.folder / 'codec' / 'vae'

    @property
    def policy(self) -> PolicyFile:
        """The policy file with the data's quantiles."""
        path = self.folder / 'policy.yaml'
        if not path.is_file():
            raise MissingStage(f'{path} is not there: run the stage latents first')
        return load_policy_file(path)

    def report(self, figures: dict[str, Any]) -> None:
        """Add a line to the log and to the progress display."""
        self.own.mkdir(parents=True, exist_ok=True)
        with open(self.log, 'a') as file:
            file.write(json.dumps({'time': round(time.time(), 1), **figures}) + '\n')
        self._note(figures)

    def trainer(self, half: bool = False) -> Trainer:
        """Return the network in training, in its newest state."""
        policy = self.policy
        if policy.frames_per_chunk > self.settings.training.draw.chunk_frames[1]:
            raise ValueError(
                f'policy {policy.name} has chunks of {policy.frames_per_chunk} frames; '
                'training.draw.chunk_frames never draws them')
        examples = self.examples()
        self.report({'stage': 'examples', **frame_counts(examples)})
        # Weights that have learned with a memory would make no baseline without one.
        further = self.history == FULL and self.initial.is_dir()
        return Trainer(
            self.settings, examples, self.own / 'network.pt', self.world, self.history,
            policy.frames_per_chunk, half, self.initial if further else None)

    def examples(self) -> Examples:
        """Return the episodes to train on, as the network sees them."""
        policy, codec = self.policy, self._codec(CPU)
        actions = self._actions(self.folder / 'policy.yaml')
        training, _ = self._split(self._encoded())
        if not training:
            raise MissingStage('there are no encoded episodes: run the stage latents first')
        texts = self._instructions()
        numbers = {task: [texts.index(text) for text in words]
                   for task, words in self.settings.tasks.items()}
        bodies = sorted({name for each in training for name in each.bodies})
        episodes: list[Example] = [
            make_example(
                each, codec, policy, actions, numbers[each.task], bodies, self._pairs_of(each))
            for each in training]
        encoder = load_text_encoder(self.folder / 'text', CPU, torch.float32)
        embeddings = []
        for text in texts:
            rows = encoder.encode(text)[0]
            embeddings.append(rows[:int(rows.ne(0).any(-1).sum())].clone())
        return Examples(episodes, embeddings, policy.used_channels)

    def _pairs(self) -> bool:
        """Encode the chunks of the baseline without their past; return whether all are there."""
        if self.world.first:
            codec = self._codec(self.world.device)
            for number, _ in enumerate(encode_missing_pairs(
                    codec, self._all_recordings(), self._latents_folder(), self.cameras,
                    self.policy.frames_per_chunk)):
                self.report({'stage': 'pairs', 'step': number + 1})
                if self.stop():
                    break
        self.world.wait()
        return not self.world.any(self.stop())

    def check(self, trainer: Trainer, episodes: int) -> None:
        """Try the mean weights in closed loop, and let them imagine; all processes must call."""
        weights = trainer.mean_weights()
        if not self.world.first:
            self.world.wait()
            return
        folder = self.own / 'check'
        self.write_checkpoint(folder, weights, trainer.step)
        engine = self.engine(folder)
        for task in self.settings.tasks:
            results = [run_episode(engine, task, FIRST_CHECK_SEED + number)
                       for number in range(episodes)]
            counts = Counter(
                ' '.join(f'{name} {count}' for name, count in each.counts.items())
                for each in results)
            self.report({
                'stage': 'check', 'step': trainer.step, 'task': task, 'episodes': episodes,
                'successes': sum(each.success for each in results), 'counts': dict(counts),
                'ended_by': dict(Counter(each.ended_by for each in results)),
                'inference_seconds': float(np.median(
                    [second for each in results for second in each.inference_seconds]))})
        self._imagine(engine, trainer.step)
        plot_losses(read_log(self.log), self.own / 'loss.png')
        self.world.wait()

    def engine(self, folder: Path) -> Engine:
        """Load a checkpoint of this run by the path that every other checkpoint takes."""
        policy = load_policy_file(folder / 'policy.yaml')
        return load_engine(
            folder, policy, policy.video, policy.action, policy.memory_chunks,
            self.settings.seed, CPU, torch.float32, lambda _line: None, warm_up=False)

    def write_checkpoint(
        self, folder: Path, weights: dict[str, torch.Tensor], step: int,
        command: str | None = None,
    ) -> int:
        """Write a checkpoint folder and return its size in bytes."""
        policy = yaml.safe_load((self.folder / 'policy.yaml').read_text())
        return export_checkpoint(
            folder, network_config(self.settings), weights, self.vae, self.folder / 'text',
            policy, self._facts(step, command))

    # --- pieces

    def _seeds(self) -> range:
        first = self.settings.data.first_seed
        return range(first, first + self.settings.data.episodes)

    def _recordings(self, task: str) -> list[Path]:
        paths = [recording_path(self.folder / 'data', task, seed) for seed in self._seeds()]
        return [path for path in paths if path.is_file()]

    def _all_recordings(self) -> list[Path]:
        # By seed, so that a part of them is a part of every task.
        paths = sorted(
            (path for task in self.settings.tasks for path in self._recordings(task)),
            key=lambda path: path.stem)
        if not paths:
            raise MissingStage(f'{self.folder}/data has no recordings: run the stage data first')
        return paths

    def _footage(self) -> list:
        first = self.settings.data.first_seed + self.settings.data.held_out
        footage = []
        for task in self.settings.tasks:
            paths = [path for path in self._recordings(task) if int(path.stem) >= first]
            if not paths:
                raise MissingStage(f'no recordings of {task} to train on: run the stage data')
            footage.append(footage_of(
                [load_recording(path) for path in paths[:self.settings.codec.episodes]],
                self.cameras))
        return footage

    def _codec(self, device: torch.device) -> VideoCodec:
        if not (self.vae / 'config.json').is_file():
            raise MissingStage(f'{self.vae} is not there: run the stage encoder first')
        return load_codec(self.vae, device, torch.float32)

    def _latents_folder(self) -> Path:
        return self.folder / 'latents' / encoder_identity(self.vae)

    def _encoded(self) -> list[EncodedEpisode]:
        folder = self._latents_folder()
        wanted = set(self._seeds())
        return [load_encoded(path) for task in self.settings.tasks
                for path in sorted((folder / task).glob('*.npz')) if int(path.stem) in wanted]

    def _pairs_of(self, episode: EncodedEpisode) -> np.ndarray | None:
        if self.history == FULL:
            return None
        return np.load(pairs_path(
            self._latents_folder(), recording_path(
                self.folder / 'data', episode.task, episode.seed), self.policy.frames_per_chunk))

    def _split(
        self, episodes: Sequence[EncodedEpisode],
    ) -> tuple[list[EncodedEpisode], list[EncodedEpisode]]:
        first = self.settings.data.first_seed + self.settings.data.held_out
        return ([each for each in episodes if each.seed >= first],
                [each for each in episodes if each.seed < first])

    def _instructions(self) -> list[str]:
        return [text for words in self.settings.tasks.values() for text in words]

    def _actions(self, policy: Path) -> ActionMap:
        return make_action_map(
            load_embodiment(EMBODIMENTS['left']), load_policy_file(policy))

    def _held_out(self, task: str) -> list[Path]:
        first = self.settings.data.first_seed + self.settings.data.held_out
        return [path for path in self._recordings(task) if int(path.stem) < first]

    def _picture_quality(self) -> dict[str, dict[str, float]]:
        vae = AutoencoderKLWan.from_pretrained(
            str(self.vae), torch_dtype=torch.float32, low_cpu_mem_usage=False)
        found = {}
        for task in self.settings.tasks:
            paths = self._held_out(task)[:QUALITY_EPISODES]
            if not paths:
                continue
            recordings = [load_recording(path) for path in paths]
            shortest = min(len(each.commands) for each in recordings) // IMAGES_PER_FRAME
            clip = slice(0, 1 + IMAGES_PER_FRAME * min(QUALITY_FRAMES, shortest))
            images, marked = (
                np.stack([[getattr(each, kind)[name][clip] for name in self.cameras]
                          for each in recordings]) for kind in ('images', 'marked'))
            found[task] = dict(picture_quality(
                vae, torch.from_numpy(images).permute(0, 1, 5, 2, 3, 4).float() / 127.5 - 1,
                torch.from_numpy(marked)))
        return found

    def _imagine(self, engine: Engine, step: int) -> None:
        actions = make_action_map(load_embodiment(EMBODIMENTS['left']), engine.policy)
        for task, words in self.settings.tasks.items():
            paths = self._held_out(task)
            if paths:
                write_png(
                    self.own / 'imagined' / f'{task}_{step:06d}.png', imagined_beside_real(
                        engine, load_recording(paths[0]), words[0], actions, IMAGINED_CHUNKS))

    def _facts(self, step: int, command: str | None) -> Facts:
        settings, log = self.settings, read_log(self.log)
        newest = {line['stage']: line for line in read_log(self.folder / 'log.jsonl')}
        data = settings.data
        trained_on = next(
            (line for line in reversed(log) if line['stage'] == 'examples'), {})
        trained = [line for line in log if line['stage'] == 'network']
        whole = self.history == FULL
        pieces = ('episodes' if whole
                  else f'times {LAST_CHUNK_PIECES} pairs of neighbouring chunks')
        begin = 'weights, codec' if whole else 'codec'
        rows = {
            'Data': f'{trained_on.get("episodes", 0)} episodes ({trained_on.get("frames", 0)} '
            f'latent frames) of {" and ".join(settings.tasks)} by scripted experts, seeds from '
            f'{data.first_seed} on; the first {data.held_out} of each were held out',
            **({'Began with': f'the {begin} and text encoder of an earlier checkpoint'}
               if self.initial.is_dir() else {}),
            'Network': f'mixture of transformers, {settings.network.layers} layers, video '
            f'{settings.network.heads * settings.network.head_dim} wide, actions '
            f'{settings.network.action_dim or "in the same stream"}',
            'Steps': f'{step} of {settings.training.batch} {pieces}, seed {settings.seed}, mean '
            f'weights (decay {settings.training.ema:g})',
            'Memory in training': 'the whole episode' if whole
            else 'the last chunk alone (a baseline)',
            'Auxiliary losses': _auxiliary_losses(settings),
            'Hardware': f'{self.world.size} x {_hardware(self.world.device)}',
            'Weights': 'transformer and text encoder float32, codec bfloat16',
        }
        if trained:
            rows['Time'] = f'{_training_seconds(log) / 60:.0f} min in steps of the transformer'
            rows['Losses at the end'] = _last_losses(trained)
        if 'probe' in newest:
            rows['Linear probe of the latents, held-out episodes'] = '; '.join(
                f'{task}: ' + ', '.join(f'{body} {error:.1f} mm' for body, error in found.items())
                for task, found in newest['probe']['mm'].items())
        if 'pictures' in newest:
            rows['Reconstruction, held-out episodes'] = '; '.join(
                f'{task}: {found["all"]:.1f} dB, marked pixels {found["marked"]:.1f} dB'
                for task, found in newest['pictures']['decibel'].items())
        notes = self.own / 'notes.md'
        checks = [line for line in log if line['stage'] == 'check' and line['step'] == step]
        return Facts(
            settings.name + ('' if self.history == FULL else f' ({LAST_CHUNK})'),
            command or 'lingbot_va train', rows, settings_text(settings), tuple(
                f'- {line["task"]}, in process, schedule sync: {line["successes"]} of '
                f'{line["episodes"]} (seeds from {FIRST_CHECK_SEED} on; counts: '
                + '; '.join(f'{count} x {what}' for what, count in line['counts'].items()) + ')'
                for line in checks),
            notes.read_text() if notes.is_file() else '')


def with_steps(settings: TrainingSettings, steps: int | None) -> TrainingSettings:
    """Return settings with another number of steps of the transformer; None changes nothing."""
    if steps is None:
        return settings
    return replace(settings, training=replace(settings.training, steps=steps))


def settings_text(settings: TrainingSettings) -> str:
    """Return the settings as YAML."""
    return yaml.safe_dump(json.loads(json.dumps(asdict(settings))), sort_keys=False)


def _auxiliary_losses(settings: TrainingSettings) -> str:
    there = [f'{what}, weight {weight:g}' for what, weight in (
        ('the number of events so far', settings.training.events),
        ('where the bodies are', settings.training.places)) if weight]
    if not there:
        return 'none'
    return f'{" and ".join(there)}; their heads take no part in inference and are not in the files'


def _training_seconds(log: Sequence[dict[str, Any]]) -> float:
    lines = [line for line in log if line['stage'] == 'network' and 'seconds_per_step' in line]
    total, before = 0.0, 0
    for line in lines:
        total += line['seconds_per_step'] * max(0, line['step'] - before)
        before = line['step']
    return total


def _last_losses(lines: Sequence[dict[str, Any]]) -> str:
    found = []
    for name in ('dynamics', 'forward_dynamics', 'inverse', 'events', 'places'):
        values = [line[name] for line in lines[-20:] if name in line]
        if values:
            found.append(f'{name.replace("_", " ")} {np.mean(values):.4f}')
    return ', '.join(found)


def _hardware(device: torch.device) -> str:
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    try:
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                name = line.partition(':')[2].strip()
                break
    except OSError:
        pass
    return f'CPU ({name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads)'
