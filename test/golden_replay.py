"""
Replay a folder of golden data through this engine and compare every number.

    python test/golden_replay.py DIR

DIR holds outputs of the public implementation: `manifest.json`, `config_<c>.json`, checkpoint
folders `ckpt_<c>` and safetensors files with inputs and outputs; sizes are read from them. One
line a file, `name max_abs_err=…`; files that this version has no part for are `not covered`. The
exit code is 0 only if something was compared and every error is at most 1e-4.
"""

from collections.abc import Callable, Iterator
import json
from pathlib import Path
import re
import sys

import numpy as np
from safetensors.torch import load_file
import torch

from lingbot_va_ros.model.attention import choose_attention
from lingbot_va_ros.model.camera_layout import latent_size, SIDE_BY_SIDE, TSHAPE
from lingbot_va_ros.model.checkpoint import load_transformer
from lingbot_va_ros.model.flow_matching import euler_step, nearest_index, noise_levels
from lingbot_va_ros.model.kv_cache import SlidingKVCache
from lingbot_va_ros.model.patches import join_patches
from lingbot_va_ros.model.quantization import quantize_blocks
from lingbot_va_ros.model.rope import action_positions, rotary_table, video_positions
from lingbot_va_ros.model.text_encoder import load_text_encoder
from lingbot_va_ros.model.transformer import Network
from lingbot_va_ros.model.video_vae import load_video_vae, VaeStream, VideoVae
from lingbot_va_ros.policy.inference.chunk_shape import ChunkShape
from lingbot_va_ros.policy.inference.normalization import denormalize, normalize
from lingbot_va_ros.policy.inference.session import Session
from lingbot_va_ros.specs.engine_choices import FULL
from lingbot_va_ros.specs.policy_file import Sampling

TOLERANCE = 1e-4
LAYOUTS = {'none': SIDE_BY_SIDE, 'robotwin_tshape': TSHAPE}
CPU = torch.device('cpu')
LOWEST_SLOT = '.lowest_slot_ties'  # the same rollout, had the public sort been stable


