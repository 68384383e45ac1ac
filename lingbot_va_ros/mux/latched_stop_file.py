"""The latched stop file: keeps a stop on disk, so that a respawned mux starts STOPPED."""

import json
import os
from pathlib import Path
import re
import tempfile

from lingbot_va_ros.atomic_files import write_text


class LatchedStopFile:
    """
    A file that exists while a mux is STOPPED.

    It outlives the process, and a reboot where its folder does. Every method raises OSError where
    the folder cannot be used.

    :param folder: of the file; None: $XDG_RUNTIME_DIR, else a folder of this user under the
        temporary one.
    :param name: distinguishes the muxes of a machine: ROS domain and full node name.
    """

    def __init__(self, folder: Path | None, name: str) -> None:
        self._folder = folder or _runtime_folder()
        self.path = self._folder / f'stop_{re.sub("[^A-Za-z0-9]+", "_", name)}.json'

    def read(self) -> str | None:
        """Return why the mux before this one was STOPPED, or None if it was not."""
        try:
            text = self.path.read_text()
        except FileNotFoundError:
            return None
        try:
            return str(json.loads(text)['reason'])
        except (ValueError, KeyError, TypeError):
            return 'its record cannot be read'  # a broken file is a stop as well

    def write(self, reason: str) -> None:
        """Write a stop and its reason."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_text(self.path, json.dumps({'reason': reason}))

    def clear(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)


def _runtime_folder() -> Path:
    runtime = os.environ.get('XDG_RUNTIME_DIR', '')
    if runtime and os.access(runtime, os.W_OK):
        return Path(runtime) / 'lingbot_va_ros'
    return Path(tempfile.gettempdir()) / f'lingbot_va_ros_{os.getuid()}'
