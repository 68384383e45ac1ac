"""The text encoder: an instruction to 512 embeddings."""

import json
import shutil

import pytest
import torch

from lingbot_va_ros.model.text_encoder import clean_instruction, load_text_encoder
from lingbot_va_ros.specs.errors import CheckpointError

CPU = torch.device('cpu')


def load(checkpoint, dtype=torch.float32):
    return load_text_encoder(checkpoint, CPU, dtype)


@pytest.fixture(scope='module')
def encoder(untrained_checkpoint):
    return load(untrained_checkpoint)


@pytest.fixture
def checkpoint(untrained_checkpoint, tmp_path):
    """Return a copy of text_encoder/ and tokenizer/, to be damaged."""
    for part in ('text_encoder', 'tokenizer'):
        shutil.copytree(untrained_checkpoint / part, tmp_path / part)
    return tmp_path


def test_an_instruction_becomes_512_rows_that_are_zero_after_its_end(encoder):
    rows = encoder.encode('wipe the plate')
    assert rows.shape == (1, 512, 32) and rows.dtype == torch.float32
    written = int((rows[0].abs().sum(-1) > 0).sum())
    assert 3 <= written < 40
    assert torch.equal(rows[:, written:], torch.zeros(1, 512 - written, 32))


def test_different_instructions_have_different_embeddings(encoder):
    assert not torch.equal(encoder.encode('open the box'), encoder.encode('close the box'))


def test_the_empty_instruction_has_an_embedding(encoder):
    rows = encoder.encode('')
    assert rows[0, 0].abs().sum() > 0 and rows[0, 1:].abs().sum() == 0


def test_a_long_instruction_is_cut_to_512_rows(encoder):
    assert encoder.encode('plate ' * 1000).shape == (1, 512, 32)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_rows_after_the_text_are_zero_in_half_precision_too(untrained_checkpoint, dtype):
    rows = load(untrained_checkpoint, dtype).encode('go')
    assert rows.dtype == dtype
    assert rows.isfinite().all() and torch.equal(rows[:, 100:], torch.zeros_like(rows[:, 100:]))


@pytest.mark.parametrize('text, clean', [
    ('  open \n the\tbox ', 'open the box'), ('cup &amp;amp; plate', 'cup & plate'), ('', '')])
def test_white_space_is_folded_and_html_undone(text, clean):
    assert clean_instruction(text) == clean


def change_config(checkpoint, **changes):
    path = checkpoint / 'text_encoder' / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize('damage, part', [
    (lambda root: shutil.rmtree(root / 'text_encoder'), 'text_encoder/config.json does not exist'),
    (lambda root: (root / 'text_encoder/config.json').write_text('nope'), 'json is not JSON'),
    (lambda root: (root / 'text_encoder/config.json').write_text('[]'), 'not hold a JSON object'),
    (lambda root: change_config(root, d_model=64),
     'shared.weight has the shape [76, 32], expected [76, 64]'),
    (lambda root: change_config(root, num_layers=3),
     'missing encoder.block.2.layer.0.SelfAttention.q.weight [32, 32]'),
    (lambda root: change_config(root, num_layers=1),
     'extra encoder.block.1.layer.0.SelfAttention.q.weight [32, 32]'),
    (lambda root: (root / 'text_encoder/model.safetensors').write_text('x'),
     'model.safetensors cannot be read')])
def test_a_damaged_encoder_is_refused_by_name(checkpoint, damage, part):
    damage(checkpoint)
    with pytest.raises(CheckpointError) as refused:
        load(checkpoint)
    message = str(refused.value)
    assert part in message and str(checkpoint) in message and '\n' not in message


@pytest.mark.parametrize('damage, part', [
    (lambda folder: shutil.rmtree(folder), 'tokenizer is not a folder'),
    (lambda folder: [path.unlink() for path in folder.iterdir()], 'a readable tokenizer'),
    (lambda folder: (folder / 'tokenizer.json').write_text('{}'), 'a readable tokenizer'),
    (lambda folder: (folder / 'tokenizer_config.json').write_text('[]'), 'a readable tokenizer')])
def test_a_damaged_tokenizer_is_refused_by_name(checkpoint, damage, part):
    damage(checkpoint / 'tokenizer')
    with pytest.raises(CheckpointError) as refused:
        load(checkpoint).encode('go')
    message = str(refused.value)
    assert part in message and str(checkpoint / 'tokenizer') in message and '\n' not in message
