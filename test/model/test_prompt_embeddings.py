"""Prompt embeddings are cached on disk; the encoder is loaded only when needed."""

import logging
import os
import shutil

import pytest
import torch

from lingbot_va_ros.model import prompt_embeddings as prompts
from lingbot_va_ros.model.prompt_embeddings import PromptEmbeddings
from lingbot_va_ros.model.text_encoder import load_text_encoder
from lingbot_va_ros.specs.errors import CheckpointError

CPU = torch.device('cpu')


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch):
    """Forget what this process has encoded."""
    monkeypatch.setattr(prompts, '_cached', {})


@pytest.fixture
def loads(monkeypatch):
    """Return a list that grows with every loading of a text encoder."""
    seen = []

    def load(*arguments):
        seen.append(arguments)
        return load_text_encoder(*arguments)

    monkeypatch.setattr(prompts, 'load_text_encoder', load)
    return seen


@pytest.fixture
def make(untrained_checkpoint, tmp_path):
    """Return a function that makes PromptEmbeddings with files in a folder of the test."""
    def make_prompts(checkpoint=untrained_checkpoint, dtype=torch.float32, **options):
        options = {'folder': tmp_path / 'cache', **options}
        return PromptEmbeddings(checkpoint, CPU, dtype, **options)
    return make_prompts


def new_process(monkeypatch):
    monkeypatch.setattr(prompts, '_cached', {})


def only_file(tmp_path):
    files = list((tmp_path / 'cache').iterdir())
    assert len(files) == 1
    return files[0]


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('text', ['wipe the plate', '', 'plate ' * 600])
def test_embeddings_are_the_encoders_from_wherever_they_come(
        untrained_checkpoint, make, monkeypatch, loads, dtype, text):
    expected = load_text_encoder(untrained_checkpoint, CPU, dtype).encode(text)
    first = make(dtype=dtype).encode(text)
    second = make(dtype=dtype).encode(text)  # of the same process
    new_process(monkeypatch)
    third = make(dtype=dtype).encode(text)  # from disk
    assert len(loads) == 1
    for rows in (first, second, third):
        assert rows.dtype == dtype and torch.equal(rows, expected)


def test_an_instruction_is_known_by_its_words(make, loads):
    known = make()
    known.encode(' wipe  the plate')
    assert known.knows('wipe the plate') and not known.knows('wipe the cup')
    known.encode('wipe the plate ')
    assert len(loads) == 1


def test_several_instructions_load_the_encoder_once(make, loads):
    make().prepare(['', 'open', 'close', 'open'])
    assert len(loads) == 1


def test_released_is_the_default_and_kept_keeps_the_encoder(make, loads):
    released, kept = make(), make(place='cpu', folder='/proc/none')
    released.encode('open')
    assert released._encoder is None and len(loads) == 1
    kept.encode('close')
    kept.encode('turn')
    assert kept._encoder is not None and len(loads) == 2


def test_the_empty_prompt_is_computed_once_a_process_even_without_files(make, loads, monkeypatch):
    monkeypatch.setattr(prompts, 'MOST_REMEMBERED', 3)
    for _ in range(2):  # configured twice
        engine_prompts = make(folder='/proc/none')
        engine_prompts.encode('')
    for number in range(5):
        engine_prompts.encode(f'task {number}')
    before = len(loads)
    engine_prompts.encode('')
    assert before == 6 == len(loads)
    assert len(prompts._cached) == 3


def test_another_encoder_does_not_read_the_files_of_this_one(
        untrained_checkpoint, make, tmp_path, loads, monkeypatch):
    make().encode('open')
    other = shutil.copytree(untrained_checkpoint, tmp_path / 'other')
    path = other / 'text_encoder' / 'model.safetensors'
    state = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # as an archive would leave it
    new_process(monkeypatch)
    assert not make(other).knows('open')
    make(dtype=torch.bfloat16).encode('open')
    assert len(loads) == 2


