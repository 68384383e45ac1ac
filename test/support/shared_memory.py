"""Removes the shared memory that Fast DDS leaves behind where a test kills a process."""

import fcntl
from pathlib import Path
import re
import time

SHARED_MEMORY = Path('/dev/shm')
# A process keeps a lock on this file beside the segment that it uses.
LOCK_NAME = re.compile(r'fastrtps_[0-9a-f]{16}_el')
# A process locks the file a moment after it has made the segment, s.
LEAST_AGE = 60.0


def remove_abandoned_segments(folder: Path = SHARED_MEMORY, least_age: float = LEAST_AGE) -> int:
    """
    Remove the segments of Fast DDS in a folder whose processes have ended, and return how many.

    A killed process leaves some ten megabytes, and a run of the whole suite a gigabyte. What a
    living process has locked stays.

    :param least_age: younger segments stay, s.
    """
    removed = 0
    for lock in folder.iterdir():
        if not LOCK_NAME.fullmatch(lock.name):
            continue
        try:
            if time.time() - lock.stat().st_mtime < least_age:
                continue
            with lock.open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                lock.with_name(lock.name.removesuffix('_el')).unlink(missing_ok=True)
                lock.unlink()
                removed += 1
        except OSError:  # in use, another user's, or removed by another run
            continue
    return removed
