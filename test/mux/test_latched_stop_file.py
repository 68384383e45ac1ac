"""The latched stop file: it outlives a process, has a name of its own, is safe when broken."""

from pathlib import Path

import pytest

from lingbot_va_ros.mux.latched_stop_file import LatchedStopFile


def test_a_stop_is_kept_until_it_is_cleared(tmp_path):
    folder = tmp_path / 'not' / 'there'
    stop_file = LatchedStopFile(folder, '7/cell_1/command_mux')
    assert stop_file.read() is None
    stop_file.write('pressed')
    assert LatchedStopFile(folder, '7/cell_1/command_mux').read() == 'pressed'
    assert LatchedStopFile(folder, '8/cell_1/command_mux').read() is None
    stop_file.clear()
    stop_file.clear()
    assert stop_file.read() is None


def test_a_file_that_cannot_be_read_is_a_stop(tmp_path):
    stop_file = LatchedStopFile(tmp_path, 'mux')
    stop_file.path.write_text('{"reas')
    assert stop_file.read() == 'its record cannot be read'


def test_the_folder_is_the_users_runtime_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_RUNTIME_DIR', str(tmp_path))
    assert LatchedStopFile(None, 'mux').path.parent == tmp_path / 'lingbot_va_ros'
    monkeypatch.delenv('XDG_RUNTIME_DIR')
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    assert LatchedStopFile(None, 'mux').path.parent.parent == tmp_path


def test_a_folder_that_cannot_be_made_is_an_os_error():
    with pytest.raises(OSError):
        LatchedStopFile(Path('/proc/none'), 'mux').write('pressed')
