"""The latched stop file: it outlives a process, has a name of its own, is safe when broken."""

import os
from pathlib import Path
import stat

import pytest

from lingbot_va_ros.mux.latched_stop_file import LatchedStopFile


@pytest.fixture
def folder(tmp_path):
    return tmp_path / 'not' / 'there'


def test_a_stop_is_kept_until_it_is_cleared(folder):
    stop_file = LatchedStopFile(folder, '7/cell_1/command_mux')
    assert stop_file.read() is None
    stop_file.clear()
    stop_file.write('pressed')
    assert LatchedStopFile(folder, '7/cell_1/command_mux').read() == 'pressed'
    assert LatchedStopFile(folder, '8/cell_1/command_mux').read() is None
    stop_file.write('pressed again')
    assert stop_file.read() == 'pressed again' and os.listdir(folder) == [stop_file.path.name]
    stop_file.clear()
    stop_file.clear()
    assert stop_file.read() is None


@pytest.mark.parametrize('text', ['{"reas', '', '[' * 60_000, '{"reason"}', '[]', '\udce4'])
def test_a_file_that_cannot_be_read_is_a_stop(folder, text):
    stop_file = LatchedStopFile(folder, 'mux')
    stop_file.prepare()
    stop_file.path.write_text(text, errors='surrogateescape')
    assert stop_file.read() == 'its record cannot be read'


def test_folder_and_file_belong_to_the_user_alone(folder):
    stop_file = LatchedStopFile(folder, 'mux')
    stop_file.write('pressed')
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(stop_file.path.stat().st_mode) == 0o600


def test_the_folder_does_not_depend_on_the_session(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    expected = tmp_path / '.local' / 'state' / 'lingbot_va_ros' / 'stops'
    for name in ('XDG_RUNTIME_DIR', 'XDG_STATE_HOME', 'TMPDIR'):
        monkeypatch.setenv(name, str(tmp_path / name))
        assert LatchedStopFile(None, 'mux').path.parent == expected
        monkeypatch.delenv(name)
        assert LatchedStopFile(None, 'mux').path.parent == expected


@pytest.mark.parametrize('mode', [0o777, 0o770, 0o702])
def test_a_folder_where_others_may_write_is_refused(folder, mode):
    folder.mkdir(parents=True)
    folder.chmod(mode)
    stop_file = LatchedStopFile(folder, 'mux')
    for use in (stop_file.prepare, stop_file.read, stop_file.clear,
                lambda: stop_file.write('pressed')):
        with pytest.raises(PermissionError, match='others may write there; chmod it to 0700'):
            use()


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can give a folder away')
def test_a_folder_of_another_user_is_refused(folder):
    folder.mkdir(parents=True)
    os.chown(folder, 12345, 12345)
    with pytest.raises(PermissionError, match='it belongs to user 12345'):
        LatchedStopFile(folder, 'mux').read()


def test_a_folder_that_is_a_symbolic_link_is_refused(folder, tmp_path):
    folder.parent.mkdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(OSError):
        LatchedStopFile(folder, 'mux').write('pressed')
    assert os.listdir(tmp_path) == ['not']


def test_a_file_that_is_a_symbolic_link_is_a_stop_and_is_not_written_through(folder, tmp_path):
    target = tmp_path / 'target'
    target.write_text('{"reason": "elsewhere"}')
    stop_file = LatchedStopFile(folder, 'mux')
    stop_file.prepare()
    stop_file.path.symlink_to(target)
    assert stop_file.read() == 'its record cannot be read'
    stop_file.write('pressed')
    assert stop_file.read() == 'pressed'
    assert target.read_text() == '{"reason": "elsewhere"}'


def test_a_fifo_does_not_hold_up_the_start(folder):
    stop_file = LatchedStopFile(folder, 'mux')
    stop_file.prepare()
    os.mkfifo(stop_file.path)
    assert stop_file.read() == 'its record cannot be read'


def test_a_folder_that_cannot_be_made_is_an_os_error():
    with pytest.raises(OSError):
        LatchedStopFile(Path('/proc/none'), 'mux').write('pressed')
