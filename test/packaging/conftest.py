"""What the packaging tests share: a bare shell, and the files that pip has installed."""

from importlib import metadata
import os
from pathlib import Path
import sys

import pytest

PREFIX = Path(sys.prefix)


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
def pip_files() -> set[str]:
    """Return the package's files relative to the prefix, as pip has recorded them."""
    try:
        files = metadata.files('lingbot_va_ros')
    except metadata.PackageNotFoundError:
        files = None
    if not files or not any(file.name == 'RECORD' for file in files):
        pytest.skip('this copy of the package was not installed by pip')
    return {str(Path(os.path.normpath(file.locate())).relative_to(PREFIX)) for file in files
            if file.suffix != '.pyc' and '.dist-info' not in str(file)}
