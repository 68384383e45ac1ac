"""A run from scratch to a checkpoint: losses decrease, and a stop changes nothing."""

from dataclasses import replace
import json
import shutil

import numpy as np
import pytest
import torch

from lingbot_va_ros.model.video_vae import load_video_vae, VaeStream
from lingbot_va_ros.policy.inference.load import EngineConfig, load_engine
from lingbot_va_ros.specs.policy_file import load_policy_file
from lingbot_va_ros.training.episode_files import load_recording
from lingbot_va_ros.training.latents import encode_pairs, load_encoded, normalize_latents
from lingbot_va_ros.training.network import network_config, new_network
from lingbot_va_ros.training.pipeline import ClosedLoopCheck
from lingbot_va_ros.training.run_folder import MissingStage

CPU = torch.device('cpu')


@pytest.fixture
def fresh(encoded, tmp_path):
    """Return a run's folder of one's own, ready for its transformer."""
    return shutil.copytree(encoded, tmp_path / 'run')


def weights_of(training):
    trainer = training.trainer()
    return {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}


def stop_after(steps):
    """Return a `stop` that lets so many steps pass."""
    asked = iter(range(10 ** 6))
    return lambda: next(asked) >= steps


def test_losses_fall(fresh, make_run):
    noted = []
    assert make_run(fresh, noted, steps=60).network()
    losses = [line for line in noted if line['stage'] == 'network']
    assert losses[-1]['total'] < 0.8 * losses[0]['total']
    assert losses[-1]['events'] < losses[0]['events']
    assert losses[-1]['places'] < losses[0]['places']


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(fresh, make_run, tmp_path):
    other = shutil.copytree(fresh, tmp_path / 'other')
    whole, parts = [], []
    assert make_run(fresh, whole).network()
    assert not make_run(other, parts, stop=stop_after(5)).network()
    assert 0 < make_run(other).trainer().step < 12
    assert make_run(other, parts).network()
    once, twice = weights_of(make_run(fresh)), weights_of(make_run(other))
    for name, weight in once.items():
        assert torch.equal(weight, twice[name]), name
    last = [{name: value for name, value in lines[-1].items() if name != 'seconds_per_step'}
            for lines in (whole, parts)]
    assert last[0] == last[1]


def test_the_encoder_goes_on_as_if_it_had_not_been_stopped(recorded, make_run, tmp_path):
    weights = []
    for name, stops in (('whole', [10 ** 6]), ('parts', [2, 10 ** 6])):
        folder = tmp_path / name
        shutil.copytree(recorded / 'data', folder / 'data')
        for stop in stops:
            make_run(folder, stop=stop_after(stop)).encoder()
        weights.append((folder / 'codec' / 'vae' / 'diffusion_pytorch_model.safetensors')
                       .read_bytes())
    assert weights[0] == weights[1]


def test_latents_of_a_recording_are_those_of_a_stream(encoded, make_run):
    vae = load_video_vae(encoded / 'codec' / 'vae', CPU, torch.float32)
    path = next((encoded / 'latents').rglob('*.npz'))
    recording = load_recording(encoded / 'data' / 'table' / path.name)
    stream = VaeStream(vae, 'side_by_side', ('head', 'left_wrist'), 64, 64)
    ours = normalize_latents(load_encoded(path).latents, vae)
    frames = ours.shape[1]
    first = stream.encode({name: images[:1] for name, images in recording.images.items()})
    rest = stream.encode({
        name: images[1:1 + 4 * (frames - 1)] for name, images in recording.images.items()})
    torch.testing.assert_close(
        ours, torch.cat((first, rest), 2)[0], atol=1e-4, rtol=1e-4)


