"""The public protocol gives the public implementation's results; errors change nothing."""

import json
from types import SimpleNamespace

import golden_replay as replay
import numpy as np
import pytest
from support.golden import GOLDEN, PROMPT, RecordedText

from lingbot_va_ros.policy.errors import PredictionAborted
from lingbot_va_ros.policy.inference.engine import Engine
from lingbot_va_ros.serving.msgpack_numpy import pack, unpack
from lingbot_va_ros.serving.policy_server import PolicyServer
from lingbot_va_ros.serving.protocol import read_request, RequestError
from lingbot_va_ros.specs.policy_file import PolicyFile, Sampling

ROLLOUTS = json.loads((GOLDEN / 'manifest.json').read_text())['rollouts']
TIED = '.lowest_slot_ties'


class Rollout:
    """A recorded rollout as a client would play it."""

    def __init__(self, golden, name):
        self.settings = ROLLOUTS[name]
        letter = replay.letter_of(self.settings['file'])
        tied = self.settings['file'].replace('.safetensors', f'{TIED}.safetensors')
        recorded = tied if (GOLDEN / tied).exists() else self.settings['file']
        self.data, self.inputs = golden.tensors(recorded), golden.tensors(self.settings['inputs'])
        config = golden.config(letter)
        roles = [f'camera_{index}' for index in range(len(config['obs_cam_keys']))]
        self.keys = dict(zip(roles, config['obs_cam_keys']))
        policy = PolicyFile(
            name=name, cameras=tuple(roles), layout=replay.LAYOUTS[config['env_type']],
            height=config['height'], width=config['width'],
            frames_per_chunk=config['frame_chunk_size'],
            actions_per_frame=config['action_per_frame'], action_rate=10.0,
            action_frame='eef_delta', used_channels=tuple(config['used_action_channel_ids']),
            q01=np.float32(config['norm_stat']['q01']), q99=np.float32(config['norm_stat']['q99']),
            video=Sampling(
                config['num_inference_steps'], config['snr_shift'],
                self.settings['guidance_scale'], self.settings['video_exec_step']),
            action=Sampling(
                config['action_num_inference_steps'], config['action_snr_shift'],
                self.settings['action_guidance_scale']),
            memory_chunks=self.settings['attn_window'] // 2, forward_dynamics=False,
            trained=False, observation_keys=self.keys)
        self.chunk = 0
        self.policy = PolicyServer(
            Engine(golden.network(letter), golden.vae(letter), RecordedText(self.inputs), policy,
                   policy.video, policy.action, policy.memory_chunks, seed=0),
            noise=lambda *_: (self.inputs[f'chunk{self.chunk}.noise_latents'],
                              self.inputs[f'chunk{self.chunk}.noise_actions']))

    def ask(self, **request):
        """Send a request through the wire format."""
        return unpack(pack(self.policy.answer(read_request(unpack(pack(request))))))

    def observations(self, first, last):
        return [{key: self.inputs[f'obs.{key}'][index].numpy() for key in self.keys.values()}
                for index in range(first, last)]

    def infer(self):
        return self.ask(obs=self.observations(0, 1)[0], prompt=PROMPT)['action']

    def commit(self):
        return self.ask(
            obs=self.observations(*self.data[f'chunk{self.chunk}.obs_range'].tolist()),
            compute_kv_cache=True, imagine=False,
            state=self.data[f'chunk{self.chunk}.state'].numpy())

    def recorded(self):
        return self.data[f'chunk{self.chunk}.actions'].numpy()


@pytest.fixture(scope='module')
def golden():
    return replay.GoldenFolder(GOLDEN)


@pytest.mark.parametrize('name', sorted(ROLLOUTS))
def test_a_recorded_rollout_gives_the_recorded_actions(golden, name):
    rollout = Rollout(golden, name)
    assert rollout.ask(reset=True, prompt=PROMPT) == {}
    for chunk in range(rollout.settings['num_infer_calls']):
        rollout.chunk = chunk
        np.testing.assert_allclose(rollout.infer(), rollout.recorded(), rtol=0, atol=1e-4)
        if not rollout.settings['open_loop']:
            assert rollout.commit() == {}


def changed(observations, place, **images):
    return [{**seen, **images} if index == place else seen
            for index, seen in enumerate(observations)]


