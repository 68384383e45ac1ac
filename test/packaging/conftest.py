"""A colcon build of a copy of the package, shared by the packaging tests."""

from dataclasses import dataclass
import os
from pathlib import Path
import shutil
import subprocess
import sys

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PARTS = ('action', 'cmake', 'config', 'launch', 'lingbot_va_ros', 'models', 'msg', 'srv', 'test',
         'urdf', 'CMakeLists.txt', 'package.xml', 'pyproject.toml', 'requirements.txt',
         'setup.py')


@dataclass(frozen=True)
class Overlay:
    """What colcon has made: the workspace's install folder and the package's prefix in it."""

    install: Path
    prefix: Path


def bare_environment(home: Path) -> dict[str, str]:
    """Return what a shell has right after login, with a home folder of its own."""
    return {
        'HOME': str(home), 'PATH': os.defpath, 'LANG': 'C.UTF-8',
        'ROS_DOMAIN_ID': os.environ['ROS_DOMAIN_ID'],
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}


@pytest.fixture
def bare_shell(tmp_path):
    """Return the environment of a shell in which nothing was sourced or activated."""
    return bare_environment(tmp_path)


@pytest.fixture(scope='session')
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
