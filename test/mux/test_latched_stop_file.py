"""The record of a stop: kept over a process, told apart by name, and safe when broken."""

from pathlib import Path

import pytest

from lingbot_va_ros.mux.latched_stop_file import StopRecord


def test_a_stop_is_kept_until_it_is_cleared(tmp_path):
    folder = tmp_path / 'not' / 'there'
    record = StopRecord(folder, '7/cell_1/command_mux')
    assert record.read() is None
    record.write('pressed')
    assert StopRecord(folder, '7/cell_1/command_mux').read() == 'pressed'
    assert StopRecord(folder, '8/cell_1/command_mux').read() is None
    record.clear()
    record.clear()
    assert record.read() is None


def test_a_record_that_cannot_be_read_is_a_stop(tmp_path):
    record = StopRecord(tmp_path, 'mux')
    record.path.write_text('{"reas')
    assert record.read() == 'its record cannot be read'


def test_the_folder_is_the_users_runtime_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_RUNTIME_DIR', str(tmp_path))
    assert StopRecord(None, 'mux').path.parent == tmp_path / 'lingbot_va_ros'
    monkeypatch.delenv('XDG_RUNTIME_DIR')
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    assert StopRecord(None, 'mux').path.parent.parent == tmp_path


def test_a_folder_that_cannot_be_made_is_an_os_error():
    with pytest.raises(OSError):
        StopRecord(Path('/proc/none'), 'mux').write('pressed')
