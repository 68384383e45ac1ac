"""
The mixture of transformers: its size, its checkpoint, what sees what, and how it begins.

What holds of both networks is in test_transformer.py and in test/policy/inference/test_session.py.
"""

from dataclasses import replace
import json

import pytest
from support.networks import random
import torch

from lingbot_va_ros.model.checkpoint import load_transformer, save_transformer, transformer_tensors
from lingbot_va_ros.model.kv_cache import SlidingKVCache
from lingbot_va_ros.model.mixture_of_transformers import (
    interpolate_action_stream,
    make_network,
    MixtureTransformer,
)
from lingbot_va_ros.model.patches import action_tokens, cut_patches
from lingbot_va_ros.model.random_checkpoint import (
    MIXTURE,
    NETWORK,
    random_weights,
    write_random_checkpoint,
)
from lingbot_va_ros.model.rope import action_positions, rotary_table, video_positions
from lingbot_va_ros.model.transformer import StreamTokens, Transformer
from lingbot_va_ros.policy.inference.inspection import inspect_checkpoint
from lingbot_va_ros.resources import shared_file
from lingbot_va_ros.specs.checkpoint_config import read_transformer_config, TransformerConfig
from lingbot_va_ros.specs.errors import CheckpointError

CPU = torch.device('cpu')
PAPER = TransformerConfig(
    num_layers=30, heads=24, head_dim=128, ffn_dim=14336, action_hidden_dim=768)
ROWS, COLUMNS = 4, 6
# Layers, heads, action width, frames of a chunk, actions of a frame.
SIZES = [(2, 2, 20, 2, 4), (4, 3, 72, 3, 1)]