def test_a_pair_of_chunks_depends_on_no_older_image(encoded):
    vae = load_video_vae(encoded / 'codec' / 'vae', CPU, torch.float32)
    path = next((encoded / 'data' / 'table').glob('*.npz'))
    recording = load_recording(path)
    cameras = ('head', 'left_wrist')
    pairs = encode_pairs(vae, recording, cameras, 1)
    whole = load_encoded(next((encoded / 'latents').rglob(path.name))).latents
    np.testing.assert_allclose(pairs[0], whole[:, :2], atol=1e-4)
    assert np.abs(pairs[3] - whole[:, 3:5]).max() > 1e-3  # the stream of an episode remembers
    for images in recording.images.values():
        images[:8] = 255 - images[:8]  # frame 3 follows image 8
    other = encode_pairs(vae, recording, cameras, 1)
    np.testing.assert_array_equal(other[3:], pairs[3:])
    assert np.abs(other[0] - pairs[0]).max() > 1e-3


def test_normalised_latents_have_mean_0_and_deviation_1(encoded, make_run):
    training = make_run(encoded)
    latents = torch.cat(
        [each.latents.flatten(1) for each in training.examples().episodes], 1)
    torch.testing.assert_close(latents.mean(1), torch.zeros(len(latents)), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        latents.std(1), torch.ones(len(latents)), atol=2e-2, rtol=0)


def test_actions_are_the_commands_of_their_frame(encoded, make_run):
    training = make_run(encoded)
    policy = training.policy
    paths = sorted((encoded / 'latents').rglob('*.npz'))[1:]  # the first is held out
    example, episode = training.examples().episodes[0], load_encoded(paths[0])
    channels = list(policy.used_channels)
    assert not example.actions[:, 0].any()
    unused = [channel for channel in range(30) if channel not in channels]
    assert not example.actions[unused].any()
    low, high = policy.q01[channels], policy.q99[channels]
    joints = (example.actions[channels, 2, :, 0].numpy().T + 1) / 2 * (high - low) + low
    joints[:, 6] *= 0.04  # the gripper's opening, 0 to 1, in metres
    np.testing.assert_allclose(joints, episode.commands[4:8], atol=1e-4)


def test_the_probe_is_written(encoded):
    found = json.loads((encoded / 'probe.json').read_text())
    assert found['table']['cube'] > 0


def test_a_checkpoint_of_it_loads_and_acts(fresh, make_run):
    training = make_run(fresh, steps=2)
    assert training.network()
    trainer = training.trainer()
    folder = fresh / 'exported'
    size = training.write_checkpoint(folder, trainer.ema_weights(), trainer.step, 'the command')
    assert size < 16 * 2 ** 20
    policy = load_policy_file(folder / 'policy.yaml')
    engine = load_engine(EngineConfig.of_policy(folder, policy, warm_up=False))
    ours = dict(engine.session.network.named_parameters())
    for name, weight in trainer.ema_weights().items():
        assert torch.equal(ours[name], weight), name
    engine.set_instruction('do this')
    grey = np.full((64, 64, 3), 99, np.uint8)
    engine.begin_episode(dict.fromkeys(policy.cameras, grey))
    actions = engine.predict().actions
    assert actions.shape == (4, 7) and np.isfinite(actions).all()
    card = (folder / 'README.md').read_text()
    assert 'the command' in card and '3 episodes (' in card and 'warm_up: 2' in card


def test_training_goes_on_from_a_checkpoint_in_another_folder(fresh, make_run, tmp_path):
    training = make_run(fresh, steps=2)
    assert training.network()
    weights = training.trainer().ema_weights()
    training.write_checkpoint(tmp_path / 'made', weights, 2)
    other = tmp_path / 'other'
    shutil.copytree(fresh / 'data', other / 'data')
    further = make_run(other, steps=1)
    further.begin_from(tmp_path / 'made')
    assert further.encoder() and further.latents()
    ours = dict(further.trainer().model.network.named_parameters())
    assert all(torch.equal(ours[name], weight) for name, weight in weights.items())
    assert (other / 'policy.yaml').read_text() == (tmp_path / 'made/policy.yaml').read_text()
    for one, same in zip(training.examples().episodes, further.examples().episodes):
        assert torch.equal(one.latents, same.latents)
    assert further.network()
    with pytest.raises(ValueError, match='belongs to a run without'):
        training.begin_from(tmp_path / 'made')


