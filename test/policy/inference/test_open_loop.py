"""Open-loop chunks from one image agree with the public implementation's."""

from dataclasses import replace
import json
from types import SimpleNamespace

import golden_replay as replay
import numpy as np
import pytest
from support.golden import GOLDEN, PROMPT, RecordedText
import torch

from lingbot_va_ros.policy.errors import PredictionAborted
from lingbot_va_ros.policy.inference.engine import Engine
from lingbot_va_ros.policy.inference.load import EngineConfig, load_engine
from lingbot_va_ros.policy.inference.open_loop import forwards_per_chunk, imagine
from lingbot_va_ros.specs.policy_file import PolicyFile, Sampling

OPEN_LOOP = {
    name: entry for name, entry in json.loads(
        (GOLDEN / 'manifest.json').read_text())['rollouts'].items() if entry['open_loop']}
TOLERANCE = 1e-4


@pytest.fixture(scope='module')
def golden():
    return replay.GoldenFolder(GOLDEN)


def golden_engine(golden, name, settings):
    letter = replay.letter_of(settings['file'])
    config, inputs = golden.config(letter), golden.tensors(settings['inputs'])
    policy = PolicyFile(
        name=name, cameras=tuple(config['obs_cam_keys']),
        layout=replay.LAYOUTS[config['env_type']], height=config['height'],
        width=config['width'], frames_per_chunk=config['frame_chunk_size'],
        actions_per_frame=config['action_per_frame'], action_rate=10.0, action_frame='eef_delta',
        used_channels=tuple(config['used_action_channel_ids']),
        q01=np.float32(config['norm_stat']['q01']), q99=np.float32(config['norm_stat']['q99']),
        video=Sampling(
            config['num_inference_steps'], config['snr_shift'], settings['guidance_scale'],
            settings['video_exec_step']),
        action=Sampling(
            config['action_num_inference_steps'], config['action_snr_shift'],
            settings['action_guidance_scale']),
        memory_chunks=settings['attn_window'] // 2, forward_dynamics=False, trained=False)
    engine = Engine(
        golden.network(letter), golden.vae(letter), RecordedText(inputs), policy, policy.video,
        policy.action, policy.memory_chunks, seed=0)
    engine.set_instruction(PROMPT)
    return engine


@pytest.mark.parametrize('name', sorted(OPEN_LOOP))
def test_the_recorded_open_loop_is_reproduced(golden, name):
    settings = OPEN_LOOP[name]
    engine = golden_engine(golden, name, settings)
    inputs, recorded = golden.tensors(settings['inputs']), golden.tensors(settings['file'])
    frames, chunks = engine.shape.frames, settings['num_infer_calls']
    images = {camera: inputs[f'obs.{camera}'][0].numpy() for camera in engine.policy.cameras}

    def noise(_seed, first_frame, *_sizes):
        return tuple(inputs[f'chunk{first_frame // frames}.noise_{kind}']
                     for kind in ('latents', 'actions'))

    imagined = imagine(engine, images, chunks, noise=noise)
    latents = torch.cat([recorded[f'chunk{chunk}.latents'] for chunk in range(chunks)], 2)
    actions = np.concatenate(
        [recorded[f'chunk{chunk}.actions'].numpy() for chunk in range(chunks)], 1)
    executed = actions.reshape(actions.shape[0], -1).T[engine.shape.actions:]
    assert replay.error(imagined.latents, latents) <= TOLERANCE
    assert replay.error(imagined.actions, executed) <= TOLERANCE
    with torch.inference_mode():
        pictures = engine.vae.decode(latents) * 255
    ours = engine.decode(imagined.latents)
    assert len(ours) == 1 + 4 * (frames * chunks - 1)
    assert replay.error(ours, pictures) <= 0.5 + 255 * 10 * TOLERANCE  # 0.5: whole numbers


@pytest.fixture(scope='module')
def engine(untrained_checkpoint, untrained_policy):
    engine = load_engine(EngineConfig.of_policy(
        untrained_checkpoint, untrained_policy, memory_chunks=4, warm_up=False))
    engine.set_instruction(PROMPT)
    return engine


@pytest.fixture
def images(untrained_policy):
    random = np.random.default_rng(0)
    return {name: random.integers(0, 256, (48, 64, 3), np.uint8)
            for name in untrained_policy.cameras}


def test_a_longer_imagination_begins_with_the_shorter_one(engine, images):
    long, short = imagine(engine, images, 6), imagine(engine, images, 2)
    np.testing.assert_array_equal(long.actions[:len(short.actions)], short.actions)
    assert torch.equal(long.latents[:, :, :short.latents.shape[2]], short.latents)


def test_its_first_chunk_is_the_policys_own(engine, images):
    imagined = imagine(engine, images, 1)
    engine.reset()
    engine.begin_episode(images)
    np.testing.assert_array_equal(imagined.actions, engine.predict().actions)


def test_every_action_knows_its_chunk(engine, images):
    imagined = imagine(engine, images, 3)
    assert np.bincount(imagined.chunk_of).tolist() == [8, 16, 16]
    assert imagined.actions.shape == (40, 7)
    assert imagined.latents.shape[2] == 6
    assert len(imagined.seconds) == 3


@pytest.mark.parametrize('exec_steps', [-1, 1, 3, 5])
def test_forwards_are_counted_before_they_are_run(engine, images, exec_steps):
    policy, calls = engine.policy, []
    video = replace(policy.video, exec_steps=exec_steps)
    engine.set_sampling(video, policy.action)
    try:
        imagine(engine, images, 2, interrupt=SimpleNamespace(check=lambda: calls.append(1)))
    finally:
        engine.set_sampling(policy.video, policy.action)
    assert len(calls) == 2 * forwards_per_chunk(video, policy.action)


def test_it_can_be_given_up_and_begun_again(engine, images):
    whole, calls = imagine(engine, images, 3), []

    def give_up():
        calls.append(1)
        if len(calls) == 20:
            raise PredictionAborted
    with pytest.raises(PredictionAborted):
        imagine(engine, images, 3, interrupt=SimpleNamespace(check=give_up))
    again = imagine(engine, images, 3)
    np.testing.assert_array_equal(again.actions, whole.actions)


def test_numbers_that_are_not_finite_are_refused(engine, images):
    def noise(_seed, first_frame, shape, latent_channels, action_channels):
        value = float('nan') if first_frame else 0.0
        return (torch.full((1, latent_channels, shape.frames, shape.rows, shape.columns), value),
                torch.full((1, action_channels, shape.frames, shape.actions, 1), value))
    with pytest.raises(FloatingPointError, match='chunk 2: .* not finite'):
        imagine(engine, images, 3, noise=noise)