def bad_requests(rollout):
    """Return what a client may get wrong between the first infer and its compute_kv_cache."""
    seen = rollout.observations(*rollout.data['chunk0.obs_range'].tolist())
    state = rollout.data['chunk0.state'].numpy()
    head, wrist = rollout.keys.values()
    nan = state.copy()
    nan[0, 0, 0] = np.nan
    commit = {'compute_kv_cache': True, 'obs': seen, 'state': state}
    return {
        'a camera is missing': (
            {**commit, 'obs': [*seen[:3], {head: seen[3][head]}]}, f'no image .* {wrist}'),
        'the images are of a wrong camera': (
            {**commit, 'obs': [{'observation.images.top': seen[0][head]}] * 4}, 'images.top'),
        'an image is float': (
            {**commit, 'obs': changed(seen, 2, **{head: np.float32(seen[2][head])})},
            f'obs 2, {head} is float32'),
        'an image has no pixels': (
            {**commit, 'obs': changed(seen, 0, **{head: np.zeros((0, 4, 3), np.uint8)})},
            r'uint8 \[0, 4, 3\]'),
        'an image is a string': (
            {**commit, 'obs': changed(seen, 0, **{head: 'image.png'})}, 'is str'),
        'too few observations': ({**commit, 'obs': seen[:3]}, '3 observations.*multiple of 4'),
        'too many observations': ({**commit, 'obs': seen * 9}, '36 observations'),
        'too few channels': ({**commit, 'state': state[:-1]}, r'\[6, 2, 4\].*\[7, 2, 4\]'),
        'too few frames': ({**commit, 'state': state[:, 1:]}, r'\[7, 1, 4\].*\[7, 2, 4\]'),
        'a flat state': ({**commit, 'state': state.ravel()}, r'float32 \[56\]'),
        'a boolean state': ({**commit, 'state': state > 0}, 'state is bool'),
        'a state that is not finite': ({**commit, 'state': nan}, 'not finite'),
        'a state too large for float32': (
            {**commit, 'state': np.full(state.shape, 1e300)}, 'not finite'),
        'no state': ({'compute_kv_cache': True, 'obs': seen}, 'without state'),
        'a state of lists': ({**commit, 'state': state.tolist()}, 'state is a list'),
        'no observations': ({'compute_kv_cache': True, 'state': state}, 'without obs'),
        'observations of another kind': ({**commit, 'obs': [1, 2]}, 'obs 0 is an integer'),
        'an unknown key': ({'observation': {}}, "unknown key 'observation'"),
        'a flag that is none': ({'reset': 'yes'}, 'reset is a string'),
        'two requests in one': ({**commit, 'reset': True}, 'in one request'),
        'a prompt that is none': ({'reset': True, 'prompt': [PROMPT]}, 'prompt is a list'),
    }


def test_a_refused_request_changes_nothing(golden):
    rollout = Rollout(golden, 'a_g5_full_evict')
    rollout.ask(reset=True, prompt=PROMPT)
    rollout.infer()
    for what, (request, reason) in bad_requests(rollout).items():
        with pytest.raises(RequestError, match=reason) as refusal:
            rollout.ask(**request)
        assert '\n' not in str(refusal.value), what
    rollout.commit()
    rollout.chunk = 1
    np.testing.assert_allclose(rollout.infer(), rollout.recorded(), rtol=0, atol=1e-4)


def test_the_roles_are_taken_as_keys_too(golden):
    rollout = Rollout(golden, 'a_g1_full')
    rollout.ask(reset=True, prompt=PROMPT)
    seen = rollout.observations(0, 1)[0]
    action = rollout.ask(obs={role: seen[key] for role, key in rollout.keys.items()})['action']
    np.testing.assert_allclose(action, rollout.recorded(), rtol=0, atol=1e-4)


def test_requests_need_their_order(golden):
    rollout = Rollout(golden, 'a_g1_full')
    with pytest.raises(RequestError, match='send reset first'):
        rollout.infer()
    rollout.ask(reset=True)
    with pytest.raises(RequestError, match='before the first infer'):
        rollout.commit()
    with pytest.raises(RequestError, match='without an instruction'):
        rollout.ask(obs=rollout.observations(0, 1)[0])
    np.testing.assert_allclose(rollout.infer(), rollout.recorded(), rtol=0, atol=1e-4)


def test_a_prediction_given_up_can_be_asked_for_again(golden):
    rollout = Rollout(golden, 'a_g5_full_evict')
    rollout.ask(reset=True, prompt=PROMPT)
    steps = []

    def give_up():
        steps.append(1)
        if len(steps) == 4:
            raise PredictionAborted

    first = read_request({'obs': rollout.observations(0, 1)[0]})
    with pytest.raises(PredictionAborted):
        rollout.policy.answer(first, SimpleNamespace(check=give_up))
    np.testing.assert_allclose(rollout.infer(), rollout.recorded(), rtol=0, atol=1e-4)


def test_a_failure_ends_the_episode(golden):
    rollout = Rollout(golden, 'a_g1_full')
    rollout.ask(reset=True, prompt=PROMPT)

    def fail():
        raise RuntimeError('out of memory')

    with pytest.raises(RuntimeError):
        rollout.policy.answer(read_request({'obs': rollout.observations(0, 1)[0]}),
                              SimpleNamespace(check=fail))
    with pytest.raises(RequestError, match='send reset first'):
        rollout.infer()
    rollout.ask(reset=True, prompt=PROMPT)
    np.testing.assert_allclose(rollout.infer(), rollout.recorded(), rtol=0, atol=1e-4)
