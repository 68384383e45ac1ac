"""Files and folders are written atomically, also if an exception or a signal ends the work."""

import os
from pathlib import Path

import pytest

from lingbot_va_ros.atomic_files import (
    atomic_file,
    atomic_files,
    atomic_folder,
    check_writable,
    write_text,
)


def test_files_appear_together_at_the_end(tmp_path):
    paths = [tmp_path / 'new' / 'a.txt', tmp_path / 'b.txt']
    with atomic_files(paths) as temporary:
        for number, path in enumerate(temporary):
            path.write_text(str(number))
        assert not any(path.exists() for path in paths)
    assert [path.read_text() for path in paths] == ['0', '1']
    assert sorted(path.name for path in tmp_path.iterdir()) == ['b.txt', 'new']


def test_a_failure_leaves_what_was_there_and_no_folder(tmp_path):
    old = tmp_path / 'old.txt'
    old.write_text('kept')
    with pytest.raises(RuntimeError):
        with atomic_files([old, tmp_path / 'a' / 'b' / 'c.txt']) as temporary:
            temporary[0].write_text('new')
            raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ['old.txt']
    assert old.read_text() == 'kept'


def test_a_second_interrupt_while_files_are_removed_leaves_nothing(tmp_path, monkeypatch):
    unlink, interrupts = Path.unlink, [KeyboardInterrupt, KeyboardInterrupt]

    def interrupted(path, *arguments, **keywords):
        if interrupts:
            raise interrupts.pop()
        return unlink(path, *arguments, **keywords)
    monkeypatch.setattr(Path, 'unlink', interrupted)
    with pytest.raises(KeyboardInterrupt):
        with atomic_files([tmp_path / 'a', tmp_path / 'folder' / 'b']):
            raise KeyboardInterrupt
    assert interrupts == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('name', ['file/below', 'folder'])
def test_what_cannot_be_written_is_named_before_the_work(tmp_path, name):
    (tmp_path / 'file').write_text('a file')
    (tmp_path / 'folder').mkdir()
    with pytest.raises(OSError) as refused:
        check_writable(tmp_path / name)
    assert str(tmp_path / name.split('/')[0]) in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['file', 'folder']


def test_an_error_of_the_temporary_file_names_the_final_one(tmp_path):
    with pytest.raises(OSError) as failure, atomic_file(tmp_path / 'a.txt') as temporary:
        raise OSError(28, 'No space left on device', str(temporary))
    assert failure.value.filename == str(tmp_path / 'a.txt')


def test_a_check_changes_nothing(tmp_path):
    write_text(tmp_path / 'a.txt', 'before')
    check_writable(tmp_path / 'a.txt')
    check_writable(tmp_path / 'new' / 'b.txt')
    assert [path.name for path in tmp_path.iterdir()] == ['a.txt']
    assert (tmp_path / 'a.txt').read_text() == 'before'


def test_a_folder_replaces_the_old_one_whole(tmp_path):
    folder = tmp_path / 'checkpoint'
    (folder / 'sub').mkdir(parents=True)
    with pytest.raises(ValueError), atomic_folder(folder) as temporary:
        (temporary / 'new').touch()
        raise ValueError
    assert [path.name for path in folder.iterdir()] == ['sub']
    with atomic_folder(folder) as temporary:
        (temporary / 'new').touch()
    assert [path.name for path in folder.iterdir()] == ['new']
    assert [path.name for path in tmp_path.iterdir()] == ['checkpoint']


def test_unfinished_files_have_no_suffix_that_readers_look_for(tmp_path):
    with atomic_file(tmp_path / 'a.npz', durable=True):
        assert not list(tmp_path.glob('*.npz')) and len(os.listdir(tmp_path)) == 1
