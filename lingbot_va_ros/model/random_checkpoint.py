"""
Creates a tiny checkpoint with random weights, in the public layout.

It is for tests of the whole path; its actions are meaningless. Its `policy.yaml` has
`trained: false`, on which programs that read the checkpoint print a warning.
"""

import argparse
from dataclasses import replace
import json
from pathlib import Path

from tokenizers import models, normalizers, pre_tokenizers, processors, Tokenizer
import torch
from torch import Tensor
from transformers import UMT5Config, UMT5EncoderModel
import yaml

from lingbot_va_ros.model.checkpoint import destinations, save_transformer, unread_shapes
from lingbot_va_ros.model.video_vae import AutoencoderKLWan
from lingbot_va_ros.resources import shared_file
from lingbot_va_ros.specs.checkpoint_config import TransformerConfig

NETWORK = TransformerConfig(
    num_layers=3, heads=4, head_dim=24, ffn_dim=256, text_dim=32, time_frequencies=64)
MIXTURE = replace(NETWORK, action_hidden_dim=48)
LETTERS = 'abcdefghijklmnopqrstuvwxyz0123456789'
SPECIAL = ('<pad>', '</s>', '<unk>')


def write_random_checkpoint(
    folder: Path, policy_file: Path, seed: int = 0, config: TransformerConfig = NETWORK,
) -> None:
    """
    Write transformer/, vae/, text_encoder/, tokenizer/ and policy.yaml.

    The same seed gives the same files.

    :param folder: created if missing; files in it are overwritten.
    :param policy_file: becomes its policy.yaml, with `trained: false`.
    :param config: sizes of the transformer; `MIXTURE` for one with an action stream.
    """
    folder = Path(folder)
    generator = torch.Generator().manual_seed(seed)
    save_transformer(folder / 'transformer', config, random_weights(config, generator))
    with torch.random.fork_rng(devices=[]):  # all weights are drawn on the CPU
        torch.manual_seed(seed)
        _write_vae(folder / 'vae')
        _write_text_encoder(folder / 'text_encoder', config.text_dim)
    _write_tokenizer(folder / 'tokenizer')
    policy = yaml.safe_load(Path(policy_file).read_text())
    (folder / 'policy.yaml').write_text(
        '# Random weights: the actions of this checkpoint mean nothing.\n'
        + yaml.safe_dump({**policy, 'trained': False}, sort_keys=False))


def random_weights(config: TransformerConfig, generator: torch.Generator) -> dict[str, Tensor]:
    """Return random tensors of a transformer checkpoint, float32, by name."""
    shapes = {name: place.shape for name, place in destinations(config).items()}
    weights = {}
    for name, shape in {**shapes, **unread_shapes(config)}.items():
        noise = torch.randn(shape, generator=generator)
        if 'norm' in name and name.endswith('weight'):
            weights[name] = 1 + 0.1 * noise
        elif name.endswith('bias'):
            weights[name] = 0.02 * noise
        else:
            weights[name] = noise / shape[-1] ** 0.5
    return weights


def _write_vae(folder: Path) -> None:
    vae = AutoencoderKLWan(
        base_dim=4, decoder_base_dim=4, z_dim=48, dim_mult=[1, 2, 4, 4], num_res_blocks=2,
        attn_scales=[], temperal_downsample=[False, True, True], is_residual=True, in_channels=12,
        out_channels=12, patch_size=2, scale_factor_temporal=4, scale_factor_spatial=16,
        latents_mean=[0.0] * 48, latents_std=[1.0] * 48)
    vae.save_pretrained(str(folder))


def _write_text_encoder(folder: Path, text_dim: int) -> None:
    UMT5EncoderModel(UMT5Config(
        vocab_size=len(SPECIAL) + 1 + 2 * len(LETTERS), d_model=text_dim, d_kv=8, d_ff=64,
        num_layers=2, num_heads=4, is_encoder_decoder=False)).save_pretrained(str(folder))


def _write_tokenizer(folder: Path) -> None:
    """Write a unigram tokenizer over letters and digits, each also at the start of a word."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = [*SPECIAL, '▁', *LETTERS, *('▁' + letter for letter in LETTERS)]
    tokenizer = Tokenizer(models.Unigram(
        [(piece, -float(place)) for place, piece in enumerate(pieces)],
        unk_id=SPECIAL.index('<unk>')))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single='$A </s>', special_tokens=[('</s>', SPECIAL.index('</s>'))])
    tokenizer.save(str(folder / 'tokenizer.json'))
    (folder / 'tokenizer_config.json').write_text(json.dumps({
        'tokenizer_class': 'PreTrainedTokenizerFast', 'pad_token': '<pad>', 'eos_token': '</s>',
        'unk_token': '<unk>', 'model_max_length': 512}, indent=2))


def main() -> None:
    """Write the checkpoint to the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument(
        'folder', type=Path, help='created if missing; files in it are overwritten')
    parser.add_argument('--policy', type=Path, help='policy file (the shipped untrained.yaml)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--action-stream', action='store_true', help='the mixture of transformers of the paper')
    options = parser.parse_args()
    write_random_checkpoint(
        options.folder, options.policy or shared_file('config', 'policies', 'untrained.yaml'),
        options.seed, MIXTURE if options.action_stream else NETWORK)
    print(f'{options.folder}: an UNTRAINED checkpoint; its actions mean nothing')


if __name__ == '__main__':
    main()