class GoldenFolder:
    """A folder of golden data; loads each checkpoint once, in a precision."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32, weights: str = FULL):
        self.folder = Path(folder)
        self.dtype, self.weights = dtype, weights
        self.manifest = json.loads((self.folder / 'manifest.json').read_text())
        self._loaded: dict[str, object] = {}

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(str(self.folder / name))

    def json(self, name: str):
        return json.loads((self.folder / name).read_text())

    def config(self, letter: str) -> dict:
        return self.json(f'config_{letter}.json')

    def checkpoint(self, letter: str) -> Path:
        return self.folder / self.config(letter).get('checkpoint', f'ckpt_{letter}')

    def network(self, letter: str) -> Network:
        return self._once(f'network {letter}', lambda: self._load_network(letter))

    def _load_network(self, letter: str) -> Network:
        network = load_transformer(
            self.checkpoint(letter) / 'transformer', CPU, self.dtype,
            choose_attention('auto', CPU, self.dtype, self.config(letter).get(
                'attention_head_dim', 128))[0])
        quantize_blocks(network, self.weights)
        return network

    def vae(self, letter: str) -> VideoVae:
        return self._once(f'vae {letter}', lambda: load_video_vae(
            self.checkpoint(letter) / 'vae', CPU, torch.float32))

    def _once(self, key: str, make: Callable):
        if key not in self._loaded:
            self._loaded[key] = make()
        return self._loaded[key]


def error(ours, theirs) -> float:
    """Return the largest absolute difference; infinite where the shapes or finiteness differ."""
    ours, theirs = torch.as_tensor(ours).double(), torch.as_tensor(theirs).double()
    if ours.shape != theirs.shape:
        return float('inf')
    difference = (ours - theirs).abs()
    return float(difference.max()) if difference.isfinite().all() else float('inf')


def as_public_output(velocity: torch.Tensor, patch) -> torch.Tensor:
    """Lay a video velocity [B, C, F, h, w] out as the public output [B, L * 4, C]."""
    order = torch.arange(velocity[0].numel()).reshape(1, *velocity.shape[1:])
    rows, columns = patch[1], patch[2]
    frames, height, width = velocity.shape[2:]
    flat = torch.arange(velocity[0].numel()).reshape(
        1, frames, height // rows * (width // columns), -1)
    place = join_patches(flat, order.shape, patch).flatten()
    out = torch.empty(velocity.shape[0], place.numel(), dtype=velocity.dtype)
    out[:, place] = velocity.flatten(1)
    return out.unflatten(1, (-1, velocity.shape[1]))


def replay_scheduler(golden: GoldenFolder, name: str) -> float:
    data, worst = golden.tensors(name), 0.0
    for key in sorted(data):
        found = re.fullmatch(r'(shift([\d.]+)_steps(\d+))\.sigmas', key)
        if not found:
            continue
        prefix = found[1]
        levels = noise_levels(int(found[3]), float(found[2]))
        worst = max(worst, error(levels, data[key]))
        worst = max(worst, error(levels * 1000, data[f'{prefix}.timesteps']) / 1000)
        for index, time in enumerate(data[f'{prefix}.step_t'].tolist()):
            result = euler_step(
                data[f'{prefix}.step_sample'][0], data[f'{prefix}.step_model_output'][index],
                nearest_index(time, levels), levels)
            worst = max(worst, error(result, data[f'{prefix}.step_result'][index]))
    return worst


def replay_grid_ids(golden: GoldenFolder, name: str) -> float:
    worst = 0.0
    for key, theirs in golden.tensors(name).items():
        sizes = [int(number) for number in re.findall(r'\d+', key)]
        ours = video_positions(*sizes) if key.startswith('video') else action_positions(*sizes)
        worst = max(worst, error(ours.T.float(), theirs[:3].float()))
    return worst


def replay_actions(golden: GoldenFolder, name: str) -> float:
    data, worst = golden.tensors(name), 0.0
    for robot, settings in golden.json(name.replace('.safetensors', '.json')).items():
        layout = (settings['used_action_channel_ids'], settings['q01'], settings['q99'])
        # The public code zeroes the unused channels one step later than it normalises.
        theirs = torch.zeros_like(data[f'{robot}.preprocessed'])
        theirs[:, layout[0]] = data[f'{robot}.preprocessed'][:, layout[0]]
        worst = max(
            worst,
            error(denormalize(data[f'{robot}.normalised_in'], *layout),
                  data[f'{robot}.postprocessed']),
            error(normalize(data[f'{robot}.state_in'].numpy(), *layout), theirs))
    return worst


def replay_text_encoder(golden: GoldenFolder, name: str) -> float | None:
    data = golden.tensors(name)
    folders = sorted(golden.folder.glob('ckpt_*/text_encoder'))
    encoder = load_text_encoder(folders[0].parent, CPU, torch.float32)
    ours = encoder.embed_tokens(data['input_ids'], data['attention_mask'])
    valid = data['last_hidden_state_valid']
    valid = valid if valid.dim() == 3 else valid[None]
    return max(error(ours, data['prompt_embeds']), error(ours[:, :valid.shape[1]], valid))


def embeddings(golden: GoldenFolder, letter: str, rows: int) -> torch.Tensor:
    inputs = golden.tensors(f'rollout_{letter}_inputs.safetensors')
    both = torch.cat((inputs['prompt_embeds'], inputs['negative_prompt_embeds']))
    return both[:rows]


def run_network(network, kind, content, times, positions, text, place=None) -> torch.Tensor:
    """Run one forward and return it in the public layout, [B, tokens, features]."""
    rotary = rotary_table(positions.double(), network.config.head_dim, CPU)
    if kind == 'video':
        velocity = network.video_velocity(content, times, rotary, text, place)
        return as_public_output(velocity, network.config.patch)
    velocity = network.action_velocity(content, times, rotary, text, place)
    return velocity.squeeze(-1).permute(0, 2, 3, 1).flatten(1, 2)


def replay_forward(golden: GoldenFolder, name: str) -> float:
    letter = letter_of(name)
    data, network, worst = golden.tensors(name), golden.network(letter), 0.0
    for prefix in sorted({key.rsplit('.', 1)[0] for key in data}):
        content = data[f'{prefix}.noisy_latents']
        text = network.text_kv(embeddings(golden, letter, content.shape[0]))
        for row in range(content.shape[0]):  # rows may differ in time step and position
            alone = type(text)(
                [key[row:row + 1] for key in text.keys],
                [value[row:row + 1] for value in text.values])
            ours = run_network(
                network, prefix.split('_')[0], content[row:row + 1],
                data[f'{prefix}.timesteps'][row].tolist(), data[f'{prefix}.grid_id'][row, :3].T,
                alone)
            worst = max(worst, error(ours, data[f'{prefix}.output'][row:row + 1]))
        if (data[f'{prefix}.timesteps'] == data[f'{prefix}.timesteps'][:1]).all() and (
                data[f'{prefix}.grid_id'] == data[f'{prefix}.grid_id'][:1]).all():
            ours = run_network(
                network, prefix.split('_')[0], content, data[f'{prefix}.timesteps'][0].tolist(),
                data[f'{prefix}.grid_id'][0, :3].T, text)
            worst = max(worst, error(ours, data[f'{prefix}.output']))
    return worst


def replay_cache(golden: GoldenFolder, name: str) -> float:
    letter = letter_of(name)
    data, network, worst = golden.tensors(name), golden.network(letter), 0.0
    memory, text = None, None
    for operation in golden.json(name.replace('.safetensors', '.json')):
        if operation['op'] == 'create':
            rows = operation['batch_size']
            memory = SlidingKVCache(
                network.config.num_layers, rows, operation['capacity'], operation['capacity'],
                network.config.heads, network.config.head_dim, CPU, torch.float32)
            text = network.text_kv(embeddings(golden, letter, rows))
            continue
        if memory is None:
            raise ValueError(f'{name}: {operation["op"]!r} comes before create')
        if operation['op'] == 'clear_pred':
            memory.drop_provisional()
            continue
        if operation['op'] != 'forward':
            raise ValueError(f'{name}: unknown operation {operation["op"]!r}')
        prefix = f'op{operation["index"]:02d}'
        content = data[f'{prefix}.noisy_latents'].expand(
            memory.cfg_batch, *data[f'{prefix}.noisy_latents'].shape[1:])
        positions = positions_of(operation['mode'], content, operation['frame_shift'], network)
        if cuts_a_group(memory, len(positions)):
            return worst  # which part of the group goes is arbitrary: nothing later is comparable
        place = memory.reserve(len(positions))
        ours = run_network(
            network, operation['mode'], content, data[f'{prefix}.timesteps'][0].tolist(),
            positions, text, place)
        if operation['update_cache']:
            memory.keep(place, provisional=operation['update_cache'] == 1)
        worst = max(worst, error(ours, data[f'{prefix}.output']))
        if (memory.valid, memory.provisional) != (
                operation['valid_after'], operation['pred_valid_after']):
            return float('inf')
    return worst


def cuts_a_group(memory: SlidingKVCache, tokens: int) -> bool:
    """Return whether making room for `tokens` drops only a part of a group."""
    need = memory.valid + tokens - memory.capacity
    for group in memory.spans:
        if need <= 0:
            break
        need -= group.tokens
    return need < 0 < memory.valid + tokens - memory.capacity


def positions_of(kind: str, content, first_frame: int, network: Network) -> torch.Tensor:
    if kind == 'action':
        return action_positions(content.shape[2], content.shape[3], first_frame)
    patch = network.config.patch
    return video_positions(
        content.shape[2], content.shape[3] // patch[1], content.shape[4] // patch[2], first_frame)


def replay_vae(golden: GoldenFolder, name: str) -> float:
    letter = letter_of(name)
    data, vae, worst = golden.tensors(name), golden.vae(letter), 0.0
    stream = vae_stream(golden, letter)
    inputs = golden.tensors(f'rollout_{letter}_inputs.safetensors')
    with torch.inference_mode():
        for part in range(sum(key.endswith('.frame_range') for key in data)):
            latents = stream.encode(
                images(golden, letter, inputs, data[f'part{part}.frame_range'].tolist()))
            worst = max(worst, error(latents, data[f'part{part}.latents']))
        cache = [None] * vae.caches
        for part in range(sum(key.startswith('raw') and key.endswith('.frames') for key in data)):
            frames = data[f'raw{part}.frames']
            encoded = [vae.encode(block, cache) for block in frames.split(4, 2)]
            worst = max(worst, error(torch.cat(encoded, 2), data[f'raw{part}.encoded']))
        if 'decode.latents' in data:
            video = vae.decode(data['decode.latents'])
            worst = max(worst, error(video, data['decode.video']))
    return worst


def vae_stream(golden: GoldenFolder, letter: str) -> VaeStream:
    config = golden.config(letter)
    return VaeStream(
        golden.vae(letter), LAYOUTS[config['env_type']], config['obs_cam_keys'],
        config['height'], config['width'])


def images(golden, letter, inputs, frame_range) -> dict[str, list[np.ndarray]]:
    first, last = frame_range
    return {camera: list(inputs[f'obs.{camera}'][first:last].numpy())
            for camera in golden.config(letter)['obs_cam_keys']}


def replay_rollout(golden: GoldenFolder, name: str) -> float | None:
    settings = next(
        (entry for entry in golden.manifest['rollouts'].values()
         if entry['file'] == name.replace(LOWEST_SLOT, '')), None)
    if settings is None:
        return None
    worst = 0.0
    for pairs, as_many in rollout(golden, name, settings):
        worst = max(worst, *(error(*pair) for pair in pairs))
        if not as_many:
            return float('inf')
    return worst


def rollout(golden: GoldenFolder, name: str, settings: dict) -> Iterator[tuple]:
    """
    Predict and commit chunk after chunk as a recorded rollout did.

    Yields per chunk pairs of ours and theirs (latents, normalized actions, actions), and whether
    the memory holds as many tokens as theirs.
    """
    letter = letter_of(name)
    config, network = golden.config(letter), golden.network(letter)
    inputs, data = golden.tensors(settings['inputs']), golden.tensors(name)
    used = config['used_action_channel_ids']
    layout = (used, config['norm_stat']['q01'], config['norm_stat']['q99'])
    rows, columns = latent_size(
        LAYOUTS[config['env_type']], len(config['obs_cam_keys']), config['height'],
        config['width'])
    session = Session(
        network,
        ChunkShape(config['frame_chunk_size'], config['action_per_frame'], rows, columns),
        Sampling(config['num_inference_steps'], config['snr_shift'], settings['guidance_scale'],
                 settings['video_exec_step']),
        Sampling(config['action_num_inference_steps'], config['action_snr_shift'],
                 settings['action_guidance_scale']),
        used, settings['attn_window'] // 2)
    session.set_text(embeddings(golden, letter, session.cfg_batch))
    stream = vae_stream(golden, letter)
    with torch.inference_mode():
        first = stream.encode(images(golden, letter, inputs, (0, 1)))
    for chunk in range(settings['num_infer_calls']):
        prediction = session.predict(
            inputs[f'chunk{chunk}.noise_latents'], inputs[f'chunk{chunk}.noise_actions'], first)
        pairs = (
            (prediction.latents, data[f'chunk{chunk}.latents']),
            (prediction.actions, data[f'chunk{chunk}.actions_norm']),
            (denormalize(prediction.actions, *layout), data[f'chunk{chunk}.actions']))
        if settings['open_loop']:
            yield pairs, True
            continue
        with torch.inference_mode():
            latents = stream.encode(
                images(golden, letter, inputs, data[f'chunk{chunk}.obs_range'].tolist()))
        if session.frame == 0:
            latents = torch.cat((first, latents), 2)
        session.commit(latents, normalize(data[f'chunk{chunk}.state'].numpy(), *layout))
        yield pairs, session.kv_cache.valid == int(data[f'chunk{chunk}.cache_valid_after'])


def replay_trace(golden: GoldenFolder, name: str) -> float:
    """
    Check every call of a traced rollout on its own inputs.

    The memory is rebuilt from the recorded inputs alone, so that one wrong call shows by itself.
    """
    letter = letter_of(name)
    data, network, worst = golden.tensors(name), golden.network(letter), 0.0
    rollout = name.replace('trace_', 'rollout_')
    settings = next(
        entry for entry in golden.manifest['rollouts'].values() if entry['file'] == rollout)
    calls = golden.json(name.replace('.safetensors', '.json'))
    rows = calls[0]['batch']
    memory = SlidingKVCache(
        network.config.num_layers, rows, settings['capacity_tokens'], settings['capacity_tokens'],
        network.config.heads, network.config.head_dim, CPU, torch.float32)
    text = network.text_kv(embeddings(golden, letter, rows))
    for call in calls:
        prefix, kind = f'call{call["call"]:03d}', 'action' if call['action_mode'] else 'video'
        if call['update_cache'] == 2:
            memory.drop_provisional()
        content = data[f'{prefix}.noisy_latents']
        positions = positions_of(kind, content, call['frame_shift'], network)
        place = memory.reserve(len(positions))
        ours = run_network(
            network, kind, content.expand(rows, *content.shape[1:]),
            data[f'{prefix}.timesteps'][0].tolist(), positions, text, place)
        if call['update_cache']:
            memory.keep(place, provisional=call['update_cache'] == 1)
        worst = max(worst, error(ours, data[f'{prefix}.output']))
        tokens = [tokens for _group, tokens in call['groups_after']]
        if [group.tokens for group in memory.spans] != tokens:
            return float('inf')
    return worst


def letter_of(name: str) -> str:
    """Return the configuration that a file belongs to: `rollout_a_g1_full` is of `a`."""
    known = {'rollout', 'trace', 'transformer', 'forward', 'cache', 'vae', 'stream'}
    return next(part for part in name.split('.')[0].split('_') if part not in known)


REPLAYS = {
    r'scheduler\.safetensors': replay_scheduler,
    r'grid_ids\.safetensors': replay_grid_ids,
    r'actions\.safetensors': replay_actions,
    r'text_encoder\.safetensors': replay_text_encoder,
    r'transformer_forward_\w+\.safetensors': replay_forward,
    r'transformer_cache_\w+\.safetensors': replay_cache,
    r'vae_stream_\w+\.safetensors': replay_vae,
    r'trace_\w+\.safetensors': replay_trace,
    r'rollout_[\w.]+\.safetensors': replay_rollout,
}
# A rollout that depends on which part of a group an unstable sort drops: shown, not judged.
TIES_MATTER = 'max_abs_diff_if_eviction_ties_broken_by_lowest_slot'


def informational(golden: GoldenFolder, name: str) -> bool:
    return any(entry['file'] == name and entry.get(TIES_MATTER, 0) > TOLERANCE
               for entry in golden.manifest.get('rollouts', {}).values())


def replay_folder(folder: Path, out=print) -> bool:
    """Replay everything in a folder; returns whether all that was judged agrees."""
    golden, judged, good = GoldenFolder(folder), 0, True
    for path in sorted(golden.folder.glob('*.safetensors')):
        name = path.name
        if name.endswith('_inputs.safetensors'):
            continue
        replay = next((function for pattern, function in REPLAYS.items()
                       if re.fullmatch(pattern, name)), None)
        with torch.inference_mode():
            worst = None if replay is None else replay(golden, name)
        if worst is None:
            out(f'{name} not covered')
            continue
        note = ''
        if informational(golden, name):
            note = ' (informational: depends on an arbitrary tie)'
        else:
            judged += 1
            good = good and worst <= TOLERANCE
        out(f'{name} max_abs_err={worst:.3g}{note}')
    return good and judged > 0


if __name__ == '__main__':
    if len(sys.argv) != 2 or not Path(sys.argv[1], 'manifest.json').is_file():
        sys.exit('usage: python test/golden_replay.py DIR (a folder with a manifest.json)')
    sys.exit(0 if replay_folder(Path(sys.argv[1])) else 1)
