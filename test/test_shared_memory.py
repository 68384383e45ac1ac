"""Shared memory that killed processes leave is removed, and none that is in use."""

import fcntl
import os

from support.shared_memory import LEAST_AGE, remove_abandoned_segments

ABANDONED, USED, NEW = (f'fastrtps_{number:016x}' for number in (1, 2, 3))


def segment(folder, name, age=2 * LEAST_AGE):
    (folder / name).write_bytes(b'memory')
    lock = folder / f'{name}_el'
    lock.touch()
    made = lock.stat().st_mtime - age
    os.utime(lock, (made, made))
    return lock


def test_what_a_living_process_has_locked_stays_and_what_is_new(tmp_path):
    segment(tmp_path, ABANDONED)
    segment(tmp_path, NEW, age=0.0)
    segment(tmp_path, 'fastrtps_port7400')
    with segment(tmp_path, USED).open() as used:
        fcntl.flock(used, fcntl.LOCK_SH)
        assert remove_abandoned_segments(tmp_path) == 1
    kept = {path.name for path in tmp_path.iterdir()}
    assert kept == {name + end for name in (USED, NEW, 'fastrtps_port7400') for end in ('', '_el')}