def test_an_edit_that_no_block_shows_is_seen_by_its_time(untrained_checkpoint, tmp_path):
    copy = shutil.copytree(untrained_checkpoint, tmp_path / 'copy')
    before = prompts.hash_encoder(copy)
    assert before == prompts.hash_encoder(copy)
    os.utime(copy / 'text_encoder' / 'model.safetensors', (1, 1))
    assert prompts.hash_encoder(copy) != before


def test_another_tokenizer_is_another_encoder(untrained_checkpoint, tmp_path):
    copy = shutil.copytree(untrained_checkpoint, tmp_path / 'copy')
    before = prompts.hash_encoder(copy)
    with open(copy / 'tokenizer' / 'tokenizer.json', 'a') as file:
        file.write('\n')
    assert prompts.hash_encoder(copy) != before


def flip_last_byte(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 255
    path.write_bytes(data)


@pytest.mark.parametrize('damage', [
    lambda path: path.write_bytes(b''), lambda path: path.write_bytes(b'nonsense' * 20),
    lambda path: path.write_bytes(path.read_bytes()[:-3]), flip_last_byte])
def test_a_damaged_file_is_named_ignored_and_written_again(
        make, tmp_path, monkeypatch, caplog, loads, damage):
    expected = make().encode('open')
    damage(only_file(tmp_path))
    new_process(monkeypatch)
    assert torch.equal(make().encode('open'), expected)
    assert len(loads) == 2
    warning = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warning) == 1 and str(only_file(tmp_path)) in warning[0].getMessage()
    new_process(monkeypatch)
    assert make().knows('open')


@pytest.mark.parametrize('place', ['/proc/none', 'file'])
def test_a_folder_that_cannot_be_written_costs_only_the_files(
        make, tmp_path, caplog, untrained_checkpoint, place):
    (tmp_path / 'file').write_text('')
    folder = tmp_path / 'file' if place == 'file' else place
    rows = make(folder=folder).encode('open')
    assert torch.equal(rows, load_text_encoder(untrained_checkpoint, CPU, torch.float32)
                       .encode('open'))
    assert [record.message for record in caplog.records
            if record.levelno == logging.WARNING and 'not kept on disk' in record.message]


def test_old_files_make_room_for_new_ones(make, tmp_path, monkeypatch):
    monkeypatch.setattr(prompts, 'MOST_FILES', 2)
    for text in ('one', 'two', 'three'):
        make().encode(text)
    assert len(list((tmp_path / 'cache').iterdir())) == 2


@pytest.mark.parametrize('variable, expected', [
    ('/var/tmp/c', '/var/tmp/c/lingbot_va_ros/prompts'),
    ('relative', '/home/somebody/.cache/lingbot_va_ros/prompts'),
    ('', '/home/somebody/.cache/lingbot_va_ros/prompts')])
def test_files_lie_in_the_users_cache(monkeypatch, variable, expected):
    monkeypatch.setenv('XDG_CACHE_HOME', variable)
    monkeypatch.setenv('HOME', '/home/somebody')
    assert str(prompts.cache_folder()) == expected


def test_a_broken_encoder_or_tokenizer_is_refused_before_an_instruction_comes(
        untrained_checkpoint, make, tmp_path):
    make().encode('open')  # known from now on
    copy = shutil.copytree(untrained_checkpoint, tmp_path / 'copy')
    path = copy / 'text_encoder' / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match='model.safetensors'):
        make(copy)
    shutil.rmtree(copy / 'tokenizer')
    shutil.copy(untrained_checkpoint / 'text_encoder' / 'model.safetensors', path)
    with pytest.raises(CheckpointError, match='tokenizer'):
        make(copy)


def test_an_unknown_place_is_refused(make):
    with pytest.raises(ValueError, match="text_encoder is 'gpu'; expected one of release, cpu, d"):
        make(place='gpu')
