"""Keeps a latched stop on disk, in a thread of its own: a file system may block for minutes."""

import os
from pathlib import Path
from queue import SimpleQueue
import threading

from rclpy.node import Node

from lingbot_va_ros.mux.latched_stop_file import LatchedStopFile
from lingbot_va_ros.mux.mux import Mux
from lingbot_va_ros.nodes.run import CannotStart

_STOPPED_BEFORE = 'stopped before the mux was restarted: '
_END = object()
# How long the end of the process waits for what is still to be written, s.
CLOSE_SECONDS = 2.0


class LatchedStop:
    """
    The latched stop of this mux on disk; a folder that cannot be used is a warning in the log.

    `write` and `clear` never wait for the file system. What they ask for is done in their order.

    :param folder: see `LatchedStopFile`; empty: its default.
    :raises CannotStart: there is no default folder.
    """

    def __init__(self, node: Node, folder: str) -> None:
        name = f'{os.environ.get("ROS_DOMAIN_ID", "0")}{node.get_fully_qualified_name()}'
        try:
            self._file = LatchedStopFile(Path(folder).expanduser() if folder else None, name)
        except RuntimeError as error:  # a user without an entry, as in some containers
            raise CannotStart(f'stop_folder: {error}; give an absolute path') from None
        self._logger = node.get_logger()
        # Reasons of stops to keep, None to remove the file, _END.
        self._tasks: SimpleQueue[object] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name='latched stop', daemon=True)
        self._thread.start()

    def restore(self, mux: Mux) -> None:
        """Begin STOPPED if the previous mux was STOPPED and its file remains."""
        try:
            self._file.prepare()
            reason = self._file.read()
        except OSError as error:
            self._warn(error.strerror)
            return
        self._logger.info(f'a latched stop is kept in {self._file.path}')
        if reason is not None:
            mux.machine.begin_stopped(_STOPPED_BEFORE + reason)

    def write(self, reason: str) -> None:
        """Keep the stop for a respawned mux."""
        self._tasks.put(reason.removeprefix(_STOPPED_BEFORE))

    def clear(self) -> None:
        """Remove the file."""
        self._tasks.put(None)

    def close(self) -> bool:
        """End the thread when everything is written; returns whether it has ended."""
        self._tasks.put(_END)
        self._thread.join(timeout=CLOSE_SECONDS)
        if self._thread.is_alive():
            self._warn(f'the file system has not answered for {CLOSE_SECONDS:g} s')
            return False
        return True

    def _run(self) -> None:
        while (task := self._tasks.get()) is not _END:
            try:
                if task is None:
                    self._file.clear()
                else:
                    self._file.write(str(task))
            except OSError as error:
                self._warn(error.strerror)

    def _warn(self, why: str | None) -> None:
        self._logger.warning(
            f'a stop would be forgotten by a respawned mux: {self._file.path}: {why}',
            throttle_duration_sec=10.0)