def test_a_baseline_takes_no_weights_of_the_checkpoint_that_it_begins_from(
        fresh, make_run, tmp_path):
    training = make_run(fresh, steps=2)
    assert training.network()
    training.write_checkpoint(tmp_path / 'made', training.trainer().ema_weights(), 2)
    other = tmp_path / 'other'
    shutil.copytree(fresh / 'data', other / 'data')
    baseline = make_run(other, steps=1, history='last_chunk')
    baseline.begin_from(tmp_path / 'made')
    assert baseline.latents() and baseline.network()
    baseline.write_checkpoint(tmp_path / 'baseline', baseline.trainer().ema_weights(), 1)
    card = (tmp_path / 'baseline' / 'README.md').read_text()
    assert '| Began with | the video VAE and text encoder of an earlier checkpoint |' in card
    (other / 'last_chunk' / 'network.pt').unlink()
    sample = new_network(network_config(baseline.run.settings), baseline.run.settings.seed)
    begun = dict(baseline.trainer().model.network.named_parameters())
    assert all(torch.equal(begun[name], weight) for name, weight in sample.named_parameters())


def test_checks_while_training_leave_success_pictures_and_a_plot(fresh, make_run, monkeypatch):
    from lingbot_va_ros.training import pipeline
    monkeypatch.setattr(
        pipeline, 'run_episode',
        lambda engine, task, seed: real(engine, task, seed, max_chunks=2))
    real = __import__('lingbot_va_ros.evaluation.rollout', fromlist=['run_episode']).run_episode
    noted = []
    assert make_run(fresh, noted, steps=2).network(ClosedLoopCheck(every=1e-3, episodes=1))
    checks = [line for line in noted if line['stage'] == 'check']
    assert checks and checks[-1]['task'] == 'table' and checks[-1]['episodes'] == 1
    assert (fresh / 'loss.png').is_file() and list((fresh / 'imagined').glob('table_*.png'))


def test_the_baseline_of_the_last_chunk_has_a_network_of_its_own(fresh, make_run):
    noted = []
    assert make_run(fresh, noted, steps=30, history='last_chunk').network()
    noted = [line for line in noted if line['stage'] == 'network']
    assert noted[-1]['total'] < noted[0]['total']
    assert (fresh / 'last_chunk' / 'network.pt').is_file()
    assert not (fresh / 'network.pt').is_file()


def test_the_decoder_changes_no_latent(fresh, make_run):
    before = [each.latents for each in make_run(fresh).examples().episodes]
    noted = []
    assert make_run(fresh, noted).decoder()
    assert noted[-1]['decibel']['table']['all'] > 0
    after = [each.latents for each in make_run(fresh).examples().episodes]
    assert before and all(map(torch.equal, before, after))


def test_a_network_of_other_sizes_is_refused(fresh, make_run):
    training = make_run(fresh, steps=1)
    assert training.network()
    wider = make_run(fresh)
    wider.run.settings = replace(
        wider.run.settings, network=replace(wider.run.settings.network, ffn_dim=128))
    with pytest.raises(ValueError, match='network.pt belongs to other settings'):
        wider.trainer()


def test_a_damaged_state_is_named(fresh, make_run):
    (fresh / 'network.pt').write_bytes(b'PK nothing of it')
    with pytest.raises(ValueError, match='network.pt is not a readable state'):
        make_run(fresh).trainer()


def test_stages_say_which_one_comes_first(tmp_path, make_run):
    with pytest.raises(MissingStage, match='stage data'):
        make_run(tmp_path).encoder()
    with pytest.raises(MissingStage, match='stage encoder'):
        make_run(tmp_path).latents()
    with pytest.raises(MissingStage, match='stage latents'):
        make_run(tmp_path).network()
