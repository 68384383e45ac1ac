"""Write files whole or not at all."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
import os
from pathlib import Path


@contextmanager
def whole_files(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """
    Yield a temporary file beside each path; they take the paths' names at the end.

    The files are made at once, so that what cannot be written is known before the work. After an
    exception none of them is left, nor a folder that was made for them, and what was at the paths
    is as it was.

    :raises OSError: a folder or file cannot be written; the message names it.
    """
    unfinished = [
        path.with_name(f'.unfinished-{os.getpid()}-{place}-{path.name}')
        for place, path in enumerate(paths)]
    made: list[Path] = []
    try:
        for path, temporary in zip(paths, unfinished):
            _make_folder(path.parent, made)
            if path.is_dir():
                raise IsADirectoryError(21, 'it is a folder', str(path))
            temporary.touch()
        yield unfinished
        for path, temporary in zip(paths, unfinished):
            os.replace(temporary, path)
    finally:
        for temporary in unfinished:
            _remove(temporary.unlink)
        for folder in reversed(made):
            _remove(folder.rmdir)  # refused where it is not empty


def _make_folder(folder: Path, made: list[Path]) -> None:
    """Make a folder with those above it; note which ones, the outermost first."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        made.append(each)


def _remove(remove) -> None:
    try:
        remove()
    except OSError:
        pass
