"""The latched stop of the node: written in order, and nothing waits for the file system."""

import threading
import time
from types import SimpleNamespace

import pytest

from lingbot_va_ros.mux.latched_stop_file import LatchedStopFile
from lingbot_va_ros.nodes.command_mux import latched_stop
from lingbot_va_ros.nodes.command_mux.latched_stop import LatchedStop


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def node(warnings):
    logger = SimpleNamespace(
        info=lambda line: None, warning=lambda line, **_: warnings.append(line))
    return SimpleNamespace(
        get_fully_qualified_name=lambda: '/command_mux', get_logger=lambda: logger)


def test_the_last_of_many_stops_is_on_disk_when_it_is_closed(node, tmp_path):
    stop = LatchedStop(node, str(tmp_path))
    for number in range(20):
        stop.write(f'stop {number}')
        stop.clear()
    stop.write('the last one')
    assert stop.close()
    machine = SimpleNamespace(begin_stopped=lambda reason: setattr(machine, 'reason', reason))
    LatchedStop(node, str(tmp_path)).restore(SimpleNamespace(machine=machine))
    assert machine.reason == 'stopped before the mux was restarted: the last one'


def test_a_file_system_that_hangs_holds_up_nobody(node, tmp_path, warnings, monkeypatch):
    answers = threading.Event()
    done = []

    def write(_file, reason):
        answers.wait(30.0)
        done.append(reason)
    monkeypatch.setattr(LatchedStopFile, 'write', write)
    monkeypatch.setattr(LatchedStopFile, 'clear', lambda _file: done.append(None))
    monkeypatch.setattr(latched_stop, 'CLOSE_SECONDS', 0.1)
    stop = LatchedStop(node, str(tmp_path))
    begun = time.monotonic()
    for task in (lambda: stop.write('one'), stop.clear, lambda: stop.write('two')):
        task()
    assert time.monotonic() - begun < 0.05 and not done
    assert not stop.close()
    assert len(warnings) == 1 and 'the file system has not answered' in warnings[0]
    answers.set()
    stop._thread.join(5.0)
    assert done == ['one', None, 'two']


def test_a_folder_that_cannot_be_used_is_one_line(node, warnings):
    stop = LatchedStop(node, '/proc/none')
    stop.write('pressed')
    assert stop.close() and len(warnings) == 1 and '\n' not in warnings[0]
