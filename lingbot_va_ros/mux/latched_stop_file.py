"""The latched stop file: keeps a stop on disk, so that a respawned mux starts STOPPED."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
import json
import os
from pathlib import Path
import re
import secrets
import stat

# Longest record that is read, bytes.
LONGEST = 1 << 16
UNREADABLE = 'its record cannot be read'


class LatchedStopFile:
    """
    A file that exists while a mux is STOPPED.

    It outlives the process, and a reboot. Its folder must belong to this user, and nobody else may
    write there; symbolic links are not followed. Every method raises OSError where the folder
    cannot be used.

    :param folder: of the file; None: ~/.local/state/lingbot_va_ros/stops. It is the same under
        ssh, launch and systemd, as $XDG_RUNTIME_DIR is not.
    :param name: distinguishes the muxes of a machine: ROS domain and full node name.
    """

    def __init__(self, folder: Path | None, name: str) -> None:
        self._folder = folder or Path.home() / '.local' / 'state' / 'lingbot_va_ros' / 'stops'
        self._name = f'stop_{re.sub("[^A-Za-z0-9]+", "_", name)}.json'
        self.path = self._folder / self._name

    def prepare(self) -> None:
        """Create the folder where it is missing, and check it."""
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._folder.mkdir(mode=0o700)
        except FileExistsError:
            pass
        with self._opened():
            pass

    def read(self) -> str | None:
        """Return why the mux before this one was STOPPED, or None if it was not."""
        try:
            with self._opened() as folder:
                text = _read(self._name, folder)
        except FileNotFoundError:
            return None
        try:
            return str(json.loads(text)['reason'])
        except (ValueError, KeyError, TypeError, RecursionError):
            return UNREADABLE  # a broken file is a stop as well

    def write(self, reason: str) -> None:
        """
        Write a stop and its reason, through to the disk.

        The file is in place before it is flushed, which may take long.
        """
        self.prepare()
        unfinished = f'.{self._name}.{secrets.token_hex(4)}'
        with self._opened() as folder:
            file = os.open(
                unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o600, dir_fd=folder)
            try:
                os.write(file, json.dumps({'reason': reason}).encode())
                os.replace(unfinished, self._name, src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(file)
                os.fsync(folder)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(unfinished, dir_fd=folder)
                raise
            finally:
                os.close(file)

    def clear(self) -> None:
        """Remove the file."""
        try:
            with self._opened() as folder:
                os.unlink(self._name, dir_fd=folder)
        except FileNotFoundError:
            pass

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Yield the folder's descriptor, checked."""
        folder = os.open(
            self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            status = os.fstat(folder)
            if status.st_uid != os.geteuid():
                raise PermissionError(
                    1, f'it belongs to user {status.st_uid}, not to this one', str(self._folder))
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise PermissionError(
                    1, 'others may write there; chmod it to 0700', str(self._folder))
            yield folder
        finally:
            os.close(folder)


def _read(name: str, folder: int) -> str:
    """
    Return a file's text; an empty one stands for what is no regular file of this user.

    :raises FileNotFoundError: there is nothing of that name.
    """
    try:
        # Not blocking: a FIFO must not hold up the start.
        file = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError:  # a symbolic link, or a file that may not be read
        return ''
    with os.fdopen(file, 'rb') as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            return ''
        return stream.read(LONGEST).decode('utf-8', 'replace')
