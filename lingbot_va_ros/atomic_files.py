"""Writes files and folders atomically: under a temporary name, renamed when complete."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
import os
from pathlib import Path
import secrets
import shutil


@contextmanager
def atomic_files(paths: Sequence[Path], durable: bool = False) -> Iterator[list[Path]]:
    """
    Yield a temporary file beside each path; at the end they are renamed to the paths.

    The temporary files are created immediately, so that an unwritable path fails before the work.
    After an exception, temporary files and folders created for them are removed, and existing
    files at the paths are unchanged.

    :param durable: flush the files to the disk before they are renamed.
    :raises OSError: a folder or file cannot be written; the error names the final path.
    """
    temporary = [_temporary_name(path) for path in paths]
    created: list[Path] = []
    try:
        for path, unfinished in zip(paths, temporary):
            _create_folder(path.parent, created)
            if path.is_dir():
                raise IsADirectoryError(21, 'it is a folder', str(path))
            unfinished.touch()
        yield temporary
        for path, unfinished in zip(paths, temporary):
            if durable:
                _flush_to_disk(unfinished)
            os.replace(unfinished, path)
    except OSError as error:
        final = {str(name): str(path) for name, path in zip(temporary, paths)}
        if str(error.filename) in final:
            error.filename = final[str(error.filename)]
        raise
    finally:
        _remove_all(temporary, created)


@contextmanager
def atomic_file(path: Path, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary file that is renamed to the path at the end; see `atomic_files`."""
    with atomic_files([path], durable) as (temporary,):
        yield temporary


def write_text(path: Path, text: str) -> None:
    """
    Write a text file atomically, UTF-8.

    :raises OSError: it cannot be written; the error names the path.
    """
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding='utf-8')


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """
    Yield a new empty folder that replaces the folder at the path at the end.

    After an exception it is removed, and an existing folder at the path is unchanged.

    :raises OSError: it cannot be created or renamed.
    """
    temporary = _temporary_name(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
    finally:
        _again_if_interrupted(lambda: shutil.rmtree(temporary, ignore_errors=True))


def check_writable(path: Path) -> None:
    """
    Check that a file can be written; no file is created, and an existing one is unchanged.

    :raises OSError: it cannot be written.
    """
    try:
        with atomic_file(path):
            raise _OnlyChecked
    except _OnlyChecked:
        pass


class _OnlyChecked(Exception):
    """Prevents `check_writable` from renaming."""


def _temporary_name(path: Path) -> Path:
    # The random part follows the suffix, so that `*.npz` matches no unfinished file.
    return path.with_name(f'.{path.name}.{os.getpid()}-{secrets.token_hex(4)}')


def _create_folder(folder: Path, created: list[Path]) -> None:
    """Create a folder with its parents, and append those created, the outermost first."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        created.append(each)


def _flush_to_disk(path: Path) -> None:
    with open(path, 'rb') as file:
        os.fsync(file.fileno())


def _remove_all(files: Sequence[Path], folders: Sequence[Path]) -> None:
    def remove() -> None:
        for file in files:
            _ignoring_errors(file.unlink)
        for folder in reversed(folders):
            _ignoring_errors(folder.rmdir)  # fails if it is not empty

    _again_if_interrupted(remove)


def _again_if_interrupted(remove: Callable[[], object]) -> None:
    """Remove; a second Ctrl-C during this must not leave files."""
    try:
        remove()
    except KeyboardInterrupt:
        _again_if_interrupted(remove)
        raise


def _ignoring_errors(remove: Callable[[], object]) -> None:
    try:
        remove()
    except OSError:
        pass
