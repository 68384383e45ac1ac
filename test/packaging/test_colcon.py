"""
A colcon workspace builds the files that pip installs, and the sourced workspace runs that build.

All tests that need the workspace are in this file, so that one process alone builds it.
"""

from dataclasses import dataclass
import json
import os
from pathlib import Path
import shlex
import shutil
import subprocess
import sys

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PARTS = ('action', 'cmake', 'config', 'launch', 'lingbot_va_ros', 'models', 'msg', 'srv', 'test',
         'urdf', 'CMakeLists.txt', 'package.xml', 'pyproject.toml', 'requirements.txt',
         'setup.py')

pytestmark = pytest.mark.timeout(600)

# Sends one message of the package's own over DDS, and says where everything came from.
PROBE = """
import json, time
import rclpy
from ament_index_python.packages import get_package_prefix
import lingbot_va_ros
from lingbot_va_ros import resources
from lingbot_va_ros.msg import ControlMode, _control_mode

rclpy.init()
node = rclpy.create_node('probe')
heard = []
node.create_subscription(ControlMode, 'mode', heard.append, 1)
publisher = node.create_publisher(ControlMode, 'mode', 1)
deadline = time.monotonic() + 20
while not heard and time.monotonic() < deadline:
    publisher.publish(ControlMode(mode=ControlMode.TELEOP, reason='probe'))
    rclpy.spin_once(node, timeout_sec=0.05)
print(json.dumps({
    'package': lingbot_va_ros.__file__, 'message': _control_mode.__file__,
    'share': str(resources.share_folder()), 'prefix': get_package_prefix('lingbot_va_ros'),
    'heard': [[message.mode, message.reason] for message in heard[:1]]}))
"""


@dataclass(frozen=True)
class Overlay:
    """What colcon has made: the workspace's install folder and the package's prefix in it."""

    install: Path
    prefix: Path


@pytest.fixture(scope='module')
def overlay(tmp_path_factory) -> Overlay:
    """Build the package with colcon, on top of the ROS that these tests run in."""
    workspace = tmp_path_factory.mktemp('workspace')
    source = workspace / 'src' / 'lingbot_va_ros'
    source.mkdir(parents=True)
    for part in PARTS:
        if (CHECKOUT / part).is_dir():
            shutil.copytree(CHECKOUT / part, source / part,
                            ignore=shutil.ignore_patterns('__pycache__'))
        elif (CHECKOUT / part).exists():
            shutil.copy2(CHECKOUT / part, source)
    scripts = Path(sys.executable).parent
    environment = dict(os.environ)
    environment['PATH'] = f'{scripts}{os.pathsep}{environment["PATH"]}'
    for variable in ('AMENT_PREFIX_PATH', 'CMAKE_PREFIX_PATH'):
        known = environment.get(variable, '').split(os.pathsep)
        environment[variable] = os.pathsep.join([*filter(None, known), sys.prefix])
    generator = ['-G', 'Ninja'] if shutil.which('ninja', path=environment['PATH']) else []
    done = subprocess.run(
        ['colcon', '--log-base', 'log', 'build', '--executor', 'sequential', '--cmake-args',
         f' -DPython3_EXECUTABLE={sys.executable}', *generator],
        cwd=workspace, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False)
    assert done.returncode == 0, done.stdout
    return Overlay(workspace / 'install', workspace / 'install' / 'lingbot_va_ros')


def test_pip_and_colcon_install_the_same_files(overlay, pip_files):
    by_colcon = {str(path.relative_to(overlay.prefix)) for path in overlay.prefix.rglob('*')
                 if path.is_file() and path.suffix != '.pyc'}
    # What the tools add about themselves: colcon its hooks, CMake and pip a record of the package.
    by_colcon = {
        path for path in by_colcon
        if '.egg-info' not in path and not path.startswith(
            ('share/colcon-core', 'share/lingbot_va_ros/hook/', 'share/lingbot_va_ros/package.'))}
    by_colcon.add('share/lingbot_va_ros/package.xml')
    by_pip = pip_files - {'share/lingbot_va_ros/package.dsv'}
    assert by_pip - by_colcon == set()
    assert by_colcon - by_pip == set()


def test_a_sourced_workspace_runs_from_its_own_files(overlay, bare_shell):
    command = (f'. {shlex.quote(str(overlay.install / "setup.bash"))} && '
               f'{shlex.quote(sys.executable)} -c {shlex.quote(PROBE)}')
    done = subprocess.run(
        ['bash', '-c', command], cwd=overlay.install, env=bare_shell, capture_output=True,
        text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    prefix = f'{overlay.prefix}/'
    assert said['package'].startswith(prefix)
    assert said['message'].startswith(prefix)
    assert said['share'] == f'{prefix}share/lingbot_va_ros'
    assert said['prefix'] == str(overlay.prefix)
    assert said['heard'] == [[1, 'probe']]


def test_the_environment_hooks_reach_the_shell(overlay, bare_shell):
    command = (f'. {shlex.quote(str(overlay.install / "setup.bash"))} && '
               'echo "$AMENT_PREFIX_PATH" && command -v lingbot_va')
    done = subprocess.run(
        ['bash', '-c', command], cwd=overlay.install, env=bare_shell, capture_output=True,
        text=True, timeout=60, check=True)
    prefix_path, script = done.stdout.splitlines()
    assert prefix_path.split(':')[0] == str(overlay.prefix)
    assert script == str(overlay.prefix / 'bin' / 'lingbot_va')
