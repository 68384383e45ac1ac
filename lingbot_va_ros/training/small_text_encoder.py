"""
Writes a small random text encoder of the public class and its tokenizer.

Its weights are random and not trained; it has to distinguish a few instructions only.
"""

from collections.abc import Sequence
import json
from pathlib import Path
import re

from tokenizers import models, normalizers, pre_tokenizers, processors, Tokenizer
import torch
from transformers import UMT5Config, UMT5EncoderModel

from lingbot_va_ros.model.text_encoder import clean_instruction, TOKENS
from lingbot_va_ros.training.settings import TextSettings

SPECIAL = ('<pad>', '</s>', '<unk>')
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'-"
WORD, LETTER = -5.0, -10.0  # log-likelihoods, so that a known word is one piece
# Words in the vocabulary besides those of the instructions; others become letters.
MORE_WORDS = (
    'please', 'now', 'then', 'and', 'again', 'back', 'home', 'arm', 'robot', 'table', 'sponge',
    'dish', 'lid', 'box', 'boxes', 'left', 'right', 'first', 'second', 'other', 'one', 'two',
    'three', 'four', 'five', 'six', 'seven', 'times', 'twice', 'exactly', 'wipe', 'clean', 'open',
    'close', 'shut', 'look', 'inside', 'find', 'put', 'move', 'go', 'return', 'stop', 'pick',
    'place', 'push', 'pull', 'red', 'green', 'blue', 'yellow', 'white', 'black')


def write_text_encoder(
    folder: Path, instructions: Sequence[str], settings: TextSettings, seed: int,
) -> None:
    """
    Write text_encoder/ and tokenizer/; the same arguments give the same files.

    :param folder: folder of the checkpoint.
    """
    vocabulary = _write_tokenizer(folder / 'tokenizer', instructions)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        UMT5EncoderModel(UMT5Config(
            vocab_size=vocabulary, d_model=settings.dim, d_kv=settings.dim // settings.heads,
            d_ff=2 * settings.dim, num_layers=settings.layers, num_heads=settings.heads,
            is_encoder_decoder=False)).save_pretrained(str(folder / 'text_encoder'))


def _write_tokenizer(folder: Path, instructions: Sequence[str]) -> int:
    """Write a unigram tokenizer, as SentencePiece's, and return its number of pieces."""
    words = sorted({
        word for text in (*instructions, *MORE_WORDS)
        for word in re.findall(r'[a-z0-9]+', clean_instruction(text).lower()) if len(word) > 1})
    pieces = [(piece, 0.0) for piece in SPECIAL]
    pieces += [(begin + word, WORD) for word in words for begin in ('▁', '')]
    pieces += [(begin + letter, LETTER) for letter in LETTERS for begin in ('▁', '')]
    pieces.append(('▁', LETTER))
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=SPECIAL.index('<unk>')))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single='$A </s>', special_tokens=[('</s>', SPECIAL.index('</s>'))])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / 'tokenizer.json'))
    (folder / 'tokenizer_config.json').write_text(json.dumps({
        'tokenizer_class': 'PreTrainedTokenizerFast', 'pad_token': '<pad>', 'eos_token': '</s>',
        'unk_token': '<unk>', 'model_max_length': TOKENS}, indent=2))
    return len(pieces)
