"""pip installs files where ROS finds them; they run without a sourced workspace."""

import os
from pathlib import Path
import signal
import subprocess
import sys
import time

from ament_index_python.packages import get_package_prefix
import pytest
import rclpy

PREFIX = Path(sys.prefix)
# Executable and the name of its node.
NODES = {
    'policy_node': 'lingbot_va_policy', 'command_mux': 'command_mux', 'sim_robot': 'sim_robot'}


def test_the_ament_index_knows_the_package(pip_files, monkeypatch):
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(PREFIX))
    assert get_package_prefix('lingbot_va_ros') == str(PREFIX)


def test_shared_files_are_installed(pip_files):
    for folder in ('config', 'launch', 'msg', 'models', 'srv', 'action', 'urdf'):
        source = Path(__file__).resolve().parents[2] / folder
        missing = {f'share/lingbot_va_ros/{folder}/{path.relative_to(source)}'
                   for path in source.rglob('*')
                   if path.is_file() and path.suffix != '.pyc'} - pip_files
        assert missing == set()


@pytest.mark.parametrize('name', [*NODES, 'lingbot_va'])
def test_an_executable_is_where_ros2_run_looks(name, pip_files):
    file = PREFIX / 'lib' / 'lingbot_va_ros' / name
    assert str(file.relative_to(PREFIX)) in pip_files
    assert os.access(file, os.X_OK)
    shebang = file.read_text().splitlines()[0]
    assert Path(shebang.removeprefix('#!')).samefile(sys.executable)
    assert Path(shebang.removeprefix('#!')).is_relative_to(PREFIX)


def test_the_command_line_runs_from_a_bare_shell(bare_shell, pip_files):
    done = subprocess.run(
        [PREFIX / 'bin' / 'lingbot_va', '--help'], env=bare_shell, capture_output=True, text=True,
        timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert 'demo' in done.stdout


@pytest.mark.parametrize('name', NODES)
def test_a_node_runs_from_a_bare_shell(name, bare_shell, pip_files):
    watcher_context = rclpy.Context()
    rclpy.init(context=watcher_context)
    watcher = rclpy.create_node('watcher', context=watcher_context)
    process = subprocess.Popen(
        [PREFIX / 'lib' / 'lingbot_va_ros' / name, '--ros-args', '-r', '__ns:=/bare'],
        env=bare_shell, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline = time.monotonic() + 40
        seen = False
        while not seen and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
            seen = (NODES[name], '/bare') in watcher.get_node_names_and_namespaces()
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
        watcher.destroy_node()
        rclpy.shutdown(context=watcher_context)
    assert seen, output
    assert process.returncode == 0, output


def test_nothing_that_a_package_depends_on_is_missing(pip_files):
    """The pins are installed without asking for dependencies, so one could have been left out."""
    done = subprocess.run(
        [sys.executable, '-m', 'pip', '--disable-pip-version-check', 'check'],
        capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
