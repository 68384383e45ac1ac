"""Finds the files that are installed beside the Python code (config, urdf, models)."""

from pathlib import Path

PACKAGE = 'lingbot_va_ros'


def share_folder() -> Path:
    """
    Return the package's share folder, or the root of the checkout when run from one.

    The folders above this file are searched, so that an ament prefix, a colcon overlay and a
    checkout work without environment variables.

    :raises FileNotFoundError: neither is above this file.
    """
    here = Path(__file__).resolve()
    for folder in here.parents:
        if (folder / 'share' / PACKAGE / 'package.xml').is_file():
            return folder / 'share' / PACKAGE
        if (folder / 'package.xml').is_file() and (folder / 'config').is_dir():
            return folder
    raise FileNotFoundError(f'no share/{PACKAGE} above {here}; is the package fully installed?')


def shared_file(*parts: str) -> Path:
    """
    Return the path of one shared file, such as ``shared_file('config', 'policies', 'demo.yaml')``.

    :raises FileNotFoundError: the file is not installed; the message names it.
    """
    path = share_folder().joinpath(*parts)
    if not path.exists():
        raise FileNotFoundError(f'{path} does not exist')
    return path
