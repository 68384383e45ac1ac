"""Processes of a command: a crash is detected, and all processes are ended."""

import os
import signal
import sys
import time

import pytest

from lingbot_va_ros.cli.common.failure import CommandFailed
from lingbot_va_ros.cli.common.processes import NodeProcesses, ros_environment

STUBBORN = ('import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); '
            'print("ready", flush=True); time.sleep(60)')


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def processes(tmp_path):
    with NodeProcesses(dict(os.environ), tmp_path) as running:
        yield running


def python(code: str):
    return [sys.executable, '-c', code]


def test_a_process_that_dies_is_named_with_the_end_of_its_log(processes):
    node = processes.start('arm', python(
        'print("first"); print("the reason"); raise SystemExit(3)'))
    wait_for(lambda: node.process.poll() is not None)
    with pytest.raises(CommandFailed) as failure:
        processes.check()
    assert str(failure.value) == 'arm ended unexpectedly (exit code 3)'
    assert failure.value.last_lines[-1] == 'the reason'


def test_a_node_that_cannot_start_is_given_with_its_own_reason(processes):
    node = processes.start('arm', python(
        'print("cannot start: no screen"); raise SystemExit(1)'))
    wait_for(lambda: node.process.poll() is not None)
    with pytest.raises(CommandFailed, match='^arm cannot start: no screen$'):
        processes.check()


def test_a_signal_is_called_by_its_name(processes):
    node = processes.start('arm', python('import time; time.sleep(60)'))
    node.process.send_signal(signal.SIGKILL)
    wait_for(lambda: node.process.poll() is not None)
    with pytest.raises(CommandFailed, match='SIGKILL'):
        processes.check()


def test_a_program_that_is_not_there_is_named(processes):
    with pytest.raises(CommandFailed, match='arm cannot be started: .*nowhere'):
        processes.start('arm', ['/nowhere/arm'])


def test_a_process_that_ignores_the_first_signal_is_ended_by_the_next(processes, monkeypatch):
    monkeypatch.setattr('lingbot_va_ros.cli.common.processes.ENDING', (
        (signal.SIGINT, 0.2), (signal.SIGTERM, 5.0)))
    node = processes.start('arm', python(STUBBORN))
    wait_for(lambda: 'ready' in node.log.read_text())
    assert processes.end() == ['arm did not end and was sent SIGTERM']
    assert not alive(node.process.pid)


def test_processes_end_when_the_demo_fails(tmp_path):
    with pytest.raises(RuntimeError):
        with NodeProcesses(dict(os.environ), tmp_path) as running:
            node = running.start('arm', python('import time; time.sleep(60)'))
            raise RuntimeError
    assert not alive(node.process.pid)


def test_what_the_user_has_set_stays(monkeypatch, tmp_path):
    monkeypatch.setenv('ROS_DOMAIN_ID', '7')
    monkeypatch.setenv('FASTRTPS_DEFAULT_PROFILES_FILE', '/mine.xml')
    monkeypatch.delenv('FASTDDS_DEFAULT_PROFILES_FILE', raising=False)
    environment = ros_environment(tmp_path)
    assert environment['ROS_DOMAIN_ID'] == '7'
    assert environment['FASTRTPS_DEFAULT_PROFILES_FILE'] == '/mine.xml'
    assert 'FASTDDS_DEFAULT_PROFILES_FILE' not in environment


def test_otherwise_the_demo_has_a_domain_and_the_profile_for_images(monkeypatch, tmp_path):
    for name in ('ROS_DOMAIN_ID', 'ROS_AUTOMATIC_DISCOVERY_RANGE', 'ROS_DISTRO',
                 'FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'):
        monkeypatch.delenv(name, raising=False)
    environment = ros_environment(tmp_path)
    assert 1 <= int(environment['ROS_DOMAIN_ID']) <= 101
    assert environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
    for name in ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'):
        assert os.path.isfile(environment[name])
