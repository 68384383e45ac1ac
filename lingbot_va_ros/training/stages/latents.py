"""Encodes the recordings of a run once, and writes statistics and files derived from them."""

import json

import torch
import yaml

from lingbot_va_ros.atomic_files import write_text
from lingbot_va_ros.model.text_encoder import load_text_encoder
from lingbot_va_ros.training.examples import action_quantiles, Examples, make_example
from lingbot_va_ros.training.latents import (
    encode_missing,
    encode_missing_pairs,
    write_latent_statistics,
)
from lingbot_va_ros.training.linear_probe import probe_body_positions, probe_lines
from lingbot_va_ros.training.run_folder import CPU, MissingStage, RunFolder
from lingbot_va_ros.training.small_text_encoder import write_text_encoder


def encode_recordings(run: RunFolder) -> bool:
    """
    Encode the recordings; write latent statistics, quantiles, text encoder and linear probe.

    :returns: whether all recordings are encoded.
    """
    vae = run.load_video_vae(run.group.device)
    for number, _ in enumerate(encode_missing(
            vae, run.all_recordings(), run.latents, run.cameras)):
        run.report({'stage': 'latents', 'step': number + 1})
        if run.stop():
            return False
    training, held_out = run.split(run.encoded_episodes())
    if not run.policy_file.is_file():
        # Written once: a network in training depends on these numbers.
        write_latent_statistics(run.vae, training)
        q01, q99 = action_quantiles(training, run.action_map(run.template))
        policy = {**yaml.safe_load(run.template.read_text()),
                  'quantiles': {'q01': q01, 'q99': q99}}
        write_text_encoder(
            run.folder / 'text', run.instructions, run.settings.text, run.settings.seed)
        write_text(run.policy_file, yaml.safe_dump(policy, sort_keys=False))
    if held_out and training:
        found = probe_body_positions(training, held_out)
        write_text(run.folder / 'probe.json', json.dumps(found, indent=2))
        for line in probe_lines(found):
            run.say(line)
        run.report({'stage': 'probe', 'mm': found})
    return True


def encode_chunk_pairs(run: RunFolder) -> bool:
    """
    Encode the chunk pairs of the baseline; all processes must call this.

    :returns: whether all are encoded.
    """
    if run.group.is_main:
        vae = run.load_video_vae(run.group.device)
        for number, _ in enumerate(encode_missing_pairs(
                vae, run.all_recordings(), run.latents, run.cameras,
                run.policy.frames_per_chunk)):
            run.report({'stage': 'pairs', 'step': number + 1})
            if run.stop():
                break
    run.group.barrier()
    return not run.group.any(run.stop())


def load_examples(run: RunFolder) -> Examples:
    """
    Return the episodes to train on, in the form of the network's inputs.

    :raises MissingStage: nothing is encoded yet.
    """
    policy, vae = run.policy, run.load_video_vae(CPU)
    actions = run.action_map(run.policy_file)
    training, _ = run.split(run.encoded_episodes())
    if not training:
        raise MissingStage('there are no encoded episodes: run the stage latents first')
    texts = run.instructions
    numbers = {task: [texts.index(text) for text in words]
               for task, words in run.settings.tasks.items()}
    bodies = sorted({name for each in training for name in each.bodies})
    episodes = [
        make_example(
            each, vae, policy, actions, numbers[each.task], bodies, run.chunk_pairs(each))
        for each in training]
    encoder = load_text_encoder(run.folder / 'text', CPU, torch.float32)
    embeddings = []
    for text in texts:
        rows = encoder.encode(text)[0]
        embeddings.append(rows[:int(rows.ne(0).any(-1).sum())].clone())
    return Examples(episodes, embeddings, policy.used_channels)