def network_of(layers=2, heads=2, narrow=20, **sizes):
    config = TransformerConfig(**{
        'num_layers': layers, 'heads': heads, 'head_dim': 24, 'ffn_dim': 64,
        'latent_channels': 8, 'action_channels': 5, 'text_dim': 16, 'time_frequencies': 16,
        'action_hidden_dim': narrow, **sizes})
    network = make_network(config)
    weights = random_weights(config, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for name, target in transformer_tensors(network).items():
            target.copy_(weights[name])
    return network.eval()


def test_the_configuration_says_which_network_it_is():
    assert type(network_of(narrow=None)) is Transformer
    assert type(network_of()) is MixtureTransformer


def test_the_paper_s_sizes_have_about_5_3_billion_parameters():
    # Everything of transformer/ counts: blocks, embedders of time and text, inputs and outputs;
    # neither VAE nor text encoder does.
    with torch.device('meta'):
        network = make_network(PAPER)
    numbers = {True: 0, False: 0}
    for name, weight in network.named_parameters():
        numbers[name.startswith('action')] += weight.numel()
    assert numbers[False] == pytest.approx(5.0e9, rel=0.01)  # Wan2.2-5B
    assert numbers[True] == pytest.approx(350e6, rel=0.05)
    assert sum(numbers.values()) == pytest.approx(5.3e9, rel=0.02)


def test_a_checkpoint_of_it_is_loaded_as_it_was_saved(tmp_path):
    network = network_of()
    save_transformer(tmp_path, network.config, transformer_tensors(network))
    assert read_transformer_config(tmp_path / 'config.json') == network.config
    loaded = load_transformer(tmp_path, CPU, torch.float32)
    assert type(loaded) is MixtureTransformer
    for name, weight in network.named_parameters():
        assert torch.equal(dict(loaded.named_parameters())[name], weight), name


def test_a_shared_backbone_is_saved_without_an_action_stream(tmp_path):
    network = network_of(narrow=None)
    save_transformer(tmp_path, network.config, transformer_tensors(network))
    assert read_transformer_config(tmp_path / 'config.json') == network.config
    assert 'action_hidden_dim' not in json.loads((tmp_path / 'config.json').read_text())


def test_a_whole_checkpoint_of_it_is_found_in_order(tmp_path):
    write_random_checkpoint(
        tmp_path, shared_file('config', 'policies', 'untrained.yaml'), config=MIXTURE)
    found = inspect_checkpoint(tmp_path)
    assert found.faults == [] and found.config == MIXTURE
    network = load_transformer(tmp_path / 'transformer', CPU, torch.float32)
    assert found.numbers['transformer'] == sum(
        weight.numel() for weight in network.parameters())


def test_weights_of_the_other_variant_are_refused_by_name(tmp_path):
    weights = random_weights(NETWORK, torch.Generator().manual_seed(0))
    save_transformer(tmp_path, MIXTURE, weights)
    with pytest.raises(CheckpointError, match=r'missing action_blocks\.0\.attn1\.to_q\.weight'):
        load_transformer(tmp_path, CPU, torch.float32)


@pytest.mark.parametrize('width', [0, -4, 2.5, True, 'wide'])
def test_an_action_stream_of_no_width_is_refused(tmp_path, width):
    save_transformer(tmp_path, NETWORK, {})
    config = json.loads((tmp_path / 'config.json').read_text())
    (tmp_path / 'config.json').write_text(json.dumps({**config, 'action_hidden_dim': width}))
    with pytest.raises(CheckpointError, match=f'action_hidden_dim is {width!r}'):
        read_transformer_config(tmp_path / 'config.json')


class Chunks:
    """Two chunks: the first clean, of the second noisy video and noisy actions."""

    def __init__(self, network, frames, actions):
        self.network, self.frames, self.actions = network, frames, actions
        self.video = random(1, 1, 8, 2 * frames, ROWS, COLUMNS)
        self.executed = random(2, 1, 5, 2 * frames, actions, 1)
        self.text = random(3, 1, 16, 16)
        self.tokens = frames * ROWS * COLUMNS // 4

    def rotary(self, positions):
        return rotary_table(positions, self.network.config.head_dim, CPU)

    def video_rotary(self, first, frames):
        return self.rotary(video_positions(frames, ROWS // 2, COLUMNS // 2, first))

    def action_rotary(self, first, frames):
        return self.rotary(action_positions(frames, self.actions, first))

    @torch.no_grad()
    def through_a_memory(self):
        """Return the velocities of the second chunk, the first one in the memory."""
        network, config, frames = self.network, self.network.config, self.frames
        text = network.text_kv(self.text)
        memory = SlidingKVCache(config.num_layers, 1, 200, 200, config.heads, config.head_dim, CPU,
                          torch.float32)
        for write, content, rotary in (
                (network.write_video, self.video, self.video_rotary(0, frames)),
                (network.write_actions, self.executed, self.action_rotary(0, frames))):
            place = memory.reserve(len(rotary))
            write(content[:, :, :frames], frames * [0.0], rotary, text, place)
            memory.keep(place, provisional=False)
        steps = frames * [600.0]
        return (
            network.video_velocity(
                self.video[:, :, frames:], steps, self.video_rotary(frames, frames), text,
                memory.reserve(self.tokens)),
            network.action_velocity(
                self.executed[:, :, frames:], steps, self.action_rotary(frames, frames), text,
                memory.reserve(frames * self.actions)))

    @torch.no_grad()
    def at_once(self):
        """Return the outputs of the second chunk, all tokens in one forward."""
        config, frames = self.network.config, self.frames
        steps = torch.tensor([frames * [0.0] + frames * [600.0]])
        video_out, action_out, _ = self.network(
            StreamTokens(cut_patches(self.video, config.patch), steps,
                         self.video_rotary(0, 2 * frames), frames),
            StreamTokens(action_tokens(self.executed), steps,
                         self.action_rotary(0, 2 * frames), frames),
            self.text, self.attend, lambda q, k, v: self.softmax(q, k, v, None))
        return video_out, action_out

    def attend(self, video, action, all_wanted):
        """Attend by ids in the order first video, first actions, second video, its actions."""
        half = [self.tokens, self.frames * self.actions]
        ids = torch.cat([torch.full((count,), name) for count, name in zip(
            half[:1] * 2 + half[1:] * 2, (0, 2, 1, 3))])
        mask = (ids[:, None] >= ids) & ((ids[:, None] != 3) | (ids != 2))  # noise sees no noise
        out = self.softmax(*(torch.cat(pair, 1) for pair in zip(video, action)), mask)
        parts = out.split(half[:1] * 2 + half[1:] * 2, 1)
        if not all_wanted:
            return parts[1], parts[3]
        return torch.cat(parts[:2], 1), torch.cat(parts[2:], 1)

    def softmax(self, query, key, value, mask):
        scores = torch.einsum('bqhd,bkhd->bhqk', query, key) / query.shape[-1] ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return torch.einsum('bhqk,bkhd->bqhd', scores.softmax(-1), value).flatten(2)


@pytest.mark.parametrize('narrow_as_given', [True, False], ids=['mixture', 'shared'])
@pytest.mark.parametrize('layers, heads, narrow, frames, actions', SIZES)
def test_cached_tokens_act_as_tokens_of_one_pass(
        layers, heads, narrow, frames, actions, narrow_as_given):
    chunks = Chunks(
        network_of(layers, heads, narrow if narrow_as_given else None), frames, actions)
    video, action = chunks.through_a_memory()
    video_tokens, action_out = chunks.at_once()
    # The tokens' outputs have the channel last.
    cut = video.unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2)).permute(0, 2, 3, 5, 4, 6, 1)
    torch.testing.assert_close(
        video_tokens, cut.flatten(4).flatten(2, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(action_out, action_tokens(action), rtol=0, atol=1e-5)


@pytest.mark.parametrize('layers, heads, narrow, frames, actions', SIZES)
def test_later_tokens_do_not_change_earlier_ones(
        layers, heads, narrow, frames, actions):
    chunks = Chunks(network_of(layers, heads, narrow), frames, actions)
    before = chunks.at_once()
    chunks.executed[:, :, frames:] += 1  # the last in the order
    after = chunks.at_once()
    assert torch.equal(after[0], before[0]) and not torch.equal(after[1], before[1])
    chunks.executed[:, :, :frames] += 1
    earlier = chunks.at_once()
    assert not torch.equal(earlier[0], after[0])


def test_actions_and_video_see_each_other_in_every_layer():
    chunks = Chunks(network_of(layers=1), 2, 4)
    before = chunks.at_once()
    chunks.video[:, :, :2] += 1
    assert not torch.equal(chunks.at_once()[1], before[1])
    chunks = Chunks(network_of(layers=1), 2, 4)
    chunks.executed[:, :, :2] += 1
    assert not torch.equal(chunks.at_once()[0], before[0])


def test_an_action_stream_as_wide_as_the_video_begins_as_the_video_stream():
    network = network_of(narrow=48)
    interpolate_action_stream(network)
    parameters = dict(network.named_parameters())
    for name, weight in parameters.items():
        twin = name.removeprefix('action_')
        if name.startswith('action_blocks.') and not name.endswith('to_joint_dim.weight'):
            torch.testing.assert_close(weight, parameters[twin], rtol=0, atol=1e-6)
    torch.testing.assert_close(network.action_blocks[0].to_joint_dim.weight, torch.eye(48))


@pytest.mark.parametrize('heads, narrow', [(8, 48), (4, 48), (8, 56)])
@torch.no_grad()
def test_a_matrix_that_sums_over_fewer_numbers_is_scaled(heads, narrow):
    # Of smooth rows and tokens, a sum over d of D numbers is d / D of theirs but for the scale.
    network = network_of(heads=heads, narrow=narrow)
    wide = network.config.dim
    row, narrow_row = (torch.linspace(0, 3, count).sin() for count in (wide, narrow))
    for block in network.blocks:
        block.ffn_in.weight.copy_(row.expand(64, -1))
    interpolate_action_stream(network)
    ours = float((network.action_blocks[0].ffn_in.weight @ narrow_row).mean())
    theirs = float((network.blocks[0].ffn_in.weight @ row).mean())
    assert ours / theirs == pytest.approx((narrow / wide) ** 0.5, rel=0.02)


def test_parts_of_a_matrix_do_not_run_together_when_it_is_interpolated():
    network = network_of(heads=8, narrow=56)  # from 192
    with torch.no_grad():
        for part in range(6):
            network.video.time.vectors.bias[part * 192:part * 192 + 192] = part
    interpolate_action_stream(network)
    assert network.action.time.vectors.bias.view(6, 56).unique(dim=1).flatten().tolist() == [
        0, 1, 2, 3, 4, 5]


def test_interpolation_leaves_input_and_output_of_the_actions_alone():
    network = network_of()
    before = {name: weight.clone() for name, weight in network.named_parameters()}
    interpolate_action_stream(network)
    for name, weight in network.named_parameters():
        kept = not name.startswith('action_') and not name.startswith('action.time.')
        assert torch.equal(weight, before[name]) == kept, name


def test_the_action_stream_follows_the_sizes_of_the_video():
    assert PAPER.action_ffn_dim == 3584
    assert replace(PAPER, ffn_dim=64, action_hidden_dim=1).action_ffn_dim == 1
